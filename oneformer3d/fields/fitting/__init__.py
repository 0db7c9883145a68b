"""Batches, rendering and losses in a loop, and the checkpoint it leaves.

Enters: a ``FieldScene`` and ``FitSettings``. Leaves: a ``FittedField``. To read in this order:
``loop`` (the whole fit), ``step`` (one step of it), ``loss`` (what a batch costs), ``sampling``;
``fitted`` is the record and its file, ``prior`` a segmentor's opinion, ``job`` the fit of a folder.
"""
