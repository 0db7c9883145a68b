"""One posed RGB-D frame → points in its camera.

Enters: a ``StreamFrame``. Leaves: ``LiftedFrame``: points, colours and superpoints of a thinned
pixel grid, and what the camera looked through. N points, h and w pixels of the thinned grid.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from oneformer3d.data.fuse_rgbd import depth_edges
from oneformer3d.lifting.camera import invert_pose, is_valid_pose, project, unproject

from .depth_superpoints import depth_superpoints

MAX_PIXELS = 20_000  # of the thinned grid
_FREE_MARGIN = 0.1, 0.03  # metres and share of the depth by which surface must lie behind


@dataclass(frozen=True, eq=False)
class StreamFrame:
    """A frame as a recording or a sensor gives it.

    Attributes:
        index: of the frame; one that was there is not taken twice.
        depth: (H, W) float32 metres, 0 missing.
        color: (H', W', 3) uint8.
        depth_intrinsics, intrinsics: (3, 3) of depth and of colour, which share their centre.
        world_from_cam: (4, 4) OpenCV axes, metres.
        name: for messages.
    """

    index: int
    depth: NDArray[np.float32]
    color: NDArray[np.uint8]
    depth_intrinsics: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    world_from_cam: NDArray[np.float64]
    name: str = ''

    @property
    def has_pose(self) -> bool:
        """Whether its pose is a finite rigid motion."""
        return is_valid_pose(torch.from_numpy(np.asarray(self.world_from_cam, np.float64)))

    def in_world(self, points: NDArray) -> NDArray[np.float64]:
        """Points (N, 3) of the camera in world coordinates."""
        pose = np.asarray(self.world_from_cam, np.float64)
        return points.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]


@dataclass(frozen=True, eq=False)
class LiftedFrame:
    """Points of a frame.

    Attributes:
        points: (N, 3) float32 metres in camera coordinates.
        colors: (N, 3) float32 rgb 0–255.
        superpoints: (N,) int64 dense ids.
    """

    points: NDArray[np.float32]
    colors: NDArray[np.float32]
    superpoints: NDArray[np.int64]


def lift_frame(
    frame: StreamFrame, *, max_depth: float = 5.0, edge_ratio: float = 0.03
) -> LiftedFrame:
    """Every so many-th pixel with depth, the same pixels in every run.

    Args:
        frame: one frame.
        max_depth: metres; farther depths are noise.
        edge_ratio: see ``fuse_rgbd.colored_points``.
    """
    depth = np.nan_to_num(np.asarray(frame.depth, np.float32), posinf=0, neginf=0)
    stride = max(1, int(np.ceil(np.sqrt(depth.size / MAX_PIXELS))))
    valid = (depth > 0) & (depth <= max_depth) & ~depth_edges(depth, edge_ratio)
    surface = unproject(
        torch.from_numpy(depth),
        torch.from_numpy(np.asarray(frame.depth_intrinsics, np.float32)),
        torch.eye(4),
    ).numpy()  # (H, W, 3)

    # colours of the pixels in the directions of these: [u', v', 1] = K' K⁻¹ [u, v, 1]
    rows, columns = (np.arange(stride // 2, size, stride) for size in depth.shape)
    v, u = np.meshgrid(rows, columns, indexing='ij')  # (h, w)
    color_from_depth = frame.intrinsics @ np.linalg.inv(frame.depth_intrinsics)
    pixel = color_from_depth @ np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    column, row = (np.floor(x + 0.5).astype(np.int64).reshape(u.shape) for x in pixel[:2])
    height, width = frame.color.shape[:2]
    valid, surface = valid[v, u], surface[v, u]
    valid &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
    colors = frame.color[row.clip(0, height - 1), column.clip(0, width - 1)].astype(np.float32)

    superpoints = depth_superpoints(surface, valid, colors)
    return LiftedFrame(surface[valid], colors[valid], superpoints[valid])


def looked_through(
    frame: StreamFrame, points: NDArray[np.floating], world_from_cam: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Of world points (M, 3) those before the measured surface, (f, 3) in camera coordinates."""
    if len(points) == 0:
        return np.zeros((0, 3), np.float32)
    pose = torch.from_numpy(world_from_cam)
    pixels, z = project(
        torch.from_numpy(points), torch.from_numpy(np.asarray(frame.depth_intrinsics)), pose
    )
    u, v = np.floor(pixels.numpy() + 0.5).T
    z = z.numpy()
    height, width = frame.depth.shape
    inside = (z > 0.1) & (u >= 0) & (u < width) & (v >= 0) & (v < height)

    depth = np.zeros(len(points))
    depth[inside] = frame.depth[v[inside].astype(int), u[inside].astype(int)]
    margin = _FREE_MARGIN[0] + _FREE_MARGIN[1] * z
    free = inside & np.isfinite(depth) & (depth > z + margin)
    cam_from_world = invert_pose(pose).numpy()
    return (points[free] @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]).astype(np.float32)
