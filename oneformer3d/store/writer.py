"""Writing a shard of the LMDB feature store.

Enters: named arrays per scene and frame. Leaves: records in this writer's shard, committed in
batches, each durable on disk before the next begins. A batch waits in memory until then, so a
full map or a full disk loses none of it, and a killed process at most this one.
"""

import errno
import logging
import mmap
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import lmdb
import numpy as np
from mmengine.logging import print_log

from .index import StoreIndex
from .lock import WriterLock
from .manifest import MANIFEST_NAME, join_manifest, read_manifest, shard_name, stamp_to_join
from .record import current_record, decode_record, encode_record, record_key
from .shard import STAMP_KEY, shard_file
from .stamp import StoreStamp, check_feature

_SPARE_BYTES = 1 << 20  # a commit also writes pages of the tree


class StoreFullError(OSError):
    """No space is left for a batch."""


@dataclass(frozen=True)
class BatchCommit:
    """A batch is committed when one of these is reached (tested on every ``put``).

    Attributes:
        records: number of records.
        num_bytes: bytes of all records.
        seconds: age of the oldest record.

    Example:
        >>> BatchCommit(records=16)
        BatchCommit(records=16, num_bytes=67108864, seconds=30.0)
    """

    records: int = 64
    num_bytes: int = 64 << 20
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.records < 1 or self.num_bytes < 1 or self.seconds <= 0:
            raise ValueError(f'batch commits need positive limits, got {self}')


class FeatureStoreWriter:
    """The one writer of a shard.

    Args:
        path: the store's folder; made if missing, joined if it is a store already.
        stamp: the encoder and its settings; must equal the store's.
        rank: which shard is written; ranks of one run write side by side.
        batch_commit: when to commit.
        map_bytes: first size of the map (address space, not disk); it doubles when full.

    Raises:
        StampMismatchError: the store was made by another encoder.
        StoreLockedError: the shard has a writer, named with its process id.
        ValueError: the shard is truncated or damaged.

    Example:
        >>> import tempfile
        >>> from oneformer3d.store.examples import STAMP
        >>> arrays = {'feat': np.zeros((4, 3, 5), np.float16)}
        >>> with FeatureStoreWriter(tempfile.mkdtemp(), STAMP) as writer:
        ...     print(writer.put('room', '00000', arrays), writer.put('room', '00000', arrays))
        True False
    """

    def __init__(
        self,
        path: str | os.PathLike,
        stamp: StoreStamp,
        rank: int = 0,
        batch_commit: BatchCommit | None = None,
        map_bytes: int = 1 << 30,
    ) -> None:
        name = shard_name(rank)
        self.path = Path(path)
        self.stamp = stamp_to_join(path, stamp)
        self._limits = batch_commit or BatchCommit()
        self._pid = os.getpid()

        # the batch in the making, and when its first record was put
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes = 0
        self._oldest = 0.0

        self.path.mkdir(parents=True, exist_ok=True)
        self._shard = shard_file(self.path / name)
        self._lock = WriterLock(self._shard.path)
        self._lock.acquire()
        try:
            # the stamp is inside the shard before the manifest names it
            self._open_shard(map_bytes)
            join_manifest(path, self.stamp, name)
            self._index = StoreIndex(path)
            self._index.shards()
        except BaseException:
            self._shard.close_writing()
            self._lock.release()
            raise
        self._open = True

    def put(self, scene: str, frame: str, arrays: Mapping[str, np.ndarray]) -> bool:
        """Store one frame.

        Args:
            scene, frame: names safe as file names.
            arrays: named arrays; ``feat`` is the dense map (C, h, w) that the stamp describes.

        Returns:
            True if the record is new, False if the same one was there (in any shard).

        Raises:
            ValueError: bad names, types, shapes or values, or other content under this key.
            StoreFullError: no space for the batch; it is kept, ``flush`` tries again.
            OSError: the batch cannot be written; it is kept as well.
        """
        self._check_usable()
        key = record_key(scene, frame)
        check_feature(arrays, self.stamp, f'{scene}/{frame}')
        record = encode_record(key, arrays)

        with self._shard.write_lock:
            if self._is_stored(key, record):
                return False

            if not self._pending:
                self._oldest = time.monotonic()
            self._pending[key] = record
            self._pending_bytes += len(record)
            if self._is_due():
                self.flush()
        return True

    def has(self, scene: str, frame: str) -> bool:
        """Whether any shard, or the batch in the making, holds the frame."""
        key = record_key(scene, frame)
        return key in self._pending or self._index.contains(key)

    def get(self, scene: str, frame: str) -> dict[str, np.ndarray]:
        """Read a frame back, committed or not; raises KeyError if there is none."""
        key = record_key(scene, frame)
        found = self._find(key)
        if found is None:
            raise KeyError(f'{self.path}: no features of {scene}/{frame}')
        return decode_record(key, *found)

    def flush(self) -> None:
        """Commit what waits; durable on return.

        Raises:
            StoreFullError, OSError: nothing of the batch is committed, all of it is kept.
        """
        self._check_usable()
        with self._shard.write_lock:
            if not self._pending:
                return
            self._commit(self._pending)
            self._pending = {}
            self._pending_bytes = 0

    def close(self) -> None:
        """Commit and give the shard back, which also happens when the commit fails."""
        if not self._open or os.getpid() != self._pid:
            return
        try:
            self.flush()
        finally:
            self._open = False
            self._shard.close_writing()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except OSError as error:
            if exc is None:
                raise
            print_log(f'last batch not written: {error}', logger='current', level=logging.ERROR)

    def _open_shard(self, map_bytes: int) -> None:
        self._drop_unfinished()
        try:
            self._shard.open_for_writing(map_bytes)
        except lmdb.Error as error:
            raise self._explained(error) from error
        stored = self._shard.read(STAMP_KEY)
        if stored is None:
            self._commit({STAMP_KEY: self.stamp.to_bytes()})
        elif stored != self.stamp.to_bytes():
            raise ValueError(f'{self._shard.path}: a shard of another store, made differently')

    def _drop_unfinished(self) -> None:
        """Remove a shard whose making was cut short; LMDB would refuse what is left of it."""
        path = self._shard.path
        if not path.is_file() or path.stat().st_size >= 2 * mmap.PAGESIZE:
            return
        if (self.path / MANIFEST_NAME).is_file() and path.name in read_manifest(self.path).shards:
            raise ValueError(f'{path}: truncated: {path.stat().st_size} bytes')
        path.unlink()

    def _find(self, key: bytes) -> tuple[bytes, str] | None:
        """A record, committed or not, and where it is; or None."""
        if key in self._pending:
            return self._pending[key], f'{self.path}, this batch'
        return self._index.find(key)

    def _is_stored(self, key: bytes, record: bytes) -> bool:
        found = self._find(key)
        if found is None:
            return False
        stored, source = found
        # what an earlier version wrote may be the same arrays in other bytes
        if stored != record and current_record(key, stored, source) != record:
            raise ValueError(f'{source}: {key.decode("ascii")} is there with other content')
        return True

    def _is_due(self) -> bool:
        return (
            len(self._pending) >= self._limits.records
            or self._pending_bytes >= self._limits.num_bytes
            or time.monotonic() - self._oldest >= self._limits.seconds
        )

    def _commit(self, items: Mapping[bytes, bytes]) -> None:
        try:
            while not self._fits(items):
                self._shard.grow()
        except lmdb.Error as error:
            self._shard.reset()
            raise self._explained(error) from error

    def _fits(self, items: Mapping[bytes, bytes]) -> bool:
        """Commit all items; False, with none of them written, if the map is too small."""
        try:
            self._shard.write(items)
        except lmdb.MapFullError:
            return False
        return True

    def _explained(self, error: lmdb.Error) -> Exception:
        """LMDB's error in terms of the disk: it says EIO where the disk is full."""
        code = getattr(error, 'code', 0)
        if code <= 0:  # LMDB's own: about the file, not the system
            return ValueError(f'{self._shard.path}: cannot be written: {error}')

        status = os.statvfs(self.path)
        free = status.f_bavail * status.f_frsize
        waiting = f'{len(self._pending)} records ({self._pending_bytes} bytes) wait'

        full = code in (errno.ENOSPC, errno.EDQUOT) or (
            code == errno.EIO and free < self._pending_bytes + _SPARE_BYTES
        )
        if full:
            return StoreFullError(
                f'{self._shard.path}: no space left: {free} bytes free, {waiting}; '
                'what was committed is safe, free some space and run again'
            )
        return OSError(
            f'{self._shard.path}: {error} ({free} bytes free, {waiting}; '
            'a quota, a limit of file size, or a failing disk?)'
        )

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(
                f'{self.path}: opened for writing by process {self._pid}; '
                f'its child {os.getpid()} can only read'
            )
        if not self._open:
            raise RuntimeError(f'{self.path}: the writer is closed')
