"""Sparse convolution and the networks on it, voxels and neighbourhoods."""
