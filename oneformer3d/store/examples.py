"""A small store to try things on; the examples of this package use it.

Enters: nothing. Leaves: a stamp, and a temporary store with a map (4, 3, 5) per frame.
"""

import atexit
import shutil
import tempfile

import numpy as np

from .stamp import StoreStamp
from .writer import FeatureStoreWriter

STAMP = StoreStamp(
    encoder='ViT-B-16',
    weights_digest='0123abcd',
    layer='last',
    mode='tokens',
    attn_mode='vanilla',
    input_size=(224, 224),
    dtype='float16',
    preprocessing='squash 224, clip mean and std',
    channels=4,
    grid=(3, 5),
)


def example_store(num_frames: int = 2) -> str:
    """Write a store with frames ``room/00000``, ``room/00001``, …

    Returns:
        Its folder, which is removed when the program ends.

    Example:
        >>> from oneformer3d.store import FeatureStore
        >>> list(FeatureStore(example_store()))
        ['room/00000', 'room/00001']
    """
    folder = tempfile.mkdtemp(prefix='feature_store_')
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    with FeatureStoreWriter(folder, STAMP) as writer:
        for number in range(num_frames):
            feat = np.full((4, 3, 5), number, np.float16)
            writer.put('room', f'{number:05d}', {'feat': feat})
    return folder
