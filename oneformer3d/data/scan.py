"""The one way in: whatever holds a scan becomes a ``Scan``.

Enters: a point-cloud file, a mesh, a folder of posed images, or an array. Leaves: a ``Scan`` with
points in metres, which way is up, where it lay, its posed images, and everything that had to be
assumed. What the caller states wins over what is guessed. N points.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oneformer3d.files.left_out import LossRules

from . import layouts
from .clouds.as_scan import Scan, cloud_of_array, scan_of_cloud
from .clouds.read import read_cloud_file
from .doctor.frames import source_frames
from .doctor.quick import quick_check
from .fuse_rgbd import fuse
from .upright import up_from_axis, up_of_frames

FUSION_VOXEL = 0.02  # metres: RGB-D frames are fused to one point per cube of this edge
_RULES = LossRules()


def read_scan(
    source: str | Path | NDArray,
    *,
    # clouds
    unit: str | None = None,
    origin: ArrayLike | str | None = 'auto',
    columns: Sequence[str] | None = None,
    # folders of posed images
    convention: str | None = None,
    depth_scale: float | None = None,
    intrinsics: str | Path | NDArray | None = None,
    rules: LossRules = _RULES,
    # both
    up: str | None = None,
) -> Scan:
    """Read whatever holds a scan.

    Args:
        source: a file of ``CLOUD_SUFFIXES``, a folder of posed images in any layout of
            docs/data.md, or an array (N, 3) or (N, 6) of xyz and rgb.
        unit: of the coordinates: m, dm, cm, mm, ft or in. None takes metres, unless nothing but
            another unit makes a scan of them.
        origin: see ``clouds.scale.place``.
        columns: names of the columns of ``.bin`` and ``.npy`` files.
        convention, depth_scale, intrinsics, rules: see ``layouts.find_layout``; with rules that
            make warnings errors the scan has none.
        up: the axis that points up: x, y, z, -x, -y or -z. None takes the format's own, else z;
            of posed images the cameras and the floor tell.

    Returns:
        The scan; of posed images without depth it has no points.

    Raises:
        FileNotFoundError, ValueError: missing, broken, or nothing that could be a scan; one line
            that names it.

    Example:
        >>> scan = read_scan(np.array([[5e5, 5.8e6, 30, 255, 0, 0], [5e5, 5.8e6, 31, 0, 0, 255]]))
        >>> scan.origin, scan.points[:, 2]
        (array([5.0e+05, 5.8e+06, 3.0e+01]), array([0., 1.], dtype=float32))
    """
    if isinstance(source, str | Path) and Path(source).is_dir():
        found = layouts.find_layout(
            source,
            convention=convention,
            depth_scale=depth_scale,
            intrinsics=intrinsics,
            rules=rules,
        )
        if found is None:
            raise FileNotFoundError(layouts.unknown_layout(Path(source)))
        return _allowed(_scan_of_frames(found, up, rules), rules)

    if isinstance(source, np.ndarray):
        name, path, cloud = 'points', '', cloud_of_array(source)
    else:
        name, path, cloud = str(source), str(source), read_cloud_file(source, columns)
    scan = scan_of_cloud(cloud, name, unit=unit, up=up or cloud.up or 'z', origin=origin)
    return _allowed(replace(scan, path=path), rules)


def _allowed(scan: Scan, rules: LossRules) -> Scan:
    """The scan, if nothing was assumed or the rules allow it."""
    if scan.warnings and rules.warnings_are_errors:
        raise ValueError('; '.join(scan.warnings))
    return scan


def _scan_of_frames(found: layouts.PosedFolder, up: str | None, rules: LossRules) -> Scan:
    """Posed images, their depth fused to one cloud."""
    contradiction = quick_check(source_frames(found), str(found.folder))
    points, world_from_cam = fuse(found, FUSION_VOXEL, rules)
    return Scan(
        points,
        np.zeros(3),
        up_of_frames(points, world_from_cam) if up is None else up_from_axis(up),
        f'{found.folder}: {found.source}',
        str(found.folder),
        found.warnings if contradiction is None else (*found.warnings, contradiction),
        found,
    )
