"""Datasets as they are downloaded → the layout of docs/data.md.

``conversion`` is what all converters share; ``scannet`` (with ``scannet_views`` and ``sens``),
``s3dis`` and ``posed_rgbd_dataset`` each convert one kind of download.
"""
