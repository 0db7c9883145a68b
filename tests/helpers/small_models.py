"""Tiny segmentors and scenes shared by the tests of the segmentor."""

import torch
from mmdet3d.structures import Det3DDataSample, PointData

# Each of these registers what settings refer to by name.

COSTS = [
    {'type': 'QueryClassificationCost', 'weight': 0.5},
    {'type': 'MaskBCECost', 'weight': 1.0},
    {'type': 'MaskDiceCost', 'weight': 1.0},
]


def small_settings(**changes) -> dict:
    """Model settings in the published ScanNet style: 3 classes, of which 0 and 1 are stuff."""
    settings = {
        'type': 'ScanNetOneFormer3D',
        'data_preprocessor': {'type': 'Det3DDataPreprocessor_'},
        'in_channels': 6,
        'num_channels': 4,
        'voxel_size': 0.1,
        'num_classes': 3,
        'min_spatial_shape': 16,
        'query_thr': 0.5,
        'backbone': {'type': 'SpConvUNet', 'num_planes': [4, 8], 'return_blocks': True},
        'decoder': {
            'type': 'ScanNetQueryDecoder',
            'num_layers': 2,
            'num_instance_queries': 0,
            'num_semantic_queries': 0,
            'num_instance_classes': 3,
            'num_semantic_classes': 5,
            'in_channels': 4,
            'd_model': 16,
            'num_heads': 2,
            'hidden_dim': 16,
        },
        'criterion': {
            'type': 'ScanNetUnifiedCriterion',
            'num_semantic_classes': 5,
            'sem_criterion': {
                'type': 'ScanNetSemanticCriterion',
                'ignore_index': 5,
                'loss_weight': 0.2,
            },
            'inst_criterion': {
                'type': 'InstanceCriterion',
                'matcher': {'type': 'SparseMatcher', 'costs': COSTS, 'topk': 1},
                'loss_weight': [0.5, 1.0, 1.0, 0.5],
                'num_classes': 3,
                'non_object_weight': 0.1,
            },
        },
        'train_cfg': {},
        'test_cfg': {'topk_insts': 20, 'npoint_thr': 2, 'stuff_classes': [0, 1]},
    }
    settings.update(changes)
    return settings


def small_s3dis_settings(**changes) -> dict:
    """Model settings in the published S3DIS style: 5 classes, all with instances, stuff 0 and 4."""
    settings = small_settings(type='S3DISOneFormer3D', num_classes=5)
    settings.pop('query_thr')
    settings['data_preprocessor'] = {'type': 'Det3DDataPreprocessor'}
    decoder = settings['decoder']
    decoder.pop('num_semantic_classes')
    decoder.update(
        type='QueryDecoder',
        num_classes=5,
        num_instance_classes=5,
        num_instance_queries=6,
        num_semantic_queries=5,
        objectness_flag=True,
    )
    criterion = settings['criterion']
    criterion['type'] = 'S3DISUnifiedCriterion'
    criterion['sem_criterion'] = {'type': 'S3DISSemanticCriterion', 'loss_weight': 5.0}
    criterion['inst_criterion'].update(
        matcher={'type': 'HungarianMatcher', 'costs': COSTS}, num_classes=5
    )
    settings['test_cfg'] = {
        'topk_insts': 20,
        'npoint_thr': 2,
        'num_sem_cls': 5,
        'stuff_cls': [0, 4],
        'thing_cls': [1, 2, 3],
    }
    settings.update(changes)
    return settings


def random_scene(
    num_points: int = 400,
    num_superpoints: int = 12,
    num_instances: int = 3,
    num_classes: int = 5,
    seed: int = 0,
) -> tuple[torch.Tensor, Det3DDataSample]:
    """Points (N, 6) and a data sample whose instances are whole superpoints of classes 2…4."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(num_points, 6, generator=generator) * 2 - 1
    superpoints = torch.arange(num_points) % num_superpoints
    instance = torch.where(superpoints < num_instances, superpoints, -1)
    semantic = torch.where(instance >= 0, 2 + instance % (num_classes - 2), superpoints % 2)
    semantic[superpoints == num_superpoints - 1] = num_classes
    instance[superpoints == num_superpoints - 1] = -1
    sample = Det3DDataSample(metainfo={'scene_id': f'random_{seed}'})
    sample.gt_pts_seg = PointData(
        sp_pts_mask=superpoints, pts_semantic_mask=semantic, pts_instance_mask=instance
    )
    return points, sample
