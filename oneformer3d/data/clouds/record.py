"""What the readers of all formats return.

Enters and leaves: see ``CloudFile``. N points.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLOR_NAMES = (
    ('red', 'green', 'blue'),
    ('r', 'g', 'b'),
    ('diffuse_red', 'diffuse_green', 'diffuse_blue'),
    ('color_red', 'color_green', 'color_blue'),
)


@dataclass(frozen=True, eq=False)
class CloudFile:
    """A cloud as its file holds it.

    Attributes:
        xyz: (N, 3) real, in whatever unit.
        rgb: (N, 3) of whatever range, or None.
        source: what kind of file it was.
        warnings: what was assumed while reading it.
        up: the axis that the format defines as up, where it does.
    """

    xyz: NDArray
    rgb: NDArray | None
    source: str
    warnings: tuple[str, ...] = ()
    up: str | None = None


def find_columns(names: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...] | None:
    """The given names of wanted columns, whatever their case; None where one is missing.

    Example:
        >>> find_columns(('X', 'Y', 'Z', 'Intensity'), ('x', 'y', 'z'))
        ('X', 'Y', 'Z')
    """
    by_name = {name.lower(): name for name in reversed(names)}
    return tuple(by_name[n] for n in wanted) if all(n in by_name for n in wanted) else None


def find_colors(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The names of the three colour columns, or None."""
    found = (find_columns(names, colors) for colors in COLOR_NAMES)
    return next((columns for columns in found if columns is not None), None)


def stack(table: NDArray, names: tuple[str, ...]) -> NDArray:
    """Columns of a structured (N,) array side by side, (N, len(names))."""
    return np.stack([table[name] for name in names], axis=1)
