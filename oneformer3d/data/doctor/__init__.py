"""What is wrong with a data root, and how far that goes."""
