"""The feature store: LMDB shards under one manifest, many writers, one reader."""
