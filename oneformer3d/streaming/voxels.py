"""World voxels as sorted numbers.

Enters: points (N, 3) in metres or voxels (n, 3) int64. Leaves: keys (n,) int64 that sort by blocks
of 16³ voxels, so that a block lies in one piece of any sorted table. The grid begins at the world's
origin: the same surface has the same voxels in every frame and every run.
"""

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]

BLOCK_BITS = 4  # 16 voxels along an edge of a block
_AXIS_BITS = 21  # two million voxels along an axis
_HALF = 1 << (_AXIS_BITS - 1)
_LOCAL = (1 << BLOCK_BITS) - 1
_BLOCK_AXIS_BITS = _AXIS_BITS - BLOCK_BITS


def voxels_of_points(points: NDArray, voxel_size: float) -> NDArray[np.int64]:
    """Voxel (N, 3) of each point (N, 3)."""
    return np.floor(np.asarray(points, np.float64) / voxel_size).astype(np.int64)


def pack(voxels: NDArray) -> Keys:
    """Keys (n,) of voxels (n, 3).

    Raises:
        ValueError: a voxel is more than a million voxels away from the origin.

    Example:
        >>> pack(np.array([[0, 0, 0], [0, 0, 1], [0, 0, 16]])) - pack(np.zeros((1, 3), int))
        array([   0,    1, 4096])
    """
    shifted = np.asarray(voxels, np.int64).reshape(-1, 3) + _HALF
    if shifted.size and (shifted.min() < 0 or shifted.max() >= 2 * _HALF):
        raise ValueError(f'voxels: expected numbers within ±{_HALF}, got farther ones')
    block, local = shifted >> BLOCK_BITS, shifted & _LOCAL

    # key = block x y z, then the place within the block
    x, y, z = block.T
    key = (x << (2 * _BLOCK_AXIS_BITS)) | (y << _BLOCK_AXIS_BITS) | z
    x, y, z = local.T
    return (key << (3 * BLOCK_BITS)) | (x << (2 * BLOCK_BITS)) | (y << BLOCK_BITS) | z


def unpack(keys: Keys) -> NDArray[np.int64]:
    """Voxels (n, 3) of keys (n,)."""
    block = keys >> (3 * BLOCK_BITS)
    mask = (1 << _BLOCK_AXIS_BITS) - 1
    parts = [block >> (2 * _BLOCK_AXIS_BITS), (block >> _BLOCK_AXIS_BITS) & mask, block & mask]

    local = [(keys >> (2 * BLOCK_BITS)) & _LOCAL, (keys >> BLOCK_BITS) & _LOCAL, keys & _LOCAL]
    columns = [(b << BLOCK_BITS) | a for b, a in zip(parts, local)]
    return np.stack(columns, axis=1) - _HALF


def block_of(keys: Keys) -> Keys:
    """The block of each key (n,)."""
    return keys >> (3 * BLOCK_BITS)


def find(keys: Keys, wanted: Keys) -> NDArray[np.int64]:
    """Row of each wanted key in ascending ``keys``, -1 where it is not among them."""
    rows = np.searchsorted(keys, wanted)
    rows[rows == len(keys)] = 0
    if len(keys) == 0:
        return np.full(len(wanted), -1, np.int64)
    return np.where(keys[rows] == wanted, rows, -1)
