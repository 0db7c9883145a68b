"""Feature maps that forks of F3RM keep in chunks, as a store.

Enters: ``chunk_0000.npy`` and so on, each (n, h, w, C) of n images, and the images' names in the
order of the chunks. Leaves: records of a feature store. The ``meta.pt`` beside the chunks is a
pickle and is not opened; ``names_of_transforms`` gives the order that those programs take from
``transforms.json``.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from .export import OnRecord
from .record import DTYPES
from .stamp import FEATURE_NAME, StoreStamp
from .writer import FeatureStoreWriter


def import_chunks(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    scene: str,
    frames: Sequence[str],
    encoder: str,
    on_record: OnRecord = None,
) -> int:
    """Make a store of chunks; can be run again.

    Args:
        folder: of the chunks.
        out: the store to make or to add to.
        scene: name in the store.
        frames: names of the images in the order of the chunks.
        encoder: what made the features; nothing in the chunks says it.
        on_record: called after each record.

    Returns:
        Number of records that were new in ``out``.

    Raises:
        ValueError: no chunks, chunks that do not fit each other, or not as many images as names.
        StampMismatchError: ``out`` is a store of another encoder.
    """
    chunks = list(_open_chunks(Path(folder)))
    count = sum(map(len, chunks))
    if count != len(frames):
        raise ValueError(f'{folder}: {count} images, but {len(frames)} names of frames')

    height, width, channels = chunks[0].shape[1:]
    stamp = StoreStamp(
        encoder=encoder, weights_digest='not known', layer='not known', mode='tokens',
        attn_mode='not known', input_size=None, dtype=chunks[0].dtype.name,
        preprocessing='not known', channels=channels, grid=(height, width),
    )  # fmt: skip

    num_new, names = 0, iter(frames)
    with FeatureStoreWriter(out, stamp) as writer:
        for chunk in chunks:
            for feature_map in chunk:  # (h, w, C)
                array = np.ascontiguousarray(feature_map.transpose(2, 0, 1))
                num_new += writer.put(scene, next(names), {FEATURE_NAME: array})
                if on_record is not None:
                    on_record()
    return num_new


def names_of_transforms(path: str | os.PathLike, train_share: float = 0.95) -> list[str]:
    """Names of a ``transforms.json``'s images in the order of the chunks: learnt ones, then others.

    nerfstudio sorts the files by name, takes ``⌈share · n⌉`` of them evenly spread to learn from,
    and the rest to measure on.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    try:
        files = sorted(frame['file_path'] for frame in json.loads(path.read_text())['frames'])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{path}: not a transforms.json with frames') from error

    names = [PurePosixPath(file).stem for file in files]
    learnt = np.linspace(0, len(names) - 1, math.ceil(train_share * len(names)), dtype=int)
    others = np.setdiff1d(np.arange(len(names)), learnt)
    return [names[i] for i in (*learnt, *others)]


def _open_chunks(folder: Path) -> Iterator[np.ndarray]:
    """Memory-mapped chunks (n, h, w, C) in order."""
    files = sorted(folder.glob('chunk_*.npy'))
    if not files:
        raise ValueError(f'{folder}: holds no chunk_*.npy')
    first = None
    for file in files:
        try:
            chunk = np.load(file, mmap_mode='r', allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f'{file}: damaged: {error}') from error
        first = chunk if first is None else first
        if chunk.ndim != 4 or chunk.dtype.name not in DTYPES:
            raise ValueError(
                f'{file}: expected (n, h, w, C) of {DTYPES}, got {chunk.shape} of {chunk.dtype}'
            )
        if (chunk.shape[1:], chunk.dtype) != (first.shape[1:], first.dtype):
            raise ValueError(f'{file}: maps {chunk.shape[1:]}, those before {first.shape[1:]}')
        yield chunk
