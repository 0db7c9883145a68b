"""Point-cloud files of any origin: one module a family of formats, one record for all of them.

Enters: a file. Leaves: a ``CloudFile`` with coordinates and colours as they are stored; what they
mean (unit, colour range, origin) is decided in ``scale`` and ``colors``.
"""
