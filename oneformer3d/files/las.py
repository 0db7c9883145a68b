"""Labelled points as LAS files, the format of surveyors.

Enters: points (N, 3) in metres, rgb (N, 3) 0–255, classes (N,). Leaves: LAS 1.4, point format 7,
classes in the field ``classification``, further labels as extra dimensions. Needs laspy.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .atomic import atomic_path

_STEP = 0.0001  # metres: LAS stores whole numbers of steps
_MAX_CLASS = 255


def write_las(
    path: str | Path,
    points: np.ndarray,
    rgb: np.ndarray,
    classification: np.ndarray,
    labels: Mapping[str, np.ndarray],
) -> None:
    """Write a cloud; the file appears whole or not at all.

    Args:
        path: the file to write, ``.las``, or ``.laz`` where lazrs is installed.
        points: (N, 3) metres, stored to 0.1 mm.
        rgb: (N, 3) 0–255, stored as 16 bit.
        classification: (N,) integers within 0…255.
        labels: name → (N,) integers, stored as int32.

    Raises:
        ImportError: laspy is not installed.
        ValueError: a class that LAS has no room for.
    """
    try:
        import laspy
    except ImportError as error:
        raise ImportError('LAS files need laspy: pip install "laspy[lazrs]"') from error
    if len(classification) and not 0 <= classification.min() <= classification.max() <= _MAX_CLASS:
        raise ValueError(f'{path}: LAS has classes 0 to {_MAX_CLASS}')

    header = laspy.LasHeader(version='1.4', point_format=7)
    header.scales = np.full(3, _STEP)
    header.offsets = np.floor(points.min(axis=0)) if len(points) else np.zeros(3)
    header.add_extra_dims([laspy.ExtraBytesParams(name, np.dtype(np.int32)) for name in labels])

    las = laspy.LasData(header)
    las.xyz = points.astype(np.float64)
    las.red, las.green, las.blue = rgb.astype(np.uint16).T * 257  # 255 → 65535
    las.classification = classification.astype(np.uint8)
    for name, values in labels.items():
        las[name] = values.astype(np.int32)
    with atomic_path(path) as temporary:
        las.write(str(temporary))
