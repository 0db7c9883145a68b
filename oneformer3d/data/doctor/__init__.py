"""Which convention a folder of posed frames is in, and what to do where it is not the package's.

To be read in this order: ``diagnose`` (the answer), ``frames`` (what is looked at), ``intrinsics``
(what the cameras could be), ``scoring`` (how well a reading fits).
"""
