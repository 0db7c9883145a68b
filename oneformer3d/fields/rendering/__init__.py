"""Pixels to rays, rays to samples, samples to what the pixel shows.

Enters: cameras and a field. Leaves: ``RenderedRays`` and ``RenderedImage``. To read in this order:
``volume`` (the integral), ``rays``, ``samplers``, ``render``; ``occupancy`` and ``proposals`` place
samples better.
"""
