"""Depth and colour images to one point cloud, a frame at a time.

Enters: a ``PosedFolder``; or of one frame depth (H, W) in metres with its camera and colour
(H', W', 3) with its own. Leaves: coloured points of one frame (M, 6), and from all frames one
mean point per cube of space (N, 6).

Letters: F frames, M points of a frame, N of the fused cloud.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from oneformer3d.files.left_out import LossRules
from oneformer3d.lifting.camera import unproject

from .clouds.as_scan import read_point_cloud
from .layouts.colmap import read_points
from .layouts.records import PosedFolder, PosedFrame
from .posed_rgbd import load_posed_rgbd, readable_frames

_RULES = LossRules()

# Rows are merged into the cloud when so many wait: memory is bounded by the cloud and this.
_MAX_PENDING_ROWS = 2_000_000
_BITS = 21  # of one axis in a voxel's key: 2 million voxels, 20 km at 1 cm


@dataclass(frozen=True)
class FusedScan:
    """A fused sequence: points (N, 6) float32, the frames used, and how many were unreadable."""

    points: NDArray[np.float32]
    frames: tuple[PosedFrame, ...]
    num_unreadable: int


def fuse(
    folder: PosedFolder, voxel: float = 0.02, rules: LossRules = _RULES
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Points (N, 6) of a recording and the poses (F, 4, 4) of the frames used.

    Without depth the points are those of the folder's cloud, and (0, 6) if it has none.

    Raises:
        ValueError: see ``fuse_posed_rgbd``; a broken cloud.
    """
    if folder.has_depth:
        scan = fuse_posed_rgbd(folder, voxel, rules=rules)
        return scan.points, np.stack([frame.world_from_cam for frame in scan.frames])

    poses = np.stack([frame.world_from_cam for frame in folder.frames])
    if folder.cloud is None:
        return np.zeros((0, 6), dtype=np.float32), poses
    if folder.cloud.suffix == '.txt':
        return read_points(folder.cloud), poses
    return read_point_cloud(folder.cloud), poses


def fuse_posed_rgbd(
    sequence: PosedFolder,
    voxel_size: float = 0.03,
    *,
    max_depth: float = 5.0,
    edge_ratio: float = 0.03,
    min_count: int = 2,
    progress: bool = False,
    on_frame: Callable[[PosedFrame, NDArray, NDArray | None], None] | None = None,
    rules: LossRules = _RULES,
) -> FusedScan:
    """Fuse all frames into one mean point per cube of ``voxel_size``; memory grows with the cloud.

    Args:
        sequence: see ``load_posed_rgbd``.
        voxel_size: metres.
        max_depth: farther depths are left out: their noise grows with the square.
        edge_ratio: see ``colored_points``.
        min_count: cubes with fewer pixels are left out.
        progress: show a progress bar.
        on_frame: called with each readable frame, its colour and its depth.
        rules: how many frames may be unreadable.

    Raises:
        ValueError: no frame with depth, none with valid depth, too many unreadable ones.
    """
    if not sequence.has_depth:
        raise ValueError(
            f'{sequence.folder}: {len(sequence.frames)} posed images without depth, so no points; '
            'tools/fit_field.py makes a field of them'
        )
    cloud, used = VoxelCloud(voxel_size), []
    for frame, color, depth in readable_frames(sequence, progress, rules):
        if depth is not None and frame.depth_intrinsics is not None:
            cloud.add(
                colored_points(
                    depth,
                    color,
                    frame.depth_intrinsics,
                    frame.K,
                    frame.world_from_cam,
                    max_depth=max_depth,
                    edge_ratio=edge_ratio,
                )
            )
        used.append(frame)
        if on_frame is not None:
            on_frame(frame, color, depth)

    points = cloud.mean_points(min_count)
    if len(points) == 0:
        raise ValueError(
            f'{sequence.folder}: no valid depth up to {max_depth} m in any of {len(used)} frames'
        )
    return FusedScan(points, tuple(used), len(sequence.frames) - len(used))


def fuse_folder(
    folder: str | Path, voxel_size: float = 0.03, frame_step: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Fused points (N, 6) float32 of a folder and the poses (F, 4, 4) of the frames used."""
    return fuse(load_posed_rgbd(folder, frame_step), voxel_size)


def colored_points(
    depth: NDArray,
    color: NDArray,
    depth_intrinsics: NDArray,
    color_intrinsics: NDArray,
    world_from_cam: NDArray,
    *,
    max_depth: float = 5.0,
    edge_ratio: float = 0.03,
) -> NDArray[np.float32]:
    """Lift a frame: valid pixels of the depth image with the colour seen in their direction.

    Left out are pixels without depth or beyond ``max_depth``, pixels at depth edges (where a
    sensor reports depths between the two surfaces, or the colour of the wrong one) and pixels
    outside the colour image. Depth and colour camera share their centre and axes.

    Args:
        depth: (H, W) metres, 0 = missing.
        color: (H', W', 3) uint8 RGB.
        depth_intrinsics: (3, 3) of the depth image.
        color_intrinsics: (3, 3) of the colour image.
        world_from_cam: (4, 4).
        max_depth: metres.
        edge_ratio: depth may vary within 3×3 pixels by this share of itself.

    Returns:
        (M, 6) float32 xyz in metres and rgb 0–255.
    """
    valid = (depth > 0) & (depth <= max_depth) & ~depth_edges(depth, edge_ratio)
    pixel_v, pixel_u = np.nonzero(valid)

    # one centre, one set of axes: [u', v', 1] = K' K⁻¹ [u, v, 1]
    color_from_depth = color_intrinsics @ np.linalg.inv(depth_intrinsics)
    color_u, color_v = (color_from_depth @ np.stack((pixel_u, pixel_v, np.ones_like(pixel_u))))[:2]
    column, row = (np.floor(x + 0.5).astype(np.int64) for x in (color_u, color_v))
    inside = (column >= 0) & (column < color.shape[1]) & (row >= 0) & (row < color.shape[0])

    measured, K, pose = (
        torch.from_numpy(np.asarray(x, dtype=np.float32))
        for x in (depth, depth_intrinsics, world_from_cam)
    )
    points = unproject(measured, K, pose).numpy()  # (H, W, 3)
    points = points[pixel_v[inside], pixel_u[inside]]  # (M, 3)
    return np.concatenate((points, color[row[inside], column[inside]]), 1).astype(np.float32)


def depth_edges(depth: NDArray, edge_ratio: float) -> NDArray[np.bool_]:
    """Pixels (H, W) around which measured depth jumps; missing neighbours are no jump."""
    depth = depth.astype(np.float32)
    window = np.ones((3, 3), np.uint8)
    farthest = cv2.dilate(depth, window)
    nearest = cv2.erode(np.where(depth > 0, depth, np.float32(1e6)), window)
    return (depth > 0) & (farthest - nearest > edge_ratio * depth)


class VoxelCloud:
    """Mean point and colour of every occupied cube of space, fed frame by frame.

    Args:
        voxel_size: edge of a cube in metres.
    """

    def __init__(self, voxel_size: float) -> None:
        if not voxel_size > 0:
            raise ValueError(f'voxel_size: expected a positive length, got {voxel_size}')
        self.voxel_size = voxel_size
        self._keys = np.empty(0, dtype=np.int64)
        self._sums = np.empty((0, 7))  # xyz, rgb, count
        self._pending: list[tuple[NDArray, NDArray]] = []

    def add(self, points: NDArray) -> None:
        """Add points (M, 6), xyz in metres and rgb."""
        values = np.concatenate((points, np.ones((len(points), 1))), axis=1, dtype=np.float64)
        self._pending.append(_sum_by_key(_voxel_keys(points[:, :3], self.voxel_size), values))
        if sum(len(keys) for keys, _ in self._pending) > _MAX_PENDING_ROWS:
            self._merge()

    def mean_points(self, min_count: int = 1) -> NDArray[np.float32]:
        """The cloud (N, 6) float32, of voxels with at least ``min_count`` points.

        Its order is that of the voxels in space, whatever the order of the frames.
        """
        self._merge()
        sums = self._sums[self._sums[:, 6] >= min_count]
        return (sums[:, :6] / sums[:, 6:]).astype(np.float32)

    def _merge(self) -> None:
        keys, sums = zip((self._keys, self._sums), *self._pending)
        self._keys, self._sums = _sum_by_key(np.concatenate(keys), np.concatenate(sums))
        self._pending = []


def _voxel_keys(xyz: NDArray, voxel_size: float) -> NDArray[np.int64]:
    cells = np.floor(xyz.astype(np.float64) / voxel_size) + (1 << (_BITS - 1))
    if len(cells) and not ((cells >= 0) & (cells < 1 << _BITS)).all():
        raise ValueError(
            f'points reach {np.abs(xyz).max():.4g} m from the origin, which voxels of '
            f'{voxel_size} m cannot number'
        )
    x, y, z = cells.astype(np.int64).T
    return (((x << _BITS) | y) << _BITS) | z


def _sum_by_key(keys: NDArray, values: NDArray) -> tuple[NDArray, NDArray]:
    """Distinct keys, ascending, and the sums of their rows."""
    distinct, inverse = np.unique(keys, return_inverse=True)
    columns = [np.bincount(inverse, column, minlength=len(distinct)) for column in values.T]
    return distinct, np.stack(columns, axis=1)
