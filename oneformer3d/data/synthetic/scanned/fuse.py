"""Recorded frames → the labelled cloud that the inferencer would make of them.

Enters: V frames with the poses a tracker reported. Leaves: a ``LabelledScan`` of N points.

Points come about by the very functions that read a folder of frames for prediction: lifted pixels,
means of cubes of two centimetres, isolated points dropped, thinned to the model's cubes, default
superpoints. Labels travel beside: each pixel votes for the point next to it.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from ...fuse_rgbd import VoxelCloud, colored_points
from ...scan import FUSION_VOXEL
from ...superpoints import superpoints_from_points
from ...thinning import thin_scan
from .sensor import SensorFrame

MIN_COUNT = 2  # pixels of a fused cube
PIXEL_STEP = 2  # every other pixel votes


@dataclass(frozen=True)
class LabelledScan:
    """A fused scan: points (N, 6) float32, superpoints (N,) and voted parts (N,) int64; -1 where
    nobody voted."""

    points: np.ndarray
    superpoints: np.ndarray
    voted: np.ndarray


def fuse_recording(
    frames: list[SensorFrame],
    intrinsics: np.ndarray,
    poses: list[np.ndarray],
    codes: np.ndarray,
    voxel_size: float,
) -> LabelledScan:
    """Fuse a recording.

    Args:
        intrinsics: (3, 3) of all frames.
        poses: V ``world_from_cam`` as reported.
        codes: (P,) what a pixel of each part votes for, 0 or more.
        voxel_size: of the model, metres.

    Returns:
        The cloud.

    Raises:
        ValueError: nothing was measured.
    """
    cloud, votes = VoxelCloud(FUSION_VOXEL), []
    for frame, world_from_cam in zip(frames, poses, strict=True):
        depth = np.round(1000 * frame.depth) / 1000  # as files keep it
        lift = (intrinsics, intrinsics, world_from_cam)
        cloud.add(colored_points(depth, frame.color, *lift))
        # the same pixels with what they show in place of their colour
        code = np.where(frame.part >= 0, codes[frame.part], 0)
        votes.append(colored_points(depth, np.repeat(code[..., None], 3, 2), *lift)[:, :4])

    fused = cloud.mean_points(MIN_COUNT)
    if not len(fused):
        raise ValueError('no frame of the recording measured anything')
    points = thin_scan(fused, voxel_size).points
    superpoints = superpoints_from_points(points[:, :3], points[:, 3:])
    voted = vote(points[:, :3], np.concatenate(votes)[::PIXEL_STEP], voxel_size)
    return LabelledScan(points, superpoints, voted)


def vote(xyz: np.ndarray, votes: np.ndarray, radius: float) -> np.ndarray:
    """What most pixels say about each point.

    Args:
        xyz: (N, 3).
        votes: (M, 4), position and code of each pixel.
        radius: farther pixels say nothing, metres.

    Returns:
        (N,) int64 codes, -1 without a vote.
    """
    distance, point = KDTree(xyz).query(votes[:, :3], distance_upper_bound=radius)
    near = np.isfinite(distance)
    point, code = np.asarray(point)[near], votes[near, 3].astype(np.int64)

    # of equal pairs (point, code) how many; the last of each point after sorting by count wins
    num_codes = int(code.max(initial=0)) + 1
    pair, count = np.unique(point * num_codes + code, return_counts=True)
    order = np.argsort(count, kind='stable')
    winner = np.full(len(xyz), -1, np.int64)
    winner[pair[order] // num_codes] = pair[order] % num_codes
    return winner
