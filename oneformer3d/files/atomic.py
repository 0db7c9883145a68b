"""Files that are old or complete, never half written.

Enters: a path and its content. Leaves: a file that was synced before it took its name.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEMPORARY = re.compile(r'\..*\.[0-9a-f]{12}\.tmp(\.[^.]*)?')


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it becomes ``path``, else it vanishes.

    The temporary name keeps the suffix (image writers look at it). The file is synced before
    it is renamed and its folder after, so ``path`` is at any time absent, old or complete.

    Args:
        path: the file to write; its folder is made if it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.stem[:64]}.{secrets.token_hex(6)}.tmp{path.suffix}')
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: str | os.PathLike, content: bytes | memoryview) -> None:
    """Write a whole file at once; a reader or a killed writer never leaves half of it."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def sweep(folder: str | os.PathLike) -> tuple[Path, ...]:
    """Remove the temporary files that killed writers left in a folder; not in folders below it.

    Only for who alone writes there: a file that is being written has the same kind of name.

    Returns:
        What was removed.
    """
    left = [path for path in Path(folder).glob('.*.tmp*') if _TEMPORARY.fullmatch(path.name)]
    for path in left:
        path.unlink(missing_ok=True)
    return tuple(left)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
