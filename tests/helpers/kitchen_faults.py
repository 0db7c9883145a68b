"""Faults of a posed RGB-D sequence by name: those that reports told of, and others.

Enters: a folder for images that have to be changed. Leaves: name → ``Fault``.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.helpers import break_frames as broken
from tests.helpers.break_frames import Fault, Frames

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def kitchen_faults(folder: Path) -> dict[str, Fault]:
    """All of them; those of images write theirs below ``folder``."""
    return (
        {'none': list}
        | pose_faults()
        | camera_faults()
        | depth_faults(folder)
        | time_faults()
        | partial_faults()
        | image_faults(folder)
    )


def pose_faults() -> dict[str, Fault]:
    """Poses in other conventions, units and of other cameras."""
    change = broken.change_poses
    return {
        'poses inverted': change(np.linalg.inv),
        'poses in OpenGL axes': change(lambda p: p @ FLIP),
        'both': change(lambda p: np.linalg.inv(p @ FLIP)),
        'poses transposed': change(lambda p: p.swapaxes(1, 2)),
        'rotations transposed': change(broken.transpose_rotations),
        'quaternions wxyz read as xyzw': broken.reordered_quaternions(1),
        'quaternions xyzw read as wxyz': broken.reordered_quaternions(-1),
        'left-handed poses (Unity)': broken.mirrored_poses(1),
        'cameras mirrored in x': broken.mirrored_poses(0),
        'left-handed world': change(lambda p: np.diag([1.0, -1.0, 1.0, 1.0]) @ p),
        'poses in mm': change(lambda p: _translated(p, 1000.0)),
        'poses in feet': change(lambda p: _translated(p, 1 / 0.3048)),
        'poses are the identity': change(lambda p: np.tile(np.eye(4), (len(p), 1, 1))),
        'translations missing': change(lambda p: _translated(p, 0.0)),
        'rotations missing': change(_unrotated),
        'poses rounded to 0.1': change(lambda p: p.round(1)),
        'pose noise 3 cm 1°': broken.noisy_poses(3, 1),
        'pose noise 10 cm 3°': broken.noisy_poses(10, 3),
        'poses of a camera 10 cm beside': broken.other_camera([0.1, 0, 0], [0, 0, 0]),
    }


def camera_faults() -> dict[str, Fault]:
    """Intrinsics of another image or in another order."""
    change = broken.change_intrinsics
    halved = np.array([[0.5, 1, 0.5], [1, 0.5, 0.5], [1, 1, 1]])
    return {
        'fx, fy and cx, cy exchanged': change(lambda k: k[[1, 0, 2]][:, [1, 0, 2]]),
        'K transposed': change(np.transpose),
        'K of half the size': change(lambda k: k * halved),
        'focal length × 1.1': change(lambda k: k * np.array([[1.1, 1, 1], [1, 1.1, 1], [1, 1, 1]])),
        'cx, cy of 0': change(lambda k: k * np.array([[1, 1, 0], [1, 1, 0], [1, 1, 1]])),
    }


def depth_faults(folder: Path) -> dict[str, Fault]:
    """Depth in other units, and depth that is no depth."""
    factors = (2, 1.2, 1.07, 0.85, 3, 4, 5, 6.5535, 10, 0.1)
    faults = {f'depth × {factor:g}': broken.scale_depth(factor) for factor in factors}

    def bytes_lost(depth: np.ndarray) -> np.ndarray:
        return depth // 256 * 256

    def cropped(depth: np.ndarray) -> np.ndarray:
        return np.pad(depth, ((0, 0), (40, 0)))[:, :-40]

    def tilted(depth: np.ndarray) -> np.ndarray:
        return depth * np.linspace(0.85, 1.15, len(depth))[:, None]

    changes = {
        'depth of 8 bits': bytes_lost,
        'depth moved by 40 pixels': cropped,
        'depth rows moved by 1': lambda d: np.pad(d, ((1, 0), (0, 0)))[:-1],
        'depth grows with the row': tilted,
        'depth cut off at 2 m': lambda d: np.minimum(d, 2000),
        'depth mirrored': lambda d: d[:, ::-1],
    }
    for name, change in changes.items():
        faults[name] = broken.change_depth(folder / name, change)
    return faults


def time_faults() -> dict[str, Fault]:
    """Poses, depth and colour that are not of the same moment."""
    faults = {f'depth late by {n}': broken.late_depth(n) for n in (1, 3, 10)}
    faults |= {f'poses late by {n}': broken.late_poses(n) for n in (1, 3, 10)}
    change = broken.change_poses
    return faults | {
        'poses in reverse order': change(lambda p: p[::-1].copy()),
        'poses ever later': change(lambda p: p[(np.arange(len(p)) * 0.8).astype(int)]),
        'poses repeated from the middle on': change(
            lambda p: p[np.minimum(np.arange(len(p)), len(p) // 2)]
        ),
        'poses shuffled': change(lambda p: p[np.random.default_rng(0).permutation(len(p))]),
        'colour late by 2': colors_late(2),
    }


def partial_faults() -> dict[str, Fault]:
    """Some frames are wrong and the others are right."""
    return {
        'one pose in five of another frame': broken.foreign_poses(5),
        'one pose in eight of another frame': broken.foreign_poses(8),
        'two poses exchanged': broken.change_poses(_two_exchanged),
        'every second pose in OpenGL axes': broken.change_poses(
            lambda p: np.where((np.arange(len(p)) % 2)[:, None, None] == 1, p @ FLIP, p)
        ),
        'second half moved by 11 cm': broken.drifted_half(0.1),
        'drift of 30 cm': broken.drift(0.27),
        'every third depth × 2': lambda frames: [
            replace(frame, metres=frame.metres * (2 if i % 3 == 0 else 1))
            for i, frame in enumerate(frames)
        ],
    }


def image_faults(folder: Path) -> dict[str, Fault]:
    """Colour that is not as depth."""
    return {
        'colour mirrored': broken.change_colors(folder / 'mirrored', lambda image: image[:, ::-1]),
        'colour upside down': broken.change_colors(folder / 'turned', lambda i: i[::-1, ::-1]),
    }


def colors_late(shift: int) -> Fault:
    """Frame i has the colour of frame i − shift."""

    def fault(frames: Frames) -> Frames:
        return [
            replace(frame, color_path=frames[i - shift].color_path)
            for i, frame in enumerate(frames)
            if i >= shift
        ]

    return fault


def _translated(poses: np.ndarray, factor: float) -> np.ndarray:
    return poses * np.array([[1, 1, 1, factor]] * 3 + [[1, 1, 1, 1]])


def _unrotated(poses: np.ndarray) -> np.ndarray:
    still = np.tile(np.eye(4), (len(poses), 1, 1))
    still[:, :3, 3] = poses[:, :3, 3]
    return still


def _two_exchanged(poses: np.ndarray) -> np.ndarray:
    order = np.arange(len(poses))
    first, second = len(poses) // 5, 3 * len(poses) // 5
    order[[first, second]] = order[[second, first]]
    return poses[order]
