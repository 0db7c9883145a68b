"""LAS and LAZ files, as surveyors and terrestrial scanners write them.

Enters: a ``.las`` or ``.laz`` file. Leaves: a ``CloudFile`` in double precision. Needs ``laspy``
(``pip install oneformer3d[las]``).
"""

from pathlib import Path

import numpy as np

from oneformer3d.files.errors import one_line

from .record import CloudFile


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

    try:
        table = laspy.read(path)
        xyz = np.stack([table.x, table.y, table.z], axis=1)
    except Exception as error:  # a foreign parser with a native decompressor
        raise ValueError(f'{path}: not a readable LAS file ({one_line(error)})') from error

    names = set(table.point_format.dimension_names)
    rgb = None
    if {'red', 'green', 'blue'} <= names:
        rgb = np.stack([table.red, table.green, table.blue], axis=1)
    return CloudFile(xyz, rgb, 'a LAS file', up='z')
