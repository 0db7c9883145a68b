"""A small CLIP for the generated rooms: crops, training, probe."""
