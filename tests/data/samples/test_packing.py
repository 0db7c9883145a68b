"""Packing: the sample that models and metrics rely on."""

import numpy as np
import pytest
import torch

from oneformer3d.data.samples.packing import PackSceneInputs


def results_of(num_points: int = 12) -> dict:
    return {
        'scene_id': 'scene0000_00',
        'lidar_path': '/data/points/scene0000_00.bin',
        'axis_align_matrix': np.eye(4).tolist(),
        'augmented_from_original': np.diag([-1.0, 1, 1, 1]),
        'points': np.random.default_rng(0).uniform(size=(num_points, 6)).astype(np.float32),
        'sp_pts_mask': np.arange(num_points) // 3,
        'pts_semantic_mask': np.arange(num_points) % 4,
        'pts_instance_mask': np.arange(num_points) % 5 - 1,
    }


def test_sample() -> None:
    results = results_of()
    packed = PackSceneInputs()(results)
    assert set(packed) == {'inputs', 'data_samples'}
    assert set(packed['inputs']) == {'points'}
    assert packed['inputs']['points'].dtype == torch.float32
    assert np.array_equal(packed['inputs']['points'].numpy(), results['points'])
    sample = packed['data_samples']
    for key in ('sp_pts_mask', 'pts_semantic_mask', 'pts_instance_mask'):
        mask = getattr(sample.gt_pts_seg, key)
        assert mask.dtype == torch.int64
        assert np.array_equal(mask.numpy(), results[key])
    assert sample.scene_id == 'scene0000_00'
    assert sample.lidar_path == results['lidar_path']
    assert sample.augmented_from_original.dtype == np.float32
    assert sample.augmented_from_original[0, 0] == -1
    assert np.array_equal(sample.axis_align_matrix, np.eye(4))
    assert 'eval_ann_info' not in sample


def test_elastic_coords_and_annotations() -> None:
    annotations = {'pts_semantic_mask': np.zeros(12, np.int64)}
    coords = np.arange(36, dtype=np.float64).reshape(3, 12).T  # not contiguous, not float32
    packed = PackSceneInputs()(
        {**results_of(), 'elastic_coords': coords, 'eval_ann_info': annotations}
    )
    assert packed['inputs']['elastic_coords'].dtype == torch.float32
    assert np.array_equal(packed['inputs']['elastic_coords'].numpy(), coords)
    assert packed['data_samples'].eval_ann_info is annotations


def test_scene_without_masks() -> None:
    results = {key: results_of()[key] for key in ('scene_id', 'points')}
    sample = PackSceneInputs()(results)['data_samples']
    assert len(sample.gt_pts_seg.keys()) == 0
    assert sample.metainfo_keys() == ['scene_id']


@pytest.mark.parametrize('key', ['sp_pts_mask', 'pts_semantic_mask', 'pts_instance_mask'])
def test_length_mismatch(key: str) -> None:
    results = results_of()
    results[key] = results[key][:-1]
    with pytest.raises(ValueError, match=f'scene0000_00: {key} has 11 rows for 12 points'):
        PackSceneInputs()(results)


def test_elastic_length_mismatch() -> None:
    with pytest.raises(ValueError, match='elastic_coords has 3 rows for 12 points'):
        PackSceneInputs()({**results_of(), 'elastic_coords': np.zeros((3, 3))})
