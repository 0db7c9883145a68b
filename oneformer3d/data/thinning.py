"""Dense clouds → the spacing a model is trained on.

Enters: points (N, 6), xyz in metres and rgb. Leaves: M ≤ N points, one in each occupied cube, and
the cube of every point. Isolated points are left out before the cubes are laid. Prediction and
scanned rooms for training thin alike, here.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from .isolated import find_isolated

MAX_KEY = 2**62


@dataclass(frozen=True)
class ThinnedCloud:
    """What stands for a scan of N points.

    Attributes:
        points: (M, 6) float32.
        cell_of_point: (N,) int64 the row that stands for each point.
        num_isolated: how many of the N are in none of the M; the nearest stands for them.
    """

    points: np.ndarray
    cell_of_point: np.ndarray
    num_isolated: int = 0


def thin_scan(points: np.ndarray, voxel_size: float) -> ThinnedCloud:
    """Thin a scan without the points that belong to no surface, see ``find_isolated``.

    Args:
        points: (N, 6) float32.
        voxel_size: edge of the cubes in metres; 0 thins nothing.

    Raises:
        ValueError: as ``thin_points``.
    """

    def thin(cloud: np.ndarray) -> ThinnedCloud:
        return thin_points(cloud, voxel_size) if voxel_size else keep_all(cloud)

    whole = thin(points)
    isolated = find_isolated(whole.points)[whole.cell_of_point]  # (N,)
    if not isolated.any():
        return whole

    # anew, because the cubes begin at the lowest point; it may have been one of these
    thinned = thin(points[~isolated])
    cell_of_point = np.empty(len(points), np.int64)
    cell_of_point[~isolated] = thinned.cell_of_point
    cell_of_point[isolated] = KDTree(thinned.points[:, :3]).query(points[isolated, :3])[1]
    return ThinnedCloud(thinned.points, cell_of_point, int(isolated.sum()))


def thin_points(points: np.ndarray, voxel_size: float) -> ThinnedCloud:
    """Average coordinates and colours of all points in a cube.

    Args:
        points: (N, 6) float32.
        voxel_size: edge of the cubes in metres.

    Returns:
        The thinned cloud, cubes in ascending x, y, z.

    Raises:
        ValueError: The edge is not positive, or so small that the cubes cannot be numbered.
    """
    if not voxel_size > 0:
        raise ValueError(f'voxel_size must be positive, got {voxel_size}')

    xyz = points[:, :3].astype(np.float64)
    coords = np.floor((xyz - xyz.min(axis=0)) / voxel_size)
    extent = coords.max(axis=0) + 1
    if extent.prod() > MAX_KEY:
        raise ValueError(f'voxel_size {voxel_size} makes too many voxels of this scan')

    # key = (x Y + y) Z + z: sorted keys are cubes in ascending x, y, z
    size_y, size_z = int(extent[1]), int(extent[2])
    coords = coords.astype(np.int64)
    keys = (coords[:, 0] * size_y + coords[:, 1]) * size_z + coords[:, 2]
    _, cell_of_point, counts = np.unique(keys, return_inverse=True, return_counts=True)

    means = [np.bincount(cell_of_point, weights=column) / counts for column in points.T]
    return ThinnedCloud(np.stack(means, axis=1).astype(np.float32), cell_of_point)


def keep_all(points: np.ndarray) -> ThinnedCloud:
    """Every point stands for itself."""
    return ThinnedCloud(points, np.arange(len(points)))
