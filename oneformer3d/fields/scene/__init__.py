"""The images, labels and features of one scene, drawn as batches of pixels.

Enters: a folder of frames or arrays, perhaps a feature store and labels. Leaves: ``FieldScene`` of
``scene``, the file to read first, made by ``folder`` or ``arrays``; ``RayBatch``es of ``batches``;
and what its views cover, ``extent``. Labels come by ``label_maps`` and ``labelled_points``, CLIP
embeddings of crops by ``language``.
"""
