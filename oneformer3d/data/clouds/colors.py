"""Colours of any range → 0–255.

Enters: (N, 3) integers of 8 or 16 bits, or numbers of whatever range. Leaves: (N, 3) float32 0–255,
decided once for the whole cloud.
"""

import numpy as np
from numpy.typing import NDArray

_SIXTEEN_BITS = 257.0  # 65535 / 255
_LEAST_OF_SIXTEEN = 1024  # the brightest of 16-bit colours is brighter than this


def colors_to_255(rgb: NDArray, name: str) -> NDArray[np.float32]:
    """Bring colours to 0–255.

    Whole numbers are 16 bits wide where they reach beyond 1024 (files declare 16 bits and store 8
    of them as well), else 8. Floats are fractions where none exceeds 1, else as whole numbers.

    Args:
        rgb: (N, 3) finite.
        name: of the file, for messages.

    Raises:
        ValueError: negative, a little above 255, or above 65535: these are no colours.

    Example:
        >>> colors_to_255(np.array([[0, 0.5, 1.0]]), 'a')
        array([[  0. , 127.5, 255. ]], dtype=float32)
        >>> colors_to_255(np.array([[0, 257, 65535]], np.uint16), 'a')
        array([[  0.,   1., 255.]], dtype=float32)
    """
    low, high = float(rgb.min()), float(rgb.max())
    whole = rgb.dtype.kind in 'iu' or bool((rgb == np.floor(rgb)).all())
    sixteen_bits = whole and _LEAST_OF_SIXTEEN <= high <= 65535
    if low < 0 or (high > 255 and not sixteen_bits):
        raise ValueError(
            f'{name}: colours reach from {low:g} to {high:g}, expected 0 to 255, 0 to 65535 or '
            '0 to 1'
        )

    if high > 255:
        return (rgb / _SIXTEEN_BITS).astype(np.float32)
    if rgb.dtype.kind == 'f' and high <= 1:
        return (rgb * 255.0).astype(np.float32)
    return rgb.astype(np.float32)


def look_like_colors(rgb: NDArray) -> bool:
    """Whether numbers could be colours at all: whole 0…65535, or fractions of 1 or of 255.

    Coordinates of a room, normals and intensities mostly could not: they are negative, or end
    somewhere between 1 and 16 without being whole.

    Args:
        rgb: (N, 3) real.
    """
    values = rgb[np.isfinite(rgb).all(axis=1)]
    if not len(values):
        return False
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        return False
    whole = bool((values == np.floor(values)).all())
    return high <= 1 or (whole and high > 1) or 16 < high <= 255
