"""A box-shaped room rendered in closed form into posed RGB-D frames, written in three layouts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)  # H, W
K = np.array([[40.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]])
ROOM = np.array([4.0, 3.0, 2.5])  # metres; walls are coloured by their normal
WALL_COLORS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])


@dataclass(frozen=True)
class View:
    """One frame: pose (4, 4), colour (H, W, 3) uint8, depth (H, W) uint16 millimetres."""

    world_from_cam: np.ndarray
    color: np.ndarray
    depth: np.ndarray


def render_views(num_views: int = 6) -> list[View]:
    """Views of a camera in the middle of the room that turns about the vertical, z up."""
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    rays_cam = np.stack((u, v, np.ones_like(u)), -1) @ np.linalg.inv(K).T
    views = []
    for yaw in np.arange(num_views) * 2 * np.pi / num_views + 0.3:
        forward = np.array([np.cos(yaw), np.sin(yaw), 0.0])
        down = np.array([0.0, 0.0, -1.0])
        pose = np.eye(4)
        pose[:3, :3] = np.stack((np.cross(down, forward), down, forward), axis=1)
        pose[:3, 3] = ROOM / 2
        rays = rays_cam @ pose[:3, :3].T
        # distance along the ray to the farther wall of each axis, as seen from the middle
        with np.errstate(divide='ignore'):
            distances = (ROOM / 2) / np.abs(rays)
        axis = distances.argmin(-1)
        depth = np.round(distances.min(-1) * 1000).astype(np.uint16)
        views.append(View(pose, WALL_COLORS[axis].astype(np.uint8), depth))
    return views


def distance_to_walls(points: np.ndarray) -> np.ndarray:
    """Distance (N,) of points to the nearest wall, floor or ceiling."""
    return np.minimum(np.abs(points), np.abs(points - ROOM)).min(-1)


def write_seven_scenes(folder: Path, views: list[View]) -> Path:
    """Write frames as 7-Scenes does, missing depth as 65535."""
    folder.mkdir(parents=True)
    np.savetxt(folder / 'camera-intrinsics.txt', K)
    for index, view in enumerate(views):
        stem = f'{folder}/frame-{index * 20:06d}'
        Image.fromarray(view.color).save(f'{stem}.color.jpg', quality=95)
        depth = view.depth.copy()
        depth[0, 0] = 65535
        Image.fromarray(depth).save(f'{stem}.depth.png')
        np.savetxt(f'{stem}.pose.txt', view.world_from_cam)
    return folder


def write_exported_scannet(folder: Path, views: list[View]) -> Path:
    """Write frames as ScanNet's exporter does, colour at twice the size of depth."""
    for name in ('color', 'depth', 'pose', 'intrinsic'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    twice = np.diag([2.0, 2, 1, 1])
    twice[:2, 2] = 0.5
    padded = np.eye(4)
    padded[:3, :3] = K
    np.savetxt(folder / 'intrinsic' / 'intrinsic_depth.txt', padded)
    color_K = np.eye(4)
    color_K[:3, :3] = twice[:3, :3] @ K
    np.savetxt(folder / 'intrinsic' / 'intrinsic_color.txt', color_K)
    for index, view in enumerate(views):
        color = view.color.repeat(2, 0).repeat(2, 1)
        Image.fromarray(color).save(folder / 'color' / f'{index}.jpg', quality=95)
        Image.fromarray(view.depth).save(folder / 'depth' / f'{index}.png')
        np.savetxt(folder / 'pose' / f'{index}.txt', view.world_from_cam)
    return folder


def write_posed_images(folder: Path, views: list[View]) -> Path:
    """Write frames in this package's own layout."""
    folder.mkdir(parents=True)
    np.savetxt(folder / 'intrinsic.txt', K)
    for index, view in enumerate(views):
        Image.fromarray(view.color).save(folder / f'{index:05d}.jpg', quality=95)
        Image.fromarray(view.depth).save(folder / f'{index:05d}.png')
        Image.fromarray(view.depth).save(folder / f'{index:05d}.semantic.png')
        np.savetxt(folder / f'{index:05d}.txt', view.world_from_cam)
    return folder
