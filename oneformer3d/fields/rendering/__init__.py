"""Rays, samples along them and their compositing."""
