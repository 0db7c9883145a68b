"""Poses of a sequence as they stand in its files, and between them.

Enters: poses (N, 4, 4). Leaves: which of them are motions, and poses (F, 4, 4) at any positions.
"""

import numpy as np
from numpy.typing import NDArray

_RIGID_TOLERANCE = 1e-2


def track_of(
    poses: NDArray[np.float64],
) -> tuple[NDArray[np.float64], bool, int, int]:
    """Of poses (N, 4, 4): those, nan where one is none; whether transposed; lost; not rigid."""
    finite = np.isfinite(poses).all(axis=(1, 2))
    with np.errstate(invalid='ignore', over='ignore'):
        upright, turned = _is_rigid(poses), _is_rigid(poses.swapaxes(1, 2))
    transposed = bool((turned & ~upright).sum() > upright.sum())
    if transposed:
        poses, upright = poses.swapaxes(1, 2).copy(), turned
    return (
        np.where(upright[:, None, None], poses, np.nan),
        transposed,
        int((~finite).sum()),
        int((finite & ~upright).sum()),
    )


def poses_at(poses: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Poses (F, 4, 4) at positions (F,) of a sequence (N, 4, 4); nan outside of it."""
    outside = (positions < 0) | (positions > len(poses) - 1)
    before = np.clip(np.floor(positions), 0, len(poses) - 1).astype(np.int64)
    share = positions - before
    found = poses[before]
    between = np.flatnonzero((share > 1e-9) & ~outside)
    if len(between):
        after = poses[np.minimum(before + 1, len(poses) - 1)][between]
        weight = share[between, None, None]
        mixed = (1 - weight) * found[between] + weight * after
        found[between] = _orthonormal(mixed)
    found[outside] = np.nan
    return found


def _is_rigid(poses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of (N, 4, 4) are rigid motions."""
    finite = np.all(np.isfinite(poses), axis=(1, 2))
    rotation = np.where(finite[:, None, None], poses, 0)[:, :3, :3]
    orthogonal = np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2))
    last = np.abs(np.where(finite[:, None], poses[:, 3], 9) - [0, 0, 0, 1]).max(axis=1)
    return finite & (orthogonal <= _RIGID_TOLERANCE) & (last < 1e-5) & (np.linalg.det(rotation) > 0)


def _orthonormal(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Poses (N, 4, 4) with the rotation that is nearest to their upper left; nan stays."""
    finite = np.all(np.isfinite(poses), axis=(1, 2))
    u, _, vh = np.linalg.svd(np.where(finite[:, None, None], poses, 0)[:, :3, :3])
    rotated = poses.copy()
    rotated[:, :3, :3] = np.where(finite[:, None, None], u @ vh, np.nan)
    return rotated
