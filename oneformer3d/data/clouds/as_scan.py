"""A cloud as its file holds it → a scan in the package's units.

Enters: a ``CloudFile``, or an array. Leaves: a ``Scan``, or its points alone with the warnings
logged. N points.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.logging import MMLogger
from numpy.typing import ArrayLike, NDArray

from ..layouts.records import PosedFolder
from ..upright import up_from_axis
from .colors import colors_to_255
from .read import read_cloud_file
from .record import CloudFile
from .scale import place

GREY = 127.0  # what a point without colour gets: zero after the usual normalisation


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan in the package's units.

    Attributes:
        points: (N, 6) float32, xyz in metres and rgb 0–255.
        origin: (3,) float64 metres that were subtracted from the file's coordinates.
        up: (3,) float64 unit vector.
        source: what it was read from, and as what.
        path: that it was read from, '' of an array.
        warnings: what was assumed, dropped or doubted, each with a count or a value.
        recording: the posed images it was fused from, read on request; None of a cloud.
    """

    points: NDArray[np.float32]
    origin: NDArray[np.float64]
    up: NDArray[np.float64]
    source: str
    path: str = ''
    warnings: tuple[str, ...] = ()
    recording: PosedFolder | None = None

    def require_points(self) -> NDArray[np.float32]:
        """The points (N, 6), for who can do nothing without.

        Raises:
            ValueError: there are none: posed images without depth.
        """
        if len(self.points):
            return self.points
        num_images = 0 if self.recording is None else len(self.recording.frames)
        raise ValueError(
            f'{self.source}: {num_images} posed images without depth, so no points; '
            'tools/fit_field.py makes a field of them'
        )


def scan_of_cloud(
    cloud: CloudFile,
    name: str,
    *,
    unit: str | None = None,
    up: str = 'z',
    origin: ArrayLike | str | None = 'auto',
) -> Scan:
    """A cloud as its file holds it → a scan; arguments and errors as ``read_scan``."""
    xyz, rgb, warnings = cloud.xyz, cloud.rgb, list(cloud.warnings)
    if len(xyz) == 0:
        raise ValueError(f'{name}: the cloud has no points')

    # what is not a number is no point
    finite = np.all(np.isfinite(xyz), axis=1)  # (N,)
    if rgb is not None and rgb.dtype.kind == 'f':
        finite &= np.isfinite(rgb).all(axis=1)
    if not finite.any():
        raise ValueError(f'{name}: none of the {len(finite)} points is finite')
    if not finite.all():
        warnings.append(f'dropped {(~finite).sum()} of {len(finite)} points (not finite)')
        xyz, rgb = xyz[finite], None if rgb is None else rgb[finite]

    placed = place(xyz, name, unit, origin)
    points = np.empty((len(xyz), 6), np.float32)
    points[:, :3] = placed.xyz
    if rgb is None:
        warnings.append('no colours, all points are taken as grey')
        points[:, 3:] = GREY
    else:
        points[:, 3:] = colors_to_255(rgb, name)
    return Scan(
        points,
        placed.origin,
        up_from_axis(up),
        f'{name}: {cloud.source}',
        warnings=(*warnings, *placed.warnings),
    )


def read_point_cloud(path: str | Path) -> NDArray[np.float32]:
    """The points of a cloud file alone, (N, 6) float32; warnings are logged.

    Raises:
        FileNotFoundError, ValueError: as ``read_scan``.
    """
    cloud = read_cloud_file(path)
    return log_warnings(scan_of_cloud(cloud, str(path), origin=None)).points


def as_point_cloud(points: NDArray, name: str = 'points') -> NDArray[np.float32]:
    """Check an array of metres and bring its colours to 0–255.

    Args:
        points: (N, 3) xyz or (N, 6) xyz + rgb, any real dtype.
        name: what the messages call it.

    Returns:
        (N, 6) float32: xyz in metres, rgb 0–255.

    Raises:
        ValueError: wrong shape or dtype, empty, or colours out of range.
    """
    cloud = cloud_of_array(points, name)
    return log_warnings(scan_of_cloud(cloud, name, unit='m', origin=None)).points


def cloud_of_array(points: NDArray, name: str = 'points') -> CloudFile:
    """An array as a cloud; arguments and errors as ``as_point_cloud``."""
    points = np.asarray(points)
    if points.dtype.kind not in 'fiu':
        raise ValueError(f'{name}: expected real numbers, got dtype {points.dtype}')
    if points.ndim != 2 or points.shape[1] not in (3, 6):
        raise ValueError(f'{name}: expected shape (N, 3) or (N, 6), got {points.shape}')
    return CloudFile(points[:, :3], points[:, 3:] if points.shape[1] == 6 else None, 'an array')


def log_warnings(scan: Scan) -> Scan:
    """The scan itself, after its warnings went to the log."""
    logger = MMLogger.get_current_instance()
    for warning in scan.warnings:
        logger.warning(f'{scan.source}: {warning}')
    return scan
