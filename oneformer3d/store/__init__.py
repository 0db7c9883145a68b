"""The feature store: dense image features by ``scene/frame``, written once, read at random.

Enters: a folder, and when writing named arrays per frame. Leaves: the same arrays, checked. One
folder is one store: an LMDB file per writer (a shard) and ``manifest.json``, which names the shards
and stamps the encoder that made them. docs/feature_store.md describes it for users; ``export``
turns a store into npz or HDF5 files and back.
"""

from .channels import token_channels
from .lock import StoreLockedError
from .manifest import read_manifest
from .reader import FeatureStore
from .record import CorruptRecordError
from .stamp import StampMismatchError, StoreStamp, stamp_from_dict
from .tokens import read_views
from .upkeep import merge_stores, verify_store
from .writer import BatchCommit, FeatureStoreWriter, StoreFullError

__all__ = [
    'BatchCommit',
    'CorruptRecordError',
    'FeatureStore',
    'FeatureStoreWriter',
    'StampMismatchError',
    'StoreFullError',
    'StoreLockedError',
    'StoreStamp',
    'merge_stores',
    'read_manifest',
    'read_views',
    'stamp_from_dict',
    'token_channels',
    'verify_store',
]
