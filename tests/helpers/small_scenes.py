"""A coloured box room with exact depth and classes, small enough to fit a field in seconds."""

import math

import torch
from torch import Tensor

from oneformer3d.fields.fitting.settings import FitSettings
from oneformer3d.fields.scene.arrays import scene_from_arrays
from oneformer3d.fields.scene.batches import FlatViews, RayBatch
from oneformer3d.fields.scene.scene import FieldScene

SIZE = (24, 32)
K = torch.tensor([[18.0, 0, 15.5], [0, 18.0, 11.5], [0, 0, 1]])
HALF = torch.tensor([1.5, 1.2, 1.0])  # half sides of the room, metres
SMALL_FEATURES = dict(num_levels=2, features_per_level=4, log2_hashmap_size=10, max_res=32)
WALLS = ('x', 'y', 'z')  # classes: which way a wall faces
COLORS = torch.tensor([[0.9, 0.2, 0.2], [0.2, 0.8, 0.2], [0.3, 0.3, 0.9]])


def box_views(num_views: int = 8) -> dict[str, list[Tensor]]:
    """Views of the room from near its middle: images, poses, depth, classes, features."""
    v, u = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing='ij')
    pixels = torch.stack((u, v, torch.ones_like(u)), dim=-1).float()
    rays_cam = pixels @ torch.linalg.inv(K).T
    views: dict[str, list[Tensor]] = {name: [] for name in ('images', 'world_from_cam', 'depth')}
    views |= {'semantics': [], 'features': [], 'instances': []}

    for number in range(num_views):
        # the pose: from near the middle, a turn around the vertical
        yaw = 2 * math.pi * number / num_views
        pitch = 0.2 * math.sin(yaw)
        forward = torch.tensor(
            [math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)]
        )
        right = torch.tensor([math.sin(yaw), -math.cos(yaw), 0.0])
        pose = torch.eye(4)
        pose[:3, :3] = torch.stack((right, torch.linalg.cross(forward, right), forward), dim=1)
        pose[:3, 3] = 0.2 * forward

        # the nearest wall that each ray meets
        rays = rays_cam @ pose[:3, :3].T
        distance = (HALF - pose[:3, 3] * rays.sign()) / rays.abs().clamp(min=1e-6)
        depth, wall = distance.min(-1)
        points = pose[:3, 3] + rays * depth[..., None]

        views['images'].append((COLORS[wall] + 0.1 * points.sin()).clamp(0, 1))
        views['world_from_cam'].append(pose)
        views['depth'].append(depth)
        views['semantics'].append(wall)
        views['features'].append(torch.nn.functional.one_hot(wall, 4).float())
        side = (torch.gather(points, -1, wall[..., None])[..., 0] > 0).long()
        views['instances'].append(2 * wall + side)
    return views


def box_scene(num_views: int = 8, **changes) -> FieldScene:
    """The room as a scene; ``name=None`` leaves something out."""
    views = {**box_views(num_views), **changes}
    views.setdefault('intrinsics', [K] * num_views)
    names = WALLS if views.get('semantics') is not None else ()
    return scene_from_arrays(**views, class_names=names, things=(0, 1, 2), name='box')


def view_batch(scene: FieldScene, view: int) -> RayBatch:
    """All pixels of one view, row by row."""
    flat = FlatViews([view], [scene.read(view)], scene.language_scales)
    return flat.take(torch.arange(int(flat.starts[-1])), scene.camera)


def wall_points(num_points: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points (N, 3) on the walls and their classes (N,)."""
    generator = torch.Generator().manual_seed(seed)
    wall = torch.randint(3, (num_points,), generator=generator)
    points = (2 * torch.rand(num_points, 3, generator=generator) - 1) * HALF
    side = 2.0 * torch.randint(2, (num_points,), generator=generator) - 1
    rows = torch.arange(num_points)
    points[rows, wall] = side * HALF[wall]
    return points, wall


def quick_settings(**changes) -> FitSettings:
    """Settings of a small, fast fit."""
    base = dict(
        steps=6,
        batch_rays=256,
        surface_pixels=256,
        coarse_samples=5,
        fine_samples=6,
        view_coarse_samples=20,
        view_fine_samples=12,
        guide_range=0.08,
        # of the optimiser
        learning_rate=2e-2,
        grid_learning_rate=2e-2,
        warmup_steps=5,
        final_rate=0.1,
        # of the scene and the field
        holdout_every=4,
        occupancy_resolution=32,
        save_seconds=1e6,
        field_options=dict(
            num_levels=4, log2_hashmap_size=12, max_resolution=64, features=SMALL_FEATURES
        ),
        loss_weights=dict(empty=0.1, distortion=0.1),
    )
    return FitSettings(**{**base, **changes})
