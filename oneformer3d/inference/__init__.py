"""A scan in, labelled points out."""
