"""Which reader a file gets.

Enters: a path. Leaves: a ``CloudFile``. The suffix names the format.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from .arrays import read_bin, read_npy
from .las import read_las
from .polygons import MESH_SUFFIXES, read_mesh, read_pcd_cloud, read_ply_cloud
from .record import CloudFile
from .text import SUFFIXES, read_text_cloud

_ARRAYS: dict[str, Callable[[Path, Sequence[str] | None], CloudFile]] = {
    '.bin': read_bin,
    '.npy': read_npy,
}
_READERS: dict[str, Callable[[Path], CloudFile]] = {
    '.ply': read_ply_cloud,
    '.pcd': read_pcd_cloud,
    '.las': read_las,
    '.laz': read_las,
    **dict.fromkeys(SUFFIXES, read_text_cloud),
    **dict.fromkeys(MESH_SUFFIXES, read_mesh),
}
CLOUD_SUFFIXES = tuple(sorted({*_ARRAYS, *_READERS}))


def read_cloud_file(path: str | Path, columns: Sequence[str] | None = None) -> CloudFile:
    """Read a file of any known format.

    Args:
        path: the file.
        columns: names of the columns of an array without a description (``.npy``, ``.bin``).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: broken, of another format, or columns named for a format that names its own.
            The message is one line and names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    suffix = path.suffix.lower()
    if suffix in _ARRAYS:
        return _ARRAYS[suffix](path, columns)
    if suffix not in _READERS:
        raise ValueError(
            f'{path}: unknown point-cloud format {path.suffix!r}, expected one of '
            f'{", ".join(CLOUD_SUFFIXES)}'
        )
    if columns:
        raise ValueError(f'{path}: columns are named for .bin and .npy files only')
    return _READERS[suffix](path)
