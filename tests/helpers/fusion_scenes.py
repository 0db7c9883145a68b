"""A small posed scene and fusion settings shared by the tests of the Bi-Fusion encoder."""

import math

import torch

from oneformer3d.lifting import Camera, PixelPairs, project_pairs
from oneformer3d.structures import PosedViews
from tests.helpers.small_models import random_scene, small_settings

CHANNELS = 12
INTRINSICS = torch.tensor([[30.0, 0.0, 19.5], [0.0, 30.0, 14.5], [0.0, 0.0, 1.0]])
IMAGE_SIZE = (30, 40)


def poses(num_views: int, seed: int = 0) -> torch.Tensor:
    """(V, 4, 4) cameras some 2.5 m from the origin that look at it and miss part of the scene."""
    result = []
    for i in range(num_views):
        angle = 0.6 * i + seed
        back = torch.tensor([math.cos(angle), math.sin(angle), 0.3])
        z = -back / back.norm()
        x = torch.nn.functional.normalize(torch.linalg.cross(z, torch.tensor([0.0, 0, 1])), dim=0)
        pose = torch.eye(4)
        pose[:3, :3] = torch.stack((x, torch.linalg.cross(z, x), z), dim=1)
        pose[:3, 3] = 1.9 * back
        result.append(pose)
    return torch.stack(result) if result else torch.zeros(0, 4, 4)


def views_of(
    points: torch.Tensor, num_views: int = 3, grid=(5, 6), seed: int = 0, **changes
) -> PosedViews:
    """Random feature maps of views of these points."""
    generator = torch.Generator().manual_seed(seed)
    camera = Camera(INTRINSICS, poses(num_views, seed), IMAGE_SIZE)
    empty = torch.zeros(0, dtype=torch.int64)
    pairs = PixelPairs(empty, empty, torch.zeros(0, 2), torch.zeros(0))
    if num_views:
        pairs = project_pairs(points[:, :3], camera)
    settings = {
        'pairs': pairs,
        'world_from_cam': camera.world_from_cam,
        'image_size': IMAGE_SIZE,
        'num_points': len(points),
        'scene_id': f'scene{seed}',
        'frames': tuple(f'{i:05d}' for i in range(num_views)),
        'feat': torch.randn(num_views, CHANNELS, *grid, generator=generator).half(),
        'clip_global': torch.randn(num_views, 7, generator=generator),
    }
    return PosedViews(**{**settings, **changes})


def scene(seed: int = 0, num_points: int = 400, num_views: int = 3):
    """Points, views and data sample of one scene."""
    points, sample = random_scene(num_points=num_points, seed=seed)
    return points, views_of(points, num_views, seed=seed), sample


def batch(*scenes):
    """inputs and data samples of the segmentor."""
    points, views, samples = zip(*scenes)
    return {'points': list(points), 'views': list(views)}, list(samples)


def encoder_settings(**changes) -> dict:
    """Settings of a small Bi-Fusion encoder on a 3D encoder of four channels."""
    settings = {
        'type': 'BiFusionEncoder',
        'encoder_3d': {
            'type': 'SpConvUNetEncoder',
            'backbone': {'type': 'SpConvUNet', 'num_planes': [4, 8], 'return_blocks': True},
            'in_channels': 6,
            'num_channels': 4,
            'voxel_size': 0.1,
            'min_spatial_shape': 16,
        },
        'point_channels': 4,
        'clip_channels': CHANNELS,
    }
    settings.update(changes)
    return settings


def segmentor_settings(**changes) -> dict:
    """Settings of a small segmentor around it."""
    plain = small_settings()
    test_cfg = {k: v for k, v in plain['test_cfg'].items() if k != 'stuff_classes'}
    if changes.get('mode') == 'gate':
        plain['decoder']['in_channels'] = 96
    if changes.get('mode') == 'concat':
        plain['decoder']['side_channels'] = 96
    return {
        'type': 'OneFormer3D',
        'encoder': encoder_settings(**changes),
        'decoder': plain['decoder'],
        'criterion': plain['criterion'],
        'data_preprocessor': plain['data_preprocessor'],
        'num_semantic_classes': 5,
        'stuff_classes': (0, 1),
        'test_cfg': test_cfg,
    }
