"""A walk through a furnished room, rendered in closed form into posed RGB-D frames.

The camera moves smoothly, so that frames can be shifted in time; depth carries noise that grows
with its square, as that of a structured-light sensor; colour is a pattern fixed in space.
"""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (120, 160)  # H, W
K = np.array([[130.0, 0, 82.5], [0, 136.0, 57.5], [0, 0, 1]])
ROOM = (np.zeros(3), np.array([5.0, 4.0, 2.6]))
_BOXES = (
    ((0.2, 1.2, 0.0), (1.0, 2.6, 0.75)),
    ((3.9, 0.2, 0.0), (4.9, 1.3, 1.1)),
    ((2.2, 3.2, 0.0), (3.4, 3.9, 1.8)),
    ((4.2, 2.4, 0.0), (4.8, 3.0, 0.45)),
    ((1.2, 0.1, 0.0), (2.0, 0.6, 2.0)),
)


def walk_poses(num_frames: int, step: float = 0.22) -> np.ndarray:
    """(N, 4, 4) ``world_from_cam`` of a camera that walks a loop and looks around."""
    poses = []
    for t in np.arange(num_frames) * step:
        center = [2.4 + 0.5 * np.cos(0.6 * t), 2.0 + 0.4 * np.sin(0.5 * t), 1.4 + 0.2 * np.sin(t)]
        yaw, pitch, roll = 0.7 * t, 0.25 + 0.2 * np.sin(0.8 * t), 0.08 * np.sin(1.3 * t)
        forward = np.array(
            [np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)]
        )
        right = np.cross(forward, [0.0, 0, 1])
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        turned = np.cos(roll) * right + np.sin(roll) * down
        pose = np.eye(4)
        pose[:3, :3] = np.stack([turned, np.cross(forward, turned), forward], axis=1)
        pose[:3, 3] = center
        poses.append(pose)
    return np.array(poses)


def render(pose: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colour (H, W, 3) uint8 and depth (H, W) uint16 in millimetres of one view."""
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    rays_cam = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T
    rays, origin = rays_cam @ pose[:3, :3].T, pose[:3, 3]
    with np.errstate(divide='ignore', invalid='ignore'):
        # the room is left where the first of its far walls is met, a box entered by the slab method
        depth = np.max([(bound - origin) / rays for bound in ROOM], axis=0).min(-1)
        thing = np.zeros(SIZE)
        for number, (low, high) in enumerate(_BOXES):
            planes = [(np.array(bound) - origin) / rays for bound in (low, high)]
            enter, leave = np.min(planes, axis=0).max(-1), np.max(planes, axis=0).min(-1)
            hit = (enter < leave) & (enter > 0.05) & (enter < depth)
            depth, thing = np.where(hit, enter, depth), np.where(hit, number + 1, thing)

    points = origin + rays * depth[..., None]
    waves = np.sin(points @ np.array([[2.1, 5.3, 9.0], [4.4, 1.7, -6.0], [3.0, 7.1, 4.0]]))
    color = 110 + 22 * waves + 18 * (thing % 3)[..., None] + 30 * (thing[..., None] > 0)
    noisy = depth + rng.normal(size=SIZE) * 0.0015 * depth**2
    return color.clip(0, 255).astype(np.uint8), np.round(1000 * noisy).astype(np.uint16)


def write_walk(folder: Path, num_frames: int = 20, step: float = 0.22) -> Path:
    """Write a walk in the layout of 7-Scenes."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    np.savetxt(folder / 'camera-intrinsics.txt', K)
    for index, pose in enumerate(walk_poses(num_frames, step)):
        color, depth = render(pose, rng)
        stem = f'{folder}/frame-{index:06d}'
        Image.fromarray(color).save(f'{stem}.color.png')
        Image.fromarray(depth).save(f'{stem}.depth.png')
        np.savetxt(f'{stem}.pose.txt', pose)
    return folder
