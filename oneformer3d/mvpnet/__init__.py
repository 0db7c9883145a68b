"""MVPNet: image features lifted to points, then a point network."""
