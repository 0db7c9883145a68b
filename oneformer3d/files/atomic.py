"""Files that are old or complete, never half written.

Enters: a path and its content. Leaves: a file that was synced before it took its name. What a
killed process leaves is removed by the next one that writes into the same folder.
"""

import os
import re
import secrets
import shutil
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# the owner of a temporary file: where its process can be seen, its number, and a random part
_TEMPORARY = re.compile(r'\..*\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp(\.[^.]*)?')
_swept: set[str] = set()  # folders this process has looked through


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it becomes ``path``, else it vanishes.

    The temporary name keeps the suffix (image writers look at it). The file is synced before
    it is renamed and its folder after, so ``path`` is at any time absent, old or complete.

    Args:
        path: the file to write; its folder is made if it is missing.

    Raises:
        OSError: nothing could be written, a full disk for example; names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    temporary = path.with_name(f'.{path.stem[:64]}.{_owned_name()}.tmp{path.suffix}')
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: str | os.PathLike, content: bytes | memoryview) -> None:
    """Write a whole file at once; a reader or a killed writer never leaves half of it."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def temporary_folder(parent: str | os.PathLike, stem: str) -> Iterator[Path]:
    """A hidden folder in ``parent`` whose content the block fills and moves away."""
    sweep(parent)
    folder = Path(parent) / f'.{stem[:64]}.{_owned_name()}.tmp'
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: str | os.PathLike) -> None:
    """Remove what processes that are dead left unfinished in a folder; once per process.

    Processes of other machines or containers cannot be seen from here: theirs is left alone.
    """
    name = os.path.realpath(folder)
    if name in _swept:
        return
    _swept.add(name)
    with os.scandir(name) as entries:
        left = [entry for entry in entries if _is_left_over(entry.name)]
    for entry in left:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)


def _owned_name() -> str:
    return f'{_realm()}-{os.getpid()}-{secrets.token_hex(4)}'


def _realm() -> str:
    """Where the numbers of processes mean the same: one machine, one container of it."""
    namespace = Path('/proc/self/ns/pid')
    place = os.readlink(namespace) if namespace.is_symlink() else ''
    return f'{zlib.crc32(f"{socket.gethostname()} {place}".encode()):08x}'


def _is_left_over(name: str) -> bool:
    found = _TEMPORARY.fullmatch(name)
    if found is None or found[1] != _realm():
        return False
    try:
        os.kill(int(found[2]), 0)  # asks only
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass  # another user's, or no process at all
    return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
