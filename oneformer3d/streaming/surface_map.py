"""The surface seen so far: one mean point per world voxel, fused as ``fuse_rgbd`` does.

Enters: points (N, 6) of frames with the superpoint of each. Leaves: the map, or the part of it near
a frame. M voxels.
"""

import numpy as np
from numpy.typing import NDArray

from .voxels import Keys, find, pack, voxels_of_points

BYTES_PER_VOXEL = 8 + 6 * 8 + 8 + 8


class SurfaceMap:
    """Mean point and colour of every voxel that a frame saw, and its latest superpoint.

    Args:
        voxel_size: metres.

    Attributes:
        keys: (M,) ascending.
        sums: (M, 6) float64 of xyz in metres and rgb 0–255.
        counts: (M,) int64 points.
        superpoints: (M,) int64, numbered through the whole stream.
    """

    def __init__(self, voxel_size: float) -> None:
        self.voxel_size = voxel_size
        self.keys: Keys = np.zeros(0, np.int64)
        self.sums = np.zeros((0, 6))
        self.counts = np.zeros(0, np.int64)
        self.superpoints = np.zeros(0, np.int64)
        self.num_superpoints = 0

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, points: NDArray, superpoints: NDArray[np.int64]) -> Keys:
        """Add a frame.

        Args:
            points: (N, 6) world xyz and rgb.
            superpoints: (N,) ids within the frame, 0…S−1.

        Returns:
            (N,) key of the voxel of each point.
        """
        keys = pack(voxels_of_points(points[:, :3], self.voxel_size))
        distinct, inverse = np.unique(keys, return_inverse=True)
        new = distinct[find(self.keys, distinct) < 0]
        at = np.searchsorted(self.keys, new)
        self.keys = np.insert(self.keys, at, new)
        self.sums = np.insert(self.sums, at, 0, axis=0)
        self.counts = np.insert(self.counts, at, 0)
        self.superpoints = np.insert(self.superpoints, at, 0)

        rows = find(self.keys, distinct)
        for column in range(6):
            self.sums[rows, column] += np.bincount(inverse, points[:, column], len(distinct))
        self.counts[rows] += np.bincount(inverse, minlength=len(distinct))
        self.superpoints[rows[inverse]] = superpoints + self.num_superpoints
        self.num_superpoints += int(superpoints.max(initial=-1)) + 1
        return keys

    def points(self, rows: NDArray | slice = slice(None)) -> NDArray[np.float32]:
        """(m, 6) mean points of some voxels."""
        return (self.sums[rows] / self.counts[rows][:, None]).astype(np.float32)

    def near(self, points: NDArray, margin: float, max_voxels: int) -> NDArray[np.int64]:
        """Ascending rows of the map around points.

        Args:
            points: (N, 3) metres, N ≥ 1.
            margin: metres around their box.
            max_voxels: at most so many, the nearest to the middle of the points.
        """
        xyz = self.sums[:, :3] / self.counts[:, None]
        low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
        rows = np.flatnonzero(((xyz >= low) & (xyz <= high)).all(axis=1))
        if len(rows) > max_voxels:
            distance = np.linalg.norm(xyz[rows] - points.mean(axis=0), axis=1)
            rows = np.sort(rows[np.argsort(distance, kind='stable')[:max_voxels]])
        return rows

    def arrays(self) -> dict[str, NDArray]:
        """Everything, for a snapshot."""
        return {
            'keys': self.keys.copy(),
            'sums': self.sums.copy(),
            'counts': self.counts.copy(),
            'superpoints': self.superpoints.copy(),
            'num_superpoints': np.array(self.num_superpoints),
        }

    def load_arrays(self, arrays: dict[str, NDArray]) -> None:
        """Go back to a snapshot."""
        self.keys, self.sums = arrays['keys'].copy(), arrays['sums'].copy()
        self.counts, self.superpoints = arrays['counts'].copy(), arrays['superpoints'].copy()
        self.num_superpoints = int(arrays['num_superpoints'])
