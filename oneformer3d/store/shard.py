"""One LMDB file of a store, as this process sees it.

Enters: the path of a shard. Leaves: values by key, and write transactions for the one process
that holds the shard's lock. What LMDB demands and this module sees to:

- a file is opened at most once per process, so all readers and the writer of a process share
  one handle here; objects above hold none and can be pickled;
- no handle crosses a fork (py-lmdb refuses the second opening in the child): handles are
  closed before a fork, once running transactions are done, and reopened when next needed;
- a damaged tree leads LMDB anywhere in the file or beyond it (SIGBUS), so the pages are walked
  once, at the first opening;
- a file shorter than its pages kills the process that reads it (SIGBUS), so the size is
  checked at opening and before each reading;
- readers take no locks, so a writer must not reuse pages that a reader may still look at: it
  keeps a read transaction of its own open, which pins every page since its opening.
"""

import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import lmdb
from lmdb import verify as lmdb_verify

from .lock import WriterLock

T = TypeVar('T')

STAMP_KEY = b'!stamp'  # '!' is in no scene name, and sorts before every name
_LOCK = threading.RLock()  # guards the table, opening, closing and read transactions
_TABLE: dict[str, 'ShardFile'] = {}
_BEING_FORKED: list['ShardFile'] = []


def shard_file(path: str | os.PathLike) -> 'ShardFile':
    """The one object of this process for a shard.

    Example:
        >>> from oneformer3d.store.examples import example_store
        >>> shard = shard_file(f'{example_store()}/features.r0000.lmdb')
        >>> shard.num_records(), list(shard.keys())
        (2, [b'room/00000', b'room/00001'])
    """
    name = os.path.realpath(path)
    with _LOCK:
        if name not in _TABLE:
            _TABLE[name] = ShardFile(Path(name))
        return _TABLE[name]


def structural_problems(path: str | os.PathLike) -> list[str]:
    """Walk an LMDB file page by page without opening it with LMDB; safe for any bytes.

    Returns:
        One sentence per fault; empty if the file may be opened.

    Example:
        >>> from oneformer3d.store.examples import example_store
        >>> structural_problems(f'{example_store()}/features.r0000.lmdb')
        []
        >>> structural_problems('/dev/null') != []
        True
    """
    try:
        return lmdb_verify.verify(os.fspath(path), subdir=False)
    except (lmdb_verify.VerifyError, struct.error) as error:
        return [str(error)]


class ShardFile:
    """A shard; get it from ``shard_file``. Reading is thread-safe, writing has one holder.

    Attributes:
        path: the file.
        write_lock: held by whoever has a write transaction or batch in the making.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write_lock = threading.RLock()
        self._env: lmdb.Environment | None = None
        self._pin: lmdb.Transaction | None = None
        self._pid = 0
        self._identity = (0, 0)
        self._needed_bytes = 0
        self._sound: tuple[int, ...] = ()  # the file as it was when its structure was checked
        self._map_bytes: int | None = None  # a number while this process writes the shard

    def read(self, key: bytes) -> bytes | None:
        """A copy of the value, or None.

        Raises:
            FileNotFoundError: the shard is gone.
            ValueError: the file is truncated or damaged.
        """
        with self._reading() as transaction:
            value = transaction.get(key)
            return None if value is None else bytes(value)

    def contains(self, key: bytes) -> bool:
        """Whether the key is there; does not read the value. Raises as ``read``."""
        with self._reading() as transaction:
            return transaction.cursor().set_key(key)  # unlike get, leaves the value alone

    def keys(self, chunk: int = 1024) -> Iterator[bytes]:
        """All keys but the stamp's, in order; does not read the values."""
        return self._scan(lambda cursor: bytes(cursor.key()), chunk)

    def items(self, chunk: int = 16) -> Iterator[tuple[bytes, bytes]]:
        """All keys but the stamp's, in order, with copies of their values."""
        return self._scan(lambda cursor: (bytes(cursor.key()), bytes(cursor.value())), chunk)

    def _scan(self, take: Callable[[lmdb.Cursor], T], chunk: int) -> Iterator[T]:
        """Every ``chunk`` records are one transaction: none stays open between two results."""
        last = STAMP_KEY
        while last is not None:
            found: list[T] = []
            with self._reading() as transaction:
                cursor = transaction.cursor()
                more = cursor.set_range(last)
                if more and cursor.key() == last:
                    more = cursor.next()

                while more and len(found) < chunk:
                    found.append(take(cursor))
                    last = bytes(cursor.key())
                    more = cursor.next()
                if not more:
                    last = None
            yield from found

    def num_records(self) -> int:
        """Records in this shard."""
        with self._reading() as transaction:
            has_stamp = transaction.get(STAMP_KEY) is not None
            return transaction.stat()['entries'] - has_stamp

    def open_for_writing(self, map_bytes: int) -> None:
        """From now on handles of this process can write; the caller holds the writer lock."""
        with _LOCK:
            self._close()
            self._map_bytes, self._sound = map_bytes, ()
            self._environment()

    def write(self, items: Mapping[bytes, bytes]) -> None:
        """Commit all items or none; durable on return.

        Raises:
            lmdb.MapFullError: the map is too small, see ``grow``.
            lmdb.Error: LMDB's own, with its code.
        """
        with self.write_lock:
            with _LOCK:
                environment = self._environment()
            with environment.begin(write=True) as transaction:
                for key, value in items.items():
                    transaction.put(key, value)

    def grow(self) -> None:
        """Double the map."""
        with self.write_lock, _LOCK:
            if self._map_bytes is None:
                raise RuntimeError(f'{self.path}: not open for writing')
            environment = self._environment()
            self._drop_pin()
            self._map_bytes = 2 * max(self._map_bytes, environment.info()['map_size'])
            environment.set_mapsize(self._map_bytes)
            self._pin = environment.begin()

    def reset(self) -> None:
        """Close the handle, which opens again when needed (LMDB asks so after a failed write)."""
        with self.write_lock, _LOCK:
            self._close()

    def close_writing(self) -> None:
        """Close the handle; later ones only read."""
        with self.write_lock, _LOCK:
            self._close()
            self._map_bytes = None

    def close(self) -> None:
        """Close the handle unless a writer of this process uses it."""
        with _LOCK:
            if self._map_bytes is None:
                self._close()

    @contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        with _LOCK:
            try:
                environment = self._environment()
                try:
                    transaction = environment.begin(buffers=True)
                except lmdb.MapResizedError:  # another process has grown the map
                    environment.set_mapsize(0)
                    transaction = environment.begin(buffers=True)
                with transaction:
                    yield transaction
            except lmdb.Error as error:
                raise ValueError(f'{self.path}: cannot be read: {error}') from error

    def _environment(self) -> lmdb.Environment:
        """The open handle; the caller holds ``_LOCK``."""
        if self._env is not None and self._pid != os.getpid():
            self._close()  # forked without Python's knowledge
            self._map_bytes = None
        writing = self._map_bytes is not None

        try:
            status = self.path.stat()
        except FileNotFoundError:
            status = None
        if status is None and not writing:
            self._close()
            raise FileNotFoundError(f'{self.path}: no such shard')

        if self._env is not None and (
            status is None or (status.st_dev, status.st_ino) != self._identity
        ):
            self._close()  # replaced by another file of the same name

        # a file that shrinks under an open handle would kill the process that reads it
        if self._env is None:
            return self._open()
        if status is not None and status.st_size < self._needed_bytes:
            self._close()
            raise ValueError(
                f'{self.path}: truncated: {status.st_size} bytes, {self._needed_bytes} needed'
            )
        return self._env

    def _open(self) -> lmdb.Environment:
        # Values span many pages, and py-lmdb touches them one by one: readahead fetches a run of
        # pages at the first touch, where each would wait for the disk.
        options = dict(subdir=False, sync=True, metasync=True, writemap=False, readahead=True)
        if self._map_bytes is not None:
            environment = lmdb.open(str(self.path), map_size=self._map_bytes, **options)
        else:
            # a map of 0 is LMDB for: as large as the file says
            environment = lmdb.open(
                str(self.path), map_size=0, readonly=True, lock=False, create=False, **options
            )

        try:
            self._inspect(environment)
        except (OSError, ValueError):
            environment.close()
            raise

        self._env, self._pid = environment, os.getpid()
        if self._map_bytes is not None:
            environment.reader_check()  # forget readers that were killed
            self._pin = environment.begin()
        return environment

    def _inspect(self, environment: lmdb.Environment) -> None:
        """Note size and identity of the file; raises ValueError if pages are missing."""
        needed = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
        status = self.path.stat()
        if status.st_size < needed:
            # free pages at the end need not have been written; only the slow walk can tell
            problems = structural_problems(self.path)
            if problems:
                raise ValueError(
                    f'{self.path}: truncated: {status.st_size} bytes, {needed} needed '
                    f'({problems[0]})'
                )

        self._require_sound(status)
        self._needed_bytes = min(needed, status.st_size)
        self._identity = (status.st_dev, status.st_ino)

    def _require_sound(self, status: os.stat_result) -> None:
        """Walk the pages once, for LMDB follows their numbers without looking (SIGBUS).

        Some 30 µs per record. What one process found sound its forked workers need not look at
        again, nor does a writer what it wrote itself; a shard that another process writes now was
        looked at by that one.
        """
        version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        writing = self._map_bytes is not None
        if self._sound == version or (writing and self._sound[:2] == version[:2]):
            return
        if not writing and WriterLock(self.path).holder() is not None:
            return

        problems = structural_problems(self.path)
        if problems:
            raise ValueError(
                f'{self.path}: damaged: {problems[0]}; delete it and run the extraction again'
            )
        self._sound = version

    def _drop_pin(self) -> None:
        if self._pin is not None:
            self._pin.abort()
            self._pin = None

    def _close(self) -> None:
        if self._env is not None:
            self._drop_pin()
            self._env.close()
            self._env = None


def _before_fork() -> None:
    with _LOCK:
        shards = list(_TABLE.values())

    # transactions end first: whoever writes holds its write lock, and then may need the other one
    for shard in shards:
        shard.write_lock.acquire()
        _BEING_FORKED.append(shard)

    _LOCK.acquire()
    for shard in shards:
        shard._close()


def _after_fork() -> None:
    _LOCK.release()
    while _BEING_FORKED:
        _BEING_FORKED.pop().write_lock.release()


def _after_fork_in_child() -> None:
    for shard in _BEING_FORKED:
        shard._map_bytes = None  # the parent goes on writing, not the child
    _after_fork()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
)
