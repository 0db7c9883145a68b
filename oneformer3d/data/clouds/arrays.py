"""Arrays without a description: ``.npy`` and ``.bin``.

Enters: a file, perhaps with the names of its columns. Leaves: a ``CloudFile``. N points, C columns.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.errors import foreign_parser

from .colors import look_like_colors
from .record import CloudFile, find_colors, find_columns

_FLOAT = 4  # bytes


def read_npy(path: Path, columns: Sequence[str] | None = None) -> CloudFile:
    """Read a NumPy array (N, C); without ``columns`` C is 3 or 6, as in ``read_bin``.

    Raises:
        ValueError: not a readable array of real numbers, or columns that nothing names.
    """
    # mapped, so that a header which promises more than the file holds cannot claim memory
    with foreign_parser(path, '.npy array'):
        points = np.load(path, mmap_mode='r', allow_pickle=False)
    if not isinstance(points, np.ndarray) or points.dtype.kind not in 'fiu':
        raise ValueError(f'{path}: expected an array of real numbers')
    if points.ndim != 2:
        raise ValueError(f'{path}: expected shape (N, 3) or (N, 6), got {points.shape}')
    return _named(path, points, columns)


def read_bin(path: Path, columns: Sequence[str] | None = None) -> CloudFile:
    """Read float32 rows; without ``columns`` each is x y z r g b, if that makes sense.

    Nothing in such a file says how wide a row is. Six columns whose last three could be no
    colours are refused rather than guessed: a file of four columns would become half as many
    points that nobody measured.

    Raises:
        ValueError: no whole number of rows, or no colours where they should be.
    """
    width = len(columns) if columns else 6
    num_bytes = path.stat().st_size
    if num_bytes % (_FLOAT * width):
        raise ValueError(
            f'{path}: {num_bytes} bytes are no whole number of points (float32 x {width} = '
            f'{_FLOAT * width} bytes){_hint(num_bytes)}'
        )
    points = np.fromfile(path, dtype='<f4').reshape(-1, width)
    return _named(path, points, columns)


def _named(path: Path, points: NDArray, columns: Sequence[str] | None) -> CloudFile:
    names = tuple(columns) if columns else None
    if names is None:
        if points.shape[1] not in (3, 6):
            raise ValueError(
                f'{path}: expected shape (N, 3) or (N, 6), got {points.shape}; name the columns '
                '(--columns x y z intensity)'
            )
        names = ('x', 'y', 'z', 'r', 'g', 'b')[: points.shape[1]]
        _check_colors(path, points)

    if len(names) != points.shape[1]:
        raise ValueError(f'{path}: {len(names)} columns are named, it has {points.shape[1]}')
    xyz = find_columns(names, ('x', 'y', 'z'))
    if xyz is None:
        raise ValueError(f'{path}: no columns x, y and z among {" ".join(names)}')
    colors = find_colors(names)
    return CloudFile(
        points[:, [names.index(name) for name in xyz]],
        None if colors is None else points[:, [names.index(name) for name in colors]],
        f'rows of {" ".join(names)}',
    )


def _check_colors(path: Path, points: NDArray) -> None:
    """Raise ValueError where the last three of six columns cannot be colours."""
    colors = points[:, 3:]
    colors = colors[np.isfinite(colors).all(axis=1)]  # (n, 3), n = 0 without colours
    if colors.size and not look_like_colors(colors):
        raise ValueError(
            f'{path}: colours reach from {colors.min():g} to {colors.max():g} and are no '
            f'colours{_hint(path.stat().st_size)}'
        )


def _hint(num_bytes: int) -> str:
    """Which other widths a file may have."""
    fitting = [str(width) for width in (3, 4, 5, 7, 8, 9) if num_bytes % (_FLOAT * width) == 0]
    if not fitting:
        return ''
    return f'; it may have {" or ".join(fitting)} columns: name them (--columns x y z intensity …)'
