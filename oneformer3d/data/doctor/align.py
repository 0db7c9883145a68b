"""Small motions that bring overlapping frames nearer to each other.

Enters: frames, a reading of them and pairs. Leaves: for every pair the rigid motion that point to
plane alignment finds, which is what the poses lack. P pairs, n pixels of each.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .compare import FrameArrays, Reading, Samples, move, project

_STEP = 3  # pixels between neighbours that span a tangent plane
_GATES = (0.10, 0.06, 0.04, 0.03, 0.03)  # of depth: farther points are not the same surface
_DIFFERENCE = 1e-4
_LEAST_SEEN = 0.1  # of the best determined direction; along a wall a camera slides unseen


def align_pairs(
    frames: FrameArrays,
    reading: Reading,
    pairs: NDArray[np.int64],
    num_pixels: int | None = None,
) -> NDArray[np.float64]:
    """(P, 4, 4) motions in the camera of the to-frame, by iterated point-to-plane alignment."""
    corrections = np.tile(np.eye(4), (len(pairs), 1, 1))
    for gate in _GATES:
        samples = project(frames, reading, pairs, num_pixels, corrections)
        residual, normal, weight = _plane_residuals(frames, reading, pairs, samples, gate)

        # about the middle m of what is seen, in units of its size s, so that turning and shifting
        # weigh the same: r(ξ) = n · (p + ω × (p − m) / s + v − q), J = [(p − m) × n / s, n]
        total = np.maximum(weight.sum(axis=1), 1e-12)[:, None]  # (P, 1)
        middle = (samples.points * weight[..., None]).sum(axis=1) / total  # (P, 3)
        arm = samples.points - middle[:, None]  # (P, n, 3)
        size = np.sqrt(((arm**2).sum(-1) * weight).sum(axis=1, keepdims=True) / total) + 1e-9
        jacobian = np.concatenate([np.cross(arm, normal) / size[..., None], normal], axis=-1)
        weighted = jacobian * weight[..., None]  # (P, n, 6)
        step = _solve_seen(
            weighted.swapaxes(1, 2) @ jacobian, -(weighted * residual[..., None]).sum(axis=1)
        )

        # ω about m, as a motion of the camera's coordinates
        step = np.concatenate([step[:, :3] / size, step[:, 3:]], axis=1)
        motion = rigid(step)
        motion[:, :3, 3] += middle - (motion[:, :3, :3] @ middle[..., None])[..., 0]
        corrections = motion @ corrections
    return corrections


def align_mount(
    frames: FrameArrays,
    reading: Reading,
    pairs: NDArray[np.int64],
    num_pixels: int | None = None,
) -> NDArray[np.float64]:
    """The one motion (4, 4) between depth and the camera of the poses that fits all pairs best."""
    mount = np.eye(4)
    for gate in (*_GATES, *_GATES[-1:] * 2):
        current = replace(reading, world_from_cam=reading.world_from_cam @ mount)
        samples = project(frames, current, pairs, num_pixels)
        residual, normal, weight = _plane_residuals(frames, current, pairs, samples, gate)
        second_from_first = _relative(current, pairs)
        first = move(np.linalg.inv(second_from_first), samples.points)

        # one column for every direction in which the mount can move
        columns = []
        for direction in np.eye(6) * _DIFFERENCE:
            step = rigid(direction[None])[0]
            moved = move(np.linalg.inv(step) @ second_from_first @ step, first)
            columns.append(((moved - samples.points) * normal).sum(-1) / _DIFFERENCE)
        jacobian = np.stack(columns, axis=-1).reshape(-1, 6)  # (P·n, 6)
        weighted = jacobian * weight.reshape(-1, 1)
        step = _solve_seen(
            (weighted.T @ jacobian)[None], -(weighted.T @ residual.reshape(-1))[None]
        )
        mount = mount @ rigid(step)[0]
    return mount


def _relative(reading: Reading, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """(P, 4, 4) from the camera of the first frame to that of the second."""
    cam_from_world = np.linalg.inv(reading.world_from_cam)
    return cam_from_world[pairs[:, 1]] @ reading.world_from_cam[pairs[:, 0]]


def _solve_seen(matrix: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve (P, 6, 6) systems in the directions that the surfaces determine, 0 in the others."""
    values, vectors = np.linalg.eigh(matrix)
    seen = values > _LEAST_SEEN * values[:, -1:]
    inverse = np.where(seen, 1 / np.where(seen, values, 1.0), 0.0)
    coordinates = (right[:, None] @ vectors)[:, 0] * inverse  # (P, 6)
    return (vectors @ coordinates[..., None])[..., 0]


def _plane_residuals(
    frames: FrameArrays,
    reading: Reading,
    pairs: NDArray[np.int64],
    samples: Samples,
    gate: float,
) -> tuple[NDArray, NDArray, NDArray]:
    """Distances (P, n) to the tangent planes, their normals (P, n, 3) and robust weights (P, n)."""
    depth = frames.depth if reading.depth is None else reading.depth
    height, width = depth.shape[1:]
    ray_of_pixel = np.linalg.inv(reading.intrinsics)[pairs[:, 1]].swapaxes(1, 2)

    def surface(du: int, dv: int) -> tuple[NDArray, NDArray]:
        u = np.clip(samples.column + du, 0, width - 1)
        v = np.clip(samples.row + dv, 0, height - 1)
        z = depth[pairs[:, 1:], v, u] * reading.metres
        return np.stack([u, v, np.ones_like(u)], -1) @ ray_of_pixel * z[..., None], z > 0

    point, there = surface(0, 0)
    (left, a), (right, b) = surface(-_STEP, 0), surface(_STEP, 0)
    (up, c), (down, d) = surface(0, -_STEP), surface(0, _STEP)
    normal = np.cross(right - left, down - up)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)

    residual = ((samples.points - point) * normal).sum(-1)
    scale = gate * np.maximum(samples.measured, 1e-9)
    near = np.abs(residual) < scale
    known = samples.inside & there & a & b & c & d
    known &= np.abs(samples.points[..., 2] - samples.measured) < 3 * scale
    # Tukey's weights; far points count less, as their depth is noisier
    weight = np.where(near & known, (1 - (residual / scale) ** 2) ** 2, 0.0)
    return residual, normal, weight / np.maximum(samples.measured, 0.3) ** 2


def rigid(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, 4, 4) of rotation vectors and translations (P, 6), by Rodrigues' formula."""
    omega = steps[:, :3]
    angle = np.linalg.norm(omega, axis=1)[:, None, None]
    x, y, z = (omega / np.maximum(angle[:, :, 0], 1e-12)).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)

    motions = np.tile(np.eye(4), (len(steps), 1, 1))
    # R = I + sin θ [k]ₓ + (1 − cos θ) [k]ₓ²
    motions[:, :3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    motions[:, :3, 3] = steps[:, 3:]
    return motions


def motion_size(motions: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lengths (P,) in metres and angles (P,) in degrees of rigid motions (P, 4, 4)."""
    cosine = (np.trace(motions[:, :3, :3], axis1=1, axis2=2) - 1) / 2
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return np.linalg.norm(motions[:, :3, 3], axis=1), angle
