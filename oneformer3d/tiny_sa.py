"""Tiny self-attention under its documented names; it lives in ``oneformer3d.fusion``."""

from .fusion.tiny_sa import TinySA2D, TinySAModule, TinySANeck

__all__ = ['TinySA2D', 'TinySAModule', 'TinySANeck']
