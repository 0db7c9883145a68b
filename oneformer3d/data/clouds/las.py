"""LAS and LAZ files, as surveyors and terrestrial scanners write them.

Enters: a ``.las`` or ``.laz`` file. Leaves: a ``CloudFile`` in double precision. Needs ``laspy``
(``pip install "laspy[lazrs]"``).
"""

import os
import struct
from pathlib import Path

import numpy as np

from oneformer3d.files.errors import foreign_parser

from .record import CloudFile

# the least bytes of what a header counts: records of variable length, and those after the points
_RECORD, _RECORD_AFTER = 54, 60
_HEADER = 227  # bytes of the oldest version's
_MOST_COMPRESSED = 100  # LAZ makes points some ten times smaller


def read_las(path: Path) -> CloudFile:
    """Read the points of a LAS or LAZ file.

    Raises:
        ValueError: laspy is not installed, or the file cannot be read.
    """
    try:
        import laspy
    except ImportError as error:
        raise ValueError(
            f'{path}: reading LAS and LAZ needs laspy: pip install "laspy[lazrs]"'
        ) from error

    _check_counts(path)
    with foreign_parser(path, 'LAS file'):
        table = laspy.read(path)
        xyz = np.stack([np.asarray(table[name]) for name in ('x', 'y', 'z')], axis=1)

    names = set(table.point_format.dimension_names)
    rgb = None
    if {'red', 'green', 'blue'} <= names:
        rgb = np.stack([np.asarray(table[name]) for name in ('red', 'green', 'blue')], axis=1)
    return CloudFile(xyz, rgb, 'a LAS file', up='z')


def _check_counts(path: Path) -> None:
    """Compare what the header counts with the size of the file, before anything is made of it.

    laspy walks through as many records as the header announces, be they four billion.

    Raises:
        ValueError: not a LAS file, or more announced than the file can hold.
    """
    size = path.stat().st_size
    with open(path, 'rb') as file:
        head = file.read(375).ljust(375, b'\0')
    if head[:4] != b'LASF' or size < _HEADER:
        raise ValueError(f'{path}: not a readable LAS file (no LASF header)')

    # offsets as in the LAS specification, 1.0 to 1.4
    header_size, first_point, num_records = struct.unpack_from('<HII', head, 94)
    point_format, point_size, num_points = struct.unpack_from('<BHI', head, 104)
    after = num_after = 0
    if head[25] >= 4:
        after, num_after, num_points_64 = struct.unpack_from('<QIQ', head, 235)
        num_points = max(num_points, num_points_64)

    compressed = point_format & 0xC0
    room = max(0, size - first_point) * (_MOST_COMPRESSED if compressed else 1)
    if (
        header_size + _RECORD * num_records > min(first_point, size)
        or num_points * point_size > room
        or (num_after and after + _RECORD_AFTER * num_after > size)
        or (compressed and _num_chunks(path, first_point, size) > size)
    ):
        raise ValueError(f'{path}: not a readable LAS file (announces more than its {size} bytes)')


def _num_chunks(path: Path, first_point: int, size: int) -> int:
    """How many chunks of compressed points LAZ's table announces.

    lazrs makes room for as many, and where that fails it ends the whole process.
    """
    with open(path, 'rb') as file:
        file.seek(first_point)
        (table,) = struct.unpack('<q', file.read(8).ljust(8, b'\0'))
        if table == -1:  # written last, in a stream
            file.seek(-8, os.SEEK_END)
            (table,) = struct.unpack('<q', file.read(8))
        if not 0 <= table <= size - 8:
            return 0
        file.seek(table)
        return struct.unpack('<II', file.read(8))[1]
