"""The consistency loss under its documented name; it lives in ``oneformer3d.fusion``."""

from .fusion.consistency import ClipConsCriterion

__all__ = ['ClipConsCriterion']
