"""The n-th operation on a disk fails, before or after it did its work, as SQLite tests itself.

An operation is an opening for writing, a write, a sync, a rename, a new folder; files of everybody
who asks Python for them are watched: numpy's, Pillow's, zipfile's.
"""

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SYSTEM_CALLS = ('open', 'fsync', 'replace', 'rename', 'mkdir', 'pwrite', 'ftruncate')


class Faults:
    """Counts operations and lets one of them fail, before or after it was done.

    Attributes:
        what: the operation that failed, '' if there were not so many.
    """

    def __init__(self, nth: int, after: bool) -> None:
        self.nth, self.after, self.count, self.what = nth, after, 0, ''

    def call(self, what: str, function: Callable, error: Exception, *args, **kwargs):
        """Do an operation, or let it fail with the error."""
        self.count += 1
        if self.count != self.nth:
            return function(*args, **kwargs)
        if self.after:
            try:
                self.do_before_failing(function, *args, **kwargs)
            except Exception:
                self.nth += 1  # it failed by itself: the next one then
                raise
        self.what = what
        raise error

    def do_before_failing(self, function: Callable, *args, **kwargs) -> None:
        """The work of an operation that reports a failure all the same."""
        done = function(*args, **kwargs)
        if isinstance(done, io.IOBase):
            done.close()
        elif function is os.open:
            os.close(done)

    def wrap_os(self, patch: pytest.MonkeyPatch, name: str) -> None:
        """Let calls of ``os.<name>`` be counted."""
        real = getattr(os, name)
        error = OSError(errno.EIO, f'injected into os.{name}')
        patch.setattr(os, name, lambda *a, **k: self.call(f'os.{name}', real, error, *a, **k))

    def wrap_files(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        """Let openings for writing, and writes, of files in a folder be counted."""
        real, faults = io.open, self

        class File(io.FileIO):
            def write(self, content):
                error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return faults.call('write', super().write, error, content)

        def open_watched(file, mode='r', buffering=-1, encoding=None, errors=None, newline=None,
                         closefd=True, opener=None):  # fmt: skip
            inside = isinstance(file, (str, os.PathLike)) and str(file).startswith(str(folder))
            if not inside or not set(mode) & set('wax+'):
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            error = OSError(errno.EIO, 'injected into open', str(file))
            raw = faults.call('open', File, error, file, mode.replace('b', '').replace('t', ''))
            if buffering == 0:
                return raw
            buffered = (io.BufferedRandom if '+' in mode else io.BufferedWriter)(raw)
            return (
                buffered if 'b' in mode else io.TextIOWrapper(buffered, encoding, errors, newline)
            )

        patch.setattr(builtins, 'open', open_watched)
        patch.setattr(io, 'open', open_watched)


@contextmanager
def failing(nth: int, after: bool, folder: Path) -> Iterator[Faults]:
    """The n-th operation on files of a folder fails in the block."""
    faults = Faults(nth, after)
    with pytest.MonkeyPatch.context() as patch:
        for name in SYSTEM_CALLS:
            faults.wrap_os(patch, name)
        faults.wrap_files(patch, folder)
        yield faults
