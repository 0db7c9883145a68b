"""The feature store: dense image features by ``scene/frame``, written once, read at random.

Enters: a folder, and when writing named arrays per frame. Leaves: the same arrays, checked.
One folder is one store: a shard per writer, ``manifest.json`` naming the shards and stamping
the encoder that made them. docs/feature_store.md describes it for users.

    with FeatureStoreWriter(folder, stamp) as writer:
        writer.put('scene0000_00', '00000', {'feat': feat, 'clip_global': clip_global})
    store = FeatureStore(folder, expected_stamp=stamp)
    feat = store.get('scene0000_00', '00000')['feat']  # (C, h, w)
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from mmengine.logging import print_log

from .format import (
    CorruptRecordError,
    StampMismatchError,
    StoreStamp,
    check_stamp,
    decode_record,
    describe_record,
    record_checksum,
    record_key,
    split_key,
)
from .index import StoreIndex, check_shard_stamp
from .lock import StoreLockedError, WriterLock
from .manifest import read_manifest
from .plain import H5Store, H5StoreWriter, NpzStore, NpzStoreWriter
from .shard import ShardFile, shard_file, structural_problems
from .writer import BatchCommit, FeatureStoreWriter, StoreFullError

__all__ = [
    'BatchCommit',
    'CorruptRecordError',
    'FeatureStore',
    'FeatureStoreWriter',
    'H5Store',
    'H5StoreWriter',
    'NpzStore',
    'NpzStoreWriter',
    'StampMismatchError',
    'StoreFullError',
    'StoreLockedError',
    'StoreStamp',
    'create_writer',
    'export_store',
    'merge_stores',
    'open_store',
    'verify_store',
]

_STORES = {'npz': NpzStore, 'h5': H5Store}
_WRITERS = {'lmdb': FeatureStoreWriter, 'npz': NpzStoreWriter, 'h5': H5StoreWriter}


class FeatureStore:
    """Reads an LMDB store. Holds no handles: picklable, safe in forked and spawned workers.

    Args:
        path: the store's folder.
        expected_stamp: a whole stamp, or a mapping with the fields that matter.

    Raises:
        FileNotFoundError: no store there.
        StampMismatchError: made by another encoder; names the fields with both values.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        expected_stamp: StoreStamp | Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        manifest = read_manifest(path)
        if manifest.format != 'lmdb':
            raise ValueError(f'{path}: is a store of format {manifest.format}; use open_store')
        check_stamp(manifest.stamp, expected_stamp, source=str(path))
        self.stamp = manifest.stamp
        self._index = StoreIndex(path)

    def get(self, scene: str, frame: str) -> dict[str, np.ndarray]:
        """Arrays of a frame by name, copies that may be written to.

        Raises:
            KeyError: no such frame.
            CorruptRecordError: the record's checksum is wrong.
            ValueError: bad names, or a shard that cannot be read.
        """
        key = record_key(scene, frame)
        found = self._index.find(key)
        if found is None:
            raise KeyError(f'{self.path}: no features of {scene}/{frame}')
        return decode_record(key, found[1], str(found[0].path))

    def has(self, scene: str, frame: str) -> bool:
        """Whether the frame is there."""
        return self._index.contains(record_key(scene, frame))

    def keys(self) -> Iterator[str]:
        """Every ``scene/frame`` once, in order."""
        return (key.decode('ascii') for key in self._index.all_keys())

    def items(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Every ``scene/frame`` with its arrays, in order."""
        for key, record, shard in self._index.items():
            yield key.decode('ascii'), decode_record(key, record, str(shard.path))

    def checksums(self) -> dict[str, int]:
        """Key → checksum of every record, each checked."""
        found = {}
        for key, record, shard in self._index.items():
            decode_record(key, record, str(shard.path))
            found[key.decode('ascii')] = record_checksum(record)
        return found

    def stats(self) -> dict[str, Any]:
        """Counts and sizes: records, record_bytes, file_bytes, scenes, shapes, shards.

        Goes through all records once.
        """
        scenes, shapes, record_bytes = Counter(), defaultdict(Counter), 0
        for key, record, shard in self._index.items():
            record_bytes += len(record)
            scenes[split_key(key)[0]] += 1
            for name, shape in describe_record(record, str(shard.path)).items():
                shapes[name][shape] += 1
        shards = [
            {
                'name': shard.path.name,
                'records': shard.num_records(),
                'file_bytes': shard.path.stat().st_size,
            }
            for shard in self._index.shards()
        ]
        return {
            'records': scenes.total(),
            'record_bytes': record_bytes,
            'file_bytes': sum(shard['file_bytes'] for shard in shards),
            'scenes': dict(scenes),
            'shapes': {name: dict(counts) for name, counts in shapes.items()},
            'shards': shards,
        }

    def verify(self) -> list[str]:
        """As ``verify_store``."""
        return verify_store(self.path)

    def close(self) -> None:
        """Close this process's handles of the shards; they open again when needed."""
        for name in self._index.manifest().shards:
            shard_file(self.path / name).close()

    def __contains__(self, key: str) -> bool:
        return self.has(*split_key(key))

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def __len__(self) -> int:
        shards = self._index.shards()
        if len(shards) == 1:
            return shards[0].num_records()
        return sum(1 for _ in self.keys())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_store(
    path: str | os.PathLike, expected_stamp: StoreStamp | Mapping[str, Any] | None = None
) -> FeatureStore | NpzStore | H5Store:
    """Open a store of whichever format its manifest says."""
    store = _STORES.get(read_manifest(path).format, FeatureStore)
    return store(path, expected_stamp)


def create_writer(
    path: str | os.PathLike, stamp: StoreStamp, format: str = 'lmdb', rank: int = 0
) -> FeatureStoreWriter | NpzStoreWriter | H5StoreWriter:
    """A writer of the given format: ``lmdb``, ``npz`` or ``h5``."""
    if format not in _WRITERS:
        raise ValueError(f'format {format!r}: expected one of {", ".join(_WRITERS)}')
    return _WRITERS[format](path, stamp, rank=rank)


def verify_store(path: str | os.PathLike, on_record: Callable[[], None] | None = None) -> list[str]:
    """Check an LMDB store completely: structure first, then stamp, names, checksums, doubles.

    No shard is opened with LMDB before its structure was found whole by a reader of plain
    bytes, so this is safe for files from elsewhere.

    Args:
        path: the store's folder.
        on_record: called after each record.

    Returns:
        One sentence per fault; empty for a good store.
    """
    manifest = read_manifest(path)
    if manifest.format != 'lmdb':
        raise ValueError(f'{path}: is a store of format {manifest.format}; only lmdb is verified')
    folder = Path(path)
    unlisted = {found.name for found in folder.glob('features.*.lmdb')} - set(manifest.shards)
    problems = [f'{folder / name}: not in the manifest' for name in sorted(unlisted)]
    seen: dict[bytes, tuple[tuple[int, int], str]] = {}
    for name in manifest.shards:
        faults = _shard_problems(folder / name)
        problems += faults
        if faults:
            continue
        shard = shard_file(folder / name)
        try:
            check_shard_stamp(shard, manifest)
            problems += _record_problems(shard, seen, on_record)
        except ValueError as error:
            problems.append(str(error))
    return problems


def merge_stores(
    paths: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    skip_damaged: bool = False,
    on_record: Callable[[], None] | None = None,
) -> int:
    """Copy stores of one stamp into one shard; can be run again after it was interrupted.

    Args:
        paths: LMDB stores; none may be ``out``.
        out: the store to make or to add to.
        skip_damaged: leave out records with a wrong checksum instead of stopping there.
        on_record: called after each record.

    Returns:
        Number of records that were new in ``out``.

    Raises:
        StampMismatchError: two stores come from different encoders; nothing is written.
        ValueError: a shard is damaged, or one key has different content in two stores.
    """
    if not paths:
        raise ValueError('nothing to merge')
    if Path(out).resolve() in {Path(path).resolve() for path in paths}:
        raise ValueError(f'{out}: is one of the stores to merge')
    stamp = read_manifest(paths[0]).stamp
    stores = [FeatureStore(path, expected_stamp=stamp) for path in paths]
    for store in stores:
        _require_sound(store)
    num_new = 0
    with FeatureStoreWriter(out, stamp) as writer:
        for store in stores:
            for key, record, shard in store._index.items():
                try:
                    arrays = decode_record(key, record, str(shard.path))
                except CorruptRecordError as error:
                    if not skip_damaged:
                        raise
                    print_log(f'left out: {error}', logger='current')
                else:
                    num_new += writer.put(*split_key(key), arrays)
                if on_record is not None:
                    on_record()
    return num_new


def export_store(
    path: str | os.PathLike,
    out: str | os.PathLike,
    format: str,
    on_record: Callable[[], None] | None = None,
) -> int:
    """Copy an LMDB store to npz files or an HDF5 file; can be run again.

    Returns:
        Number of records that were new in ``out``.
    """
    if format not in _STORES:
        raise ValueError(f'format {format!r}: expected one of {", ".join(_STORES)}')
    store = FeatureStore(path)
    _require_sound(store)
    num_new = 0
    with create_writer(out, store.stamp, format) as writer:
        for key, arrays in store.items():
            num_new += writer.put(*split_key(key), arrays)
            if on_record is not None:
                on_record()
    return num_new


def _require_sound(store: FeatureStore) -> None:
    for name in read_manifest(store.path).shards:
        problems = _shard_problems(store.path / name)
        if problems:
            raise ValueError(problems[0])


def _shard_problems(path: Path) -> list[str]:
    if not path.is_file():
        return [f'{path}: no such shard']
    holder = WriterLock(path).holder()
    if holder is not None:
        return [f'{path}: being written by {holder}; come back when it is done']
    return [f'{path}: {problem}' for problem in structural_problems(path)]


def _record_problems(
    shard: ShardFile,
    seen: dict[bytes, tuple[tuple[int, int], str]],
    on_record: Callable[[], None] | None,
) -> list[str]:
    problems = []
    for key, record in shard.items():
        try:
            split_key(key)
            decode_record(key, record, str(shard.path))
            # CRC-32 and length; equal for the equal records that two writers may both have
            content = (record_checksum(record), len(record))
            first = seen.setdefault(key, (content, shard.path.name))
            if first[0] != content:
                problems.append(
                    f'{shard.path}: {key.decode()} is in {first[1]} too, with other content'
                )
        except ValueError as error:
            problems.append(str(error))
        if on_record is not None:
            on_record()
    return problems
