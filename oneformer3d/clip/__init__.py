"""Frozen CLIP towers: dense features of images, vectors of texts."""
