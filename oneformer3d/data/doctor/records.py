"""What the doctor looks at: frames as they are written, and a recording of a few of them.

Enters: nothing. Leaves: ``SourceFrame`` and ``Recording``, and ``read``: what a recording means
after some changes. N frames of the sequence, F of them looked at, H×W the depth image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .changes import Change
from .compare import FrameArrays, Reading
from .tracks import poses_at

_MILLIMETRE = 0.001
_LEAST_DETERMINANT = 1e-6  # of intrinsics


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One frame as a reader finds it.

    Attributes:
        name: of the frame.
        color_path, depth_path: its files.
        pose: (4, 4) as it stands there.
        color_intrinsics, depth_intrinsics: (3, 3).
        metres: per value of depth.
    """

    name: str
    color_path: Path
    depth_path: Path
    pose: NDArray[np.float64]
    color_intrinsics: NDArray[np.float64]
    depth_intrinsics: NDArray[np.float64]
    metres: float = _MILLIMETRE


@dataclass(frozen=True, eq=False)
class Recording:
    """What the doctor looks at.

    Attributes:
        frames: N of the sequence.
        chosen: (F,) which of them are looked at.
        track: (N, 4, 4) poses, nan where one is no rigid motion.
        arrays: of the F frames.
        intrinsics: (F, 3, 3) of the depth images.
        color_intrinsics: (3, 3) of the colour images.
        color_size: (H', W').
        transposed: whether the translations stood in the last row.
        num_lost, num_not_rigid, num_unreadable: poses of inf or nan, poses that are no rigid
            motion, images that cannot be read.
        clipped_at: value that a good part of all depth has, where depth was cut off; or 0.
    """

    frames: tuple[SourceFrame, ...]
    chosen: NDArray[np.int64]
    track: NDArray[np.float64]
    arrays: FrameArrays
    intrinsics: NDArray[np.float64]
    color_intrinsics: NDArray[np.float64]
    color_size: tuple[int, int]
    transposed: bool
    num_lost: int
    num_not_rigid: int
    num_unreadable: int
    clipped_at: float

    @property
    def names(self) -> tuple[str, ...]:
        """Of the F frames."""
        return tuple(self.frames[i].name for i in self.chosen)

    @property
    def metres(self) -> float:
        """Per value of arrays.depth."""
        return self.frames[int(self.chosen[0])].metres


def read(recording: Recording, changes: Sequence[Change] = ()) -> Reading:
    """What the frames mean after the changes, which are made one after the other."""
    poses, positions = recording.track, recording.chosen.astype(np.float64)
    intrinsics, size = recording.intrinsics, recording.arrays.depth.shape[1:]
    depth, metres = None, recording.metres
    for change in changes:
        poses = poses if change.poses is None else change.poses(poses)
        if change.positions is not None:
            positions = change.positions(positions, len(poses))
        if change.depth is not None:
            depth = change.depth(recording.arrays.depth if depth is None else depth, intrinsics[0])
        if change.intrinsics is not None:
            intrinsics = change.intrinsics(intrinsics, (size[0], size[1]))
        metres *= change.factor

    world_from_cam = poses_at(poses, positions)
    solvable = np.abs(np.linalg.det(intrinsics)) > _LEAST_DETERMINANT
    intrinsics = np.where(solvable[:, None, None], intrinsics, np.eye(3))
    valid = np.isfinite(world_from_cam).all(axis=(1, 2)) & solvable
    world_from_cam = np.where(valid[:, None, None], world_from_cam, np.eye(4))
    return Reading(world_from_cam, intrinsics, metres, valid, depth)


def with_depth_changed(
    recording: Recording, changes: Sequence[Change]
) -> tuple[Recording, tuple[Change, ...]]:
    """A recording whose depth has been changed, and what is left of the changes.

    ``read`` makes the same of both, but does not go over all pixels of all images again for every
    further change that a search tries.
    """
    depth = read(recording, changes).depth
    if depth is None:
        return recording, tuple(changes)
    changed = replace(recording, arrays=replace(recording.arrays, depth=depth))
    return changed, tuple(replace(change, depth=None) for change in changes)
