"""A small analytic scene for the tests of this folder: views of a room, exact depth."""

import math

import torch

from oneformer3d.lifting import Camera


def look_at_poses(num_views: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Poses (V, 4, 4) near the middle of the room, one turn of them."""
    poses = []
    for index in range(num_views):
        yaw, pitch = 2 * math.pi * index / max(1, num_views) + 0.3, 0.2 * (-1) ** index
        cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
        pose = torch.eye(4, dtype=dtype)
        rotation_y = torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]], dtype=dtype)
        rotation_x = torch.tensor([[1, 0, 0], [0, cp, -sp], [0, sp, cp]], dtype=dtype)
        pose[:3, :3] = rotation_y @ rotation_x
        pose[:3, 3] = torch.tensor([0.3 * math.sin(yaw), 0.1, 0.2], dtype=dtype)
        poses.append(pose)
    return torch.stack(poses) if poses else torch.zeros(0, 4, 4, dtype=dtype)


def make_camera(num_views: int = 4, dtype: torch.dtype = torch.float64) -> Camera:
    """Views of 48 x 64 pixels, about 62 degrees wide, off-centre principal point."""
    intrinsics = torch.tensor(
        [[53.0, 0.0, 30.2], [0.0, 54.0, 24.1], [0.0, 0.0, 1.0]], dtype=dtype
    ).expand(num_views, 3, 3)
    return Camera(intrinsics, look_at_poses(num_views, dtype), (48, 64))


def room_points(num_points: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Points inside and on the walls of the 4 x 2.4 x 5 m room."""
    half = torch.tensor([2.0, 1.2, 2.5], dtype=dtype)
    points = (2 * torch.rand(num_points, 3, dtype=dtype) - 1) * half
    on_wall = torch.arange(num_points) % 2 == 0
    axis = torch.randint(0, 3, (num_points,))
    rows = torch.arange(num_points)[on_wall]
    points[rows, axis[on_wall]] = half[axis[on_wall]] * points[rows, axis[on_wall]].sign()
    return points


def room_depth(camera: Camera) -> torch.Tensor:
    """Exact z-depth (V, H, W) of the room's walls, with a few missing pixels."""
    half = torch.tensor([2.0, 1.2, 2.5], dtype=camera.intrinsics.dtype)
    ones = torch.ones(*camera.batch_shape, *camera.image_size, dtype=half.dtype)
    centre = camera.world_from_cam[:, None, None, :3, 3]
    direction = camera.unproject(ones) - centre
    depth = ((half * direction.sign() - centre) / direction).amin(-1)
    depth[..., ::7, ::5] = 0
    return depth


def column_row_maps(map_size: tuple[int, int], image_size: tuple[int, int]) -> torch.Tensor:
    """(2, h, w) map that holds at each cell the image pixel (u, v) of the cell's centre."""
    (h, w), (height, width) = map_size, image_size
    u = (torch.arange(w, dtype=torch.float64) + 0.5) * width / w - 0.5
    v = (torch.arange(h, dtype=torch.float64) + 0.5) * height / h - 0.5
    return torch.stack((u.expand(h, w), v[:, None].expand(h, w)))
