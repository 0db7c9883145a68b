"""Small scenes on voxels: boxes on a floor, seen frame by frame."""

import numpy as np
from numpy.typing import NDArray

from oneformer3d.streaming import CameraPoints, FrameInstances

VOXEL = 0.05


def box(low: tuple[int, int, int], high: tuple[int, int, int]) -> NDArray[np.int64]:
    """All voxels (n, 3) from ``low`` up to but without ``high``."""
    return np.argwhere(np.ones(np.subtract(high, low))) + np.array(low)


def feature(angle: float) -> NDArray[np.float32]:
    """A unit vector (2,)."""
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


def frame(
    *instances: NDArray[np.int64],
    labels: tuple[int, ...] | None = None,
    features: NDArray[np.float32] | None = None,
    scores: tuple[float, ...] | None = None,
    visible: tuple[NDArray[np.int64], ...] = (),
    free: NDArray[np.int64] | None = None,
    index: int | None = None,
) -> FrameInstances:
    """A frame of instances (n, 3); everything of them is visible, and what else is named."""
    num = len(instances)
    logits = np.zeros((num, 3), np.float32)
    for row, label in enumerate(labels or ()):
        logits[row, label] = 4
    nothing = np.zeros((0, 3), np.int64)
    return FrameInstances(
        instances,
        np.array(scores or [0.9] * num, np.float32),
        logits,
        np.zeros((num, 0), np.float32) if features is None else np.asarray(features, np.float32),
        np.concatenate([nothing, *instances, *visible]),
        nothing if free is None else free,
        index,
    )


def camera_frame(
    rng: np.random.Generator,
    boxes: list[tuple[NDArray, NDArray]],
    world_from_cam: NDArray,
    index: int,
) -> FrameInstances:
    """A frame of noisy points in world boxes [(low, high)] metres, given by its camera points."""
    points, members, begin = [], [], 0
    for low, high in boxes:
        mine = rng.uniform(low, high, size=(int(rng.integers(200, 400)), 3))
        points.append(mine)
        members.append(np.arange(begin, begin + len(mine)))
        begin += len(mine)
    world = np.concatenate([*points, rng.uniform(-3, 3, size=(200, 3))])
    cam = (world - world_from_cam[:3, 3]) @ world_from_cam[:3, :3]

    free = rng.uniform(-3, 3, size=(50, 3))
    free = (free - world_from_cam[:3, 3]) @ world_from_cam[:3, :3]
    source = CameraPoints(
        cam.astype(np.float32), tuple(members), world_from_cam, free.astype(np.float32)
    )
    num = len(boxes)
    return FrameInstances.of_points(
        source,
        VOXEL,
        rng.uniform(0.3, 1, num).astype(np.float32),
        rng.normal(size=(num, 4)).astype(np.float32),
        rng.normal(size=(num, 8)).astype(np.float32),
        index,
    )


def pose(rng: np.random.Generator, spread: float = 1.0) -> NDArray[np.float64]:
    """A rigid pose (4, 4)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] *= -1
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = q, rng.normal(size=3) * spread
    return matrix
