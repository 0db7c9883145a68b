"""Small rooms of boxes on a floor, and a segmentor that learns them in seconds."""

import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample, PointData

from tests.helpers.small_models import small_settings

FLOOR, WALL, LOW_BOX, TALL_BOX = range(4)
SPACING = 0.08  # metres between points
VOXEL = 0.1
NOISE = 0.01


def box_room(seed: int) -> tuple[torch.Tensor, Det3DDataSample]:
    """Points (N, 6) of a room of 3 × 3 m and its labels; a superpoint is a wall or a whole box."""
    generator = np.random.default_rng(seed)
    surfaces = [
        (_patch(generator, (0, 0, 0), (3, 0, 0), (0, 3, 0)), FLOOR, -1),
        (_patch(generator, (0, 0, 0), (3, 0, 0), (0, 0, 1.6)), WALL, -1),
        (_patch(generator, (0, 0, 0), (0, 3, 0), (0, 0, 1.6)), WALL, -1),
    ]
    # a low and a tall box, each in a cell of a 3 × 3 board
    for instance, cell in enumerate(generator.choice(9, 2, replace=False)):
        tall = bool(instance)
        size = np.array([*generator.uniform(0.4, 0.6, 2), 1.1 if tall else 0.3])
        corner = np.array([cell // 3 + 0.3, cell % 3 + 0.3, 0]) + generator.uniform(-0.1, 0.1, 3)
        corner[2] = 0
        kind = TALL_BOX if tall else LOW_BOX
        surfaces.append((np.concatenate(_box(generator, corner, size)), kind, instance))

    xyz = np.concatenate([points for points, _, _ in surfaces])
    sizes = [len(points) for points, _, _ in surfaces]
    superpoint, semantic, instance = (
        np.repeat(values, sizes)
        for values in (range(len(surfaces)), [f[1] for f in surfaces], [f[2] for f in surfaces])
    )
    rgb = generator.uniform(-0.3, 0.3, xyz.shape)
    points = torch.from_numpy(np.concatenate([xyz, rgb], 1)).float()
    return points, labelled(superpoint, semantic, instance)


def labelled(superpoint, semantic, instance) -> Det3DDataSample:
    """A data sample with these labels (N,)."""
    sample = Det3DDataSample(metainfo={'scene_id': 'boxes'})
    sample.gt_pts_seg = PointData(
        sp_pts_mask=torch.as_tensor(superpoint),
        pts_semantic_mask=torch.as_tensor(semantic),
        pts_instance_mask=torch.as_tensor(instance),
    )
    return sample


def with_strays(points, sample, strays: torch.Tensor):
    """The room with more points (n, 3), each its own superpoint without a label."""
    count = len(strays)
    truth = sample.gt_pts_seg
    first = int(truth.sp_pts_mask.max()) + 1
    extra = torch.cat([strays, torch.zeros(count, 3)], 1).float()
    return torch.cat([points, extra]), labelled(
        torch.cat([truth.sp_pts_mask, first + torch.arange(count)]),
        torch.cat([truth.pts_semantic_mask, torch.full((count,), 4)]),
        torch.cat([truth.pts_instance_mask, torch.full((count,), -1)]),
    )


def box_settings(random_grid_start: bool) -> dict:
    """A segmentor of box rooms: two stuff and two thing classes, a U-Net of four levels."""
    settings = small_settings(num_classes=2)
    criterion = settings['criterion']
    criterion['num_semantic_classes'] = criterion['sem_criterion']['ignore_index'] = 4
    criterion['sem_criterion']['loss_weight'] = 1.0
    criterion['inst_criterion']['num_classes'] = 2
    decoder = settings['decoder']
    decoder.update(
        type='ScanNetQueryDecoder',
        num_instance_classes=2,
        num_semantic_classes=4,
        in_channels=16,
        d_model=32,
        hidden_dim=64,
    )
    return {
        'type': 'OneFormer3D',
        'encoder': {
            'type': 'SpConvUNetEncoder',
            'backbone': {'type': 'SpConvUNet', 'num_planes': [16, 16, 24, 32], 'block_reps': 1},
            'num_channels': 16,
            'voxel_size': VOXEL,
            'min_spatial_shape': 16,
            'random_grid_start': random_grid_start,
        },
        'decoder': decoder,
        'criterion': criterion,
        'data_preprocessor': settings['data_preprocessor'],
        'num_semantic_classes': 4,
        'stuff_classes': (FLOOR, WALL),
        'test_cfg': {'topk_insts': 20, 'npoint_thr': 5},
    }


def _patch(generator, corner, first, second) -> np.ndarray:
    """Points of a parallelogram, jittered about its plane."""
    corner, first, second = (np.asarray(x, float) for x in (corner, first, second))
    count = int(np.linalg.norm(first) * np.linalg.norm(second) / SPACING**2)
    a, b = generator.random((2, count, 1))
    return corner + a * first + b * second + generator.normal(0, NOISE, (count, 3))


def _box(generator, corner, size) -> list[np.ndarray]:
    """The top and the four sides of an upright box."""
    x, y, z = np.diag(size)
    return [
        _patch(generator, corner + z, x, y),
        _patch(generator, corner, x, z),
        _patch(generator, corner + y, x, z),
        _patch(generator, corner, y, z),
        _patch(generator, corner + x, y, z),
    ]
