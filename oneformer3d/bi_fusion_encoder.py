"""The Bi-Fusion encoder under its documented name; it lives in ``oneformer3d.fusion``."""

from .fusion.encoder import BiFusionEncoder

__all__ = ['BiFusionEncoder']
