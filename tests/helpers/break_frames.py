"""Posed frames broken on purpose: faults by name, and faults drawn at random.

A fault takes a list of ``SourceFrame`` and a random generator and returns a broken list; those of
images write them to a folder of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from oneformer3d.data.doctor.records import SourceFrame

Frames = list[SourceFrame]
Fault = Callable[[Frames], Frames]


def change_poses(change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    """A fault of all poses (N, 4, 4)."""

    def fault(frames: Frames) -> Frames:
        poses = change(np.array([frame.pose for frame in frames]))
        return [replace(frame, pose=pose) for frame, pose in zip(frames, poses)]

    return fault


def change_intrinsics(change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    """A fault of K of depth and colour."""

    def fault(frames: Frames) -> Frames:
        return [
            replace(
                frame,
                depth_intrinsics=change(frame.depth_intrinsics.copy()),
                color_intrinsics=change(frame.color_intrinsics.copy()),
            )
            for frame in frames
        ]

    return fault


def scale_depth(factor: float) -> Fault:
    """Depth is read too large."""
    return lambda frames: [replace(frame, metres=frame.metres * factor) for frame in frames]


def late_poses(shift: int) -> Fault:
    """Frame i has the pose of frame i − shift."""
    return _late(shift, 'pose')


def late_depth(shift: int) -> Fault:
    """Frame i has the depth of frame i − shift."""
    return _late(shift, 'depth_path')


def _late(shift: int, part: str) -> Fault:
    def fault(frames: Frames) -> Frames:
        values = {
            'pose': [frame.pose for frame in frames],
            'depth_path': [frame.depth_path for frame in frames],
        }[part]
        return [
            replace(frame, **{part: values[i - shift]})
            for i, frame in enumerate(frames)
            if 0 <= i - shift < len(frames)
        ]

    return fault


def noisy_poses(centimetres: float, degrees: float, seed: int = 0) -> Fault:
    """Every pose is off by about so much."""

    def change(poses: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(seed)
        noisy = poses.copy()
        noisy[:, :3, 3] += rng.normal(size=(len(poses), 3)) * centimetres / 100 / 3**0.5
        turns = rng.normal(size=(len(poses), 3)) * np.radians(degrees) / 3**0.5
        noisy[:, :3, :3] = poses[:, :3, :3] @ Rotation.from_rotvec(turns).as_matrix()
        return noisy

    return change_poses(change)


def foreign_poses(every: int) -> Fault:
    """One pose in so many is that of a frame far away."""

    def change(poses: np.ndarray) -> np.ndarray:
        broken = poses.copy()
        which = np.arange(every // 2, len(poses), every)
        broken[which] = poses[(which + len(poses) // 2) % len(poses)]
        return broken

    return change_poses(change)


def drifted_half(metres: float, degrees: float = 0.0) -> Fault:
    """The second half of the sequence has moved."""

    def change(poses: np.ndarray) -> np.ndarray:
        motion = mount([metres, metres / 2, 0], [0, 0, degrees])
        half = len(poses) // 2
        return np.concatenate([poses[:half], motion @ poses[half:]])

    return change_poses(change)


def drift(metres: float, degrees: float = 0.0) -> Fault:
    """Poses drift more and more."""

    def change(poses: np.ndarray) -> np.ndarray:
        share = np.linspace(0, 1, len(poses))
        moved = [
            mount([metres * s, metres * s / 2, 0], [0, 0, degrees * s]) @ pose
            for s, pose in zip(share, poses)
        ]
        return np.array(moved)

    return change_poses(change)


def mount(translation: Sequence[float], degrees: Sequence[float]) -> np.ndarray:
    """A rigid motion (4, 4)."""
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler('xyz', degrees, degrees=True).as_matrix()
    motion[:3, 3] = translation
    return motion


def other_camera(translation: Sequence[float], degrees: Sequence[float]) -> Fault:
    """Poses are those of a camera mounted elsewhere."""
    return change_poses(lambda poses: poses @ mount(translation, degrees))


def reordered_quaternions(shift: int) -> Fault:
    """Quaternions read with their numbers moved on."""

    def change(poses: np.ndarray) -> np.ndarray:
        broken = poses.copy()
        quaternions = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
        broken[:, :3, :3] = Rotation.from_quat(np.roll(quaternions, shift, axis=1)).as_matrix()
        return broken

    return change_poses(change)


def mirrored_poses(axis: int) -> Fault:
    """Left-handed poses: one axis of world and camera is mirrored."""
    mirror = np.eye(4)
    mirror[axis, axis] = -1
    return change_poses(lambda poses: mirror @ poses @ mirror)


def change_depth(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    """Depth images (H, W) changed and written to a folder."""
    return _change_images(folder, 'depth_path', change)


def change_colors(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    """Colour images (H, W, 3) changed and written to a folder."""
    return _change_images(folder, 'color_path', change)


def _change_images(folder: Path, part: str, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    def fault(frames: Frames) -> Frames:
        folder.mkdir(parents=True, exist_ok=True)
        broken = []
        for frame in frames:
            source = frame.depth_path if part == 'depth_path' else frame.color_path
            image = np.asarray(Image.open(source))
            changed = np.ascontiguousarray(change(image)).astype(image.dtype)
            path = folder / f'{part}.{frame.name}.png'
            Image.fromarray(changed).save(path)
            broken.append(replace(frame, **{part: path}))
        return broken

    return fault


def transpose_rotations(poses: np.ndarray) -> np.ndarray:
    """(N, 4, 4) with the rotation transposed and the translation as it is."""
    broken = poses.copy()
    broken[:, :3, :3] = poses[:, :3, :3].swapaxes(1, 2)
    return broken


def random_fault(rng: np.random.Generator) -> tuple[str, Fault]:
    """A fault of a random kind and strength, and its name."""
    kind = int(rng.integers(9))
    sign = rng.choice([-1.0, 1.0])
    if kind == 0:
        factor = float(np.exp(sign * rng.uniform(np.log(1.05), np.log(8))))
        return f'depth × {factor:.3f}', scale_depth(factor)
    if kind == 1:
        shift = int(sign * rng.integers(1, 4))
        return f'poses late by {shift}', late_poses(shift)
    if kind == 2:
        centimetres, degrees = rng.uniform(2, 20), rng.uniform(0.5, 6)
        fault = noisy_poses(centimetres, degrees, int(rng.integers(1000)))
        return f'noise {centimetres:.1f} cm {degrees:.1f}°', fault
    if kind == 3:
        every = int(rng.integers(3, 9))
        return f'one pose in {every} is foreign', foreign_poses(every)
    if kind == 4:
        length, angle = rng.uniform(0.05, 0.6), rng.uniform(0, 10)
        return f'half moved by {length:.2f} m {angle:.1f}°', drifted_half(length, angle)
    if kind == 5:
        shift, turn = rng.normal(size=3) * 0.15, rng.normal(size=3) * 15
        return f'mounted at {shift.round(2)} m {turn.round(1)}°', other_camera(shift, turn)
    if kind == 6:
        scale = np.exp(rng.uniform(-0.7, 0.7, 2))
        return f'K scaled by {scale.round(2)}', change_intrinsics(
            lambda k: k * np.array([[scale[0], 1, 1], [1, scale[1], 1], [1, 1, 1]])
        )
    if kind == 7:
        share = rng.uniform(-0.3, 0.3, 2)
        return f'K moved by {share.round(2)}', change_intrinsics(
            lambda k: k + k[0, 0] * np.array([[0, 0, share[0]], [0, 0, share[1]], [0, 0, 0]])
        )
    axes = np.eye(3)[rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)
    axes *= np.sign(np.linalg.det(axes))
    motion = np.eye(4)
    motion[:3, :3] = axes
    inverted = bool(rng.integers(2))
    return f'axes {axes.tolist()}, inverted {inverted}', change_poses(
        lambda poses: np.linalg.inv(poses @ motion) if inverted else poses @ motion
    )


def depth_agreement(frames: Frames, tolerance: float = 0.02) -> float:
    """Share of what two neighbouring frames both see in which their depth agrees.

    A slow twin of the doctor's own comparison: one pair and one pixel grid at a time.
    """
    agreeing = testable = 0
    for first, second in pairwise(frames):
        a, b = (np.asarray(Image.open(f.depth_path)) * f.metres for f in (first, second))
        v, u = np.mgrid[2 : a.shape[0] : 7, 2 : a.shape[1] : 7].reshape(2, -1)
        z = a[v, u]
        rays = np.linalg.solve(first.depth_intrinsics, np.stack([u, v, np.ones_like(u)]))
        points = np.concatenate([rays * z, np.ones((1, len(z)))])
        x, y, z, _ = np.linalg.solve(second.pose, first.pose @ points)
        image = second.depth_intrinsics @ np.stack([x, y, z])
        there = (z > 1e-3) & (a[v, u] > 0)
        u2, v2 = np.round(image[:2] / np.where(there, z, 1))
        there &= (u2 >= 0) & (u2 < b.shape[1]) & (v2 >= 0) & (v2 < b.shape[0])
        seen = b[v2[there].astype(int), u2[there].astype(int)]
        open_ = (seen > 0) & (z[there] <= (1 + tolerance) * seen)
        testable += int(open_.sum())
        agreeing += int((open_ & (np.abs(z[there] - seen) <= tolerance * seen)).sum())
    return agreeing / max(1, testable)
