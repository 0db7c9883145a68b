"""One labelled point cloud of many rendered frames.

Enters: V frames. Leaves: a ``LabelledCloud`` of N points.

Every valid pixel is a candidate point. Candidates are thinned at random until no two are closer
than the spacing, so density is even and only visible surfaces have points. A point has the position
and labels of one pixel and the colour of one pixel, nothing is averaged; the two lie some two
centimetres apart, as colour and geometry do in a handheld scan. Exact colours would let the
directions in which neighbours agree betray a pattern finer than the points.

Letters: V views, M candidates, P of them in the pool, N points.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from .cameras import pixel_rays
from .render import RenderedFrame
from .settings import RoomSettings


@dataclass(frozen=True)
class LabelledCloud:
    """A fused scan.

    Attributes:
        points: (N, 6) float32, xyz in metres and rgb 0–255.
        normals: (N, 3) float32 unit, towards the camera that saw the point.
        semantic: (N,) int64 raw class ids, 0 = unlabeled.
        instance: (N,) int64, 0 = none.
    """

    points: np.ndarray
    normals: np.ndarray
    semantic: np.ndarray
    instance: np.ndarray


def fuse_frames(
    rng: np.random.Generator,
    frames: list[RenderedFrame],
    intrinsics: np.ndarray,
    settings: RoomSettings,
) -> LabelledCloud:
    """Fuse all views of a room.

    Args:
        frames: V frames.
        intrinsics: (3, 3) of all of them.
        settings: ``point_spacing``, ``color_misalignment``, ``min_instance_points``.

    Returns:
        The cloud.
    """
    of_frames = [candidates(frame, intrinsics) for frame in frames]
    xyz, color, normal, semantic, instance = (
        np.concatenate(columns) for columns in zip(*of_frames, strict=True)
    )  # (M, 3) or (M,) each

    pool = one_per_cell(rng, xyz, settings.point_spacing / 2)
    keep = np.sort(pool[thin(xyz[pool], settings.point_spacing)])

    # the colour of a point of the same object, some two centimetres away
    shifted = xyz[keep] + rng.normal(0.0, settings.color_misalignment, (len(keep), 3))
    source = pool[KDTree(xyz[pool]).query(shifted)[1]]
    same_object = (semantic[source] == semantic[keep]) & (instance[source] == instance[keep])
    color = color[np.where(same_object, source, keep)]

    semantic, instance = semantic[keep].astype(np.int64), instance[keep].astype(np.int64)
    few = (np.bincount(instance) < settings.min_instance_points)[instance] & (instance > 0)
    return LabelledCloud(
        points=np.concatenate([xyz[keep], color], axis=1).astype(np.float32),
        normals=normal[keep],
        semantic=np.where(few, 0, semantic),
        instance=np.where(few, 0, instance),
    )


def candidates(frame: RenderedFrame, intrinsics: np.ndarray) -> tuple[np.ndarray, ...]:
    """All points of one depth image.

    Args:
        intrinsics: (3, 3).

    Returns:
        xyz (M, 3), colour (M, 3), normal (M, 3), raw class ids (M,), instance ids (M,).
    """
    z = frame.depth.reshape(-1) / 1000.0
    valid = np.flatnonzero(z)  # (M,)
    rays = pixel_rays(intrinsics, frame.depth.shape)[valid]
    world_from_cam = frame.world_from_cam
    xyz = (z[valid, None] * rays) @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]
    return (
        xyz,
        frame.point_color.reshape(-1, 3)[valid],
        frame.normal.reshape(-1, 3)[valid],
        frame.semantic.reshape(-1)[valid],
        frame.instance.reshape(-1)[valid],
    )


def one_per_cell(rng: np.random.Generator, xyz: np.ndarray, size: float) -> np.ndarray:
    """One random candidate of each occupied cubic cell.

    Args:
        xyz: (M, 3) metres.
        size: cell size in metres.

    Returns:
        (P,) indices in random order.
    """
    cell = np.floor((xyz - xyz.min(axis=0)) / size).astype(np.int64)
    extent = cell.max(axis=0) + 1
    key = (cell[:, 0] * extent[1] + cell[:, 1]) * extent[2] + cell[:, 2]

    order = rng.permutation(len(xyz)).astype(np.int32)
    last = np.full(extent.prod(), -1, dtype=np.int32)
    last[key[order]] = order  # of candidates in one cell the last in the random order stays
    return rng.permutation(last[last >= 0])


def thin(xyz: np.ndarray, spacing: float) -> np.ndarray:
    """Greedy subset without two points closer than the spacing; no further point would fit.

    Of points in random order this is a maximal Poisson-disc sample.

    Args:
        xyz: (P, 3) metres; earlier ones come first.
        spacing: metres.

    Returns:
        (N,) indices.
    """
    pairs = KDTree(xyz).query_pairs(spacing, output_type='ndarray')
    return np.flatnonzero(first_in_neighborhood(len(xyz), pairs))


def first_in_neighborhood(num: int, pairs: np.ndarray) -> np.ndarray:
    """Greedy independent set of a graph whose nodes are visited in the order of their indices.

    In rounds, all nodes that come before their remaining neighbours at a time (Luby, 1986).

    Args:
        num: number of nodes.
        pairs: (E, 2) edges with the smaller index first.

    Returns:
        (num,) bool, the nodes of the set.
    """
    state = np.zeros(num, dtype=np.int8)  # 0 open, 1 in the set, 2 dropped
    while True:
        blocked = np.zeros(num, dtype=bool)
        blocked[pairs[:, 1]] = True
        state[(state == 0) & ~blocked] = 1
        state[pairs[state[pairs[:, 0]] == 1, 1]] = 2
        pairs = pairs[(state[pairs] == 0).all(axis=1)]
        if not len(pairs):
            state[state == 0] = 1
            return state == 1
