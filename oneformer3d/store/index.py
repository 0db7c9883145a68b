"""All shards of a store as one mapping from key to record.

Enters: a store's folder. Leaves: records by key, whichever writer's shard holds them, also of
writers that joined after this object was made.
"""

import heapq
import os
from collections.abc import Iterator
from pathlib import Path

from .manifest import MANIFEST_NAME, Manifest, read_manifest
from .shard import STAMP_KEY, ShardFile, shard_file
from .stamp import StampMismatchError


class StoreIndex:
    """Looks a key up in every shard that the manifest names. Holds no handles."""

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self._manifest: Manifest | None = None
        self._version: tuple[int, ...] | None = None
        self._checked: set[str] = set()

    def manifest(self) -> Manifest:
        """The manifest as it is now: read again when its file has changed."""
        try:
            status = (self.folder / MANIFEST_NAME).stat()
        except FileNotFoundError:
            return read_manifest(self.folder)  # which says what is missing

        version = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        if self._manifest is None or version != self._version:
            self._manifest, self._version = read_manifest(self.folder), version
        return self._manifest

    def shards(self) -> list[ShardFile]:
        """The shards, each checked once to be of the store's encoder.

        Raises:
            FileNotFoundError: a shard that the manifest names is gone.
            StampMismatchError: a shard was made by another encoder.
            ValueError: a shard cannot be opened.
        """
        manifest = self.manifest()
        shards = [shard_file(self.folder / name) for name in manifest.shards]
        for name, shard in zip(manifest.shards, shards):
            if name not in self._checked:
                check_shard_stamp(shard, manifest)
                self._checked.add(name)
        return shards

    def find(self, key: bytes) -> tuple[bytes, str] | None:
        """A record and the path of its shard, or None."""
        for shard in self.shards():
            record = shard.read(key)
            if record is not None:
                return record, str(shard.path)
        return None

    def contains(self, key: bytes) -> bool:
        """Whether any shard holds the key."""
        return any(shard.contains(key) for shard in self.shards())

    def all_keys(self) -> Iterator[bytes]:
        """Every key once, in order; does not read the records."""
        last = None
        for key in heapq.merge(*(shard.keys() for shard in self.shards())):
            if key != last:
                yield key
            last = key

    def records(self) -> Iterator[tuple[bytes, bytes, str]]:
        """Every key once, in order, with its record and the path of its shard."""
        last = None
        scans = [_records_of(shard) for shard in self.shards()]
        for key, record, source in heapq.merge(*scans, key=lambda found: found[0]):
            if key != last:
                yield key, record, source
            last = key


def check_shard_stamp(shard: ShardFile, manifest: Manifest) -> None:
    """Raise StampMismatchError unless the shard states the manifest's stamp.

    Example:
        >>> from oneformer3d.store.examples import example_store
        >>> store = StoreIndex(example_store())
        >>> check_shard_stamp(shard_file(store.folder / 'features.r0000.lmdb'), store.manifest())
    """
    if shard.read(STAMP_KEY) != manifest.stamp.to_bytes():
        raise StampMismatchError(
            f'{shard.path}: the stamp inside is not the one in the manifest; '
            'the file belongs to another store'
        )


def _records_of(shard: ShardFile) -> Iterator[tuple[bytes, bytes, str]]:
    for key, record in shard.items():
        yield key, record, str(shard.path)
