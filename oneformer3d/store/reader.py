"""Reading a feature store.

Enters: a store's folder. Leaves: arrays by ``scene/frame``, each record checked.

    store = FeatureStore(folder, expected_stamp=stamp)
    feat = store.get('scene0000_00', '00000')['feat']  # (C, h, w)
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from .index import StoreIndex
from .manifest import read_manifest, require_format
from .record import decode_record, record_checksum, record_key, split_key
from .shard import shard_file
from .stamp import StoreStamp, check_stamp


class FeatureStore:
    """Reads a store. Holds no handles: picklable, safe in forked and spawned workers.

    Args:
        path: the store's folder.
        expected_stamp: a whole stamp, or a mapping with the fields that matter.

    Raises:
        FileNotFoundError: no store there.
        StampMismatchError: made by another encoder; names the fields with both values.
        ValueError: an export to npz or HDF5, which is no store any more.

    Example:
        >>> from oneformer3d.store.examples import example_store
        >>> store = FeatureStore(example_store(), expected_stamp={'mode': 'tokens'})
        >>> list(store), store.has('room', '00009')
        (['room/00000', 'room/00001'], False)
        >>> store.get('room', '00000')['feat'].shape
        (4, 3, 5)
    """

    def __init__(
        self,
        path: str | os.PathLike,
        expected_stamp: StoreStamp | Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        manifest = read_manifest(path)
        require_format(path, manifest)
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
        return decode_record(key, *found)

    def has(self, scene: str, frame: str) -> bool:
        """Whether the frame is there."""
        return self._index.contains(record_key(scene, frame))

    def keys(self) -> Iterator[str]:
        """Every ``scene/frame`` once, in order."""
        return (key.decode('ascii') for key in self._index.all_keys())

    def items(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Every ``scene/frame`` with its arrays, in order."""
        for key, record, source in self.records():
            yield key.decode('ascii'), decode_record(key, record, source)

    def records(self) -> Iterator[tuple[bytes, bytes, str]]:
        """Every key once, in order, with its unchecked record and the path of its shard."""
        return self._index.records()

    def checksums(self) -> dict[str, int]:
        """Key → checksum of every record, each checked."""
        found = {}
        for key, record, source in self.records():
            decode_record(key, record, source)
            found[key.decode('ascii')] = record_checksum(record)
        return found

    def stats(self) -> dict[str, Any]:
        """Counts and sizes: records, record_bytes, file_bytes, scenes, shapes, shards.

        Goes through all records once and checks them.
        """
        scenes, shapes, record_bytes = Counter(), defaultdict(Counter), 0
        for key, record, source in self.records():
            record_bytes += len(record)
            scenes[split_key(key)[0]] += 1
            for name, array in decode_record(key, record, source).items():
                shapes[name][f'{array.dtype.name} {array.shape}'] += 1

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
