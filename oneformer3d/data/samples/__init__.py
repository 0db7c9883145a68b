"""One sample for the network: loading, transforms, views, packing."""
