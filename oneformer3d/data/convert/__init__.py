"""Datasets as they are downloaded to the layout of docs/data.md."""
