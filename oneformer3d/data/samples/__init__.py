"""A scene of a data root → one sample of a batch.

To be read in this order: ``dataset``, ``loading``, ``views`` (with ``view_pairs`` and
``view_selection``), ``transforms``, ``packing``, ``preprocessor``. ``view_images`` loads images
with labels and no points.
"""
