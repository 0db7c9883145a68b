"""One owner at a time.

Enters: the path of a lock file. Leaves: a lock that this process holds until it gives it back or
dies, or the name of the process that has it.
"""

import fcntl
import os
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType

_BOOK = threading.RLock()
_HELD: dict[str, int] = {}  # lock files this process holds → its process id


class LockedError(OSError):
    """Another process has what was to be written."""


class ProcessLock:
    """A lock that the system takes back when its process dies.

    Args:
        path: the lock file; it is made and stays, empty of meaning, when the lock is given back.
        owned: what the lock is for, as error messages name it.
        rule: why there is a lock, for error messages.
        error: what is raised where another process has it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> with ProcessLock(folder / 'run.pid', folder, 'one run at a time') as lock:
        ...     lock.holder().endswith('(this one)')
        True
        >>> lock.holder() is None
        True
    """

    def __init__(
        self,
        path: str | Path,
        owned: str | Path,
        rule: str,
        error: type[LockedError] = LockedError,
    ) -> None:
        self._path = Path(os.path.realpath(path))
        self._owned = owned
        self._rule = rule
        self._error = error
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            LockedError: naming the process that has it.
        """
        with _BOOK:
            name = str(self._path)

            # Within a process the system grants the lock twice, and closing the second
            # descriptor would give it back: so this process keeps a book.
            if _HELD.get(name) == os.getpid():
                raise self._locked(f'process {os.getpid()} (this one)')

            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                holder = os.pread(descriptor, 256, 0).decode('utf-8', errors='replace').strip()
                os.close(descriptor)
                raise self._locked(holder or 'a process that is just starting') from error

            # who is refused shall be able to name this process
            try:
                words = f'process {os.getpid()} on {socket.gethostname()}'
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, words.encode(), 0)
            except OSError:
                os.close(descriptor)
                raise

            self._descriptor = descriptor
            _HELD[name] = os.getpid()

    def release(self) -> None:
        """Give the lock back; nothing happens in a process that does not hold it."""
        with _BOOK:
            if self._descriptor is not None and _HELD.get(str(self._path)) == os.getpid():
                os.close(self._descriptor)
                del _HELD[str(self._path)]
            self._descriptor = None

    def holder(self) -> str | None:
        """Who has the lock now, in words, or None; takes no lock itself."""
        with _BOOK:
            if _HELD.get(str(self._path)) == os.getpid():
                return f'process {os.getpid()} (this one)'
            if not self._path.exists():
                return None

            with self._path.open('rb') as file:
                query = struct.pack('hhqqi', fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                kind, *_, pid = struct.unpack('hhqqi', fcntl.fcntl(file, fcntl.F_GETLK, query))
                words = file.read(256).decode('utf-8', errors='replace').strip()
            return None if kind == fcntl.F_UNLCK else words or f'process {pid}'

    def __enter__(self) -> 'ProcessLock':
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def _locked(self, holder: str) -> LockedError:
        return self._error(f'{self._owned}: being written by {holder}; {self._rule}')


# A child must not be born with the lock held by a thread that it does not have.
os.register_at_fork(
    before=_BOOK.acquire, after_in_parent=_BOOK.release, after_in_child=_BOOK.release
)
