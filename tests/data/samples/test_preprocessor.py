"""The data preprocessor keeps lists of tensors and only moves them."""

import pytest
import torch

from oneformer3d.data.samples.preprocessor import SceneDataPreprocessor
from oneformer3d.registry import MODELS
from tests.helpers.small_models import random_scene


def test_is_found_by_its_published_name():
    assert isinstance(MODELS.build({'type': 'Det3DDataPreprocessor_'}), SceneDataPreprocessor)
    assert SceneDataPreprocessor().state_dict() == {}


def test_every_input_is_moved_and_kept():
    (points, sample), (more_points, more_sample) = random_scene(), random_scene(50, seed=1)
    data = {
        'inputs': {
            'points': [points, more_points],
            'elastic_coords': [points[:, :3], None],
            'views': {'feat': [torch.zeros(2, 3), torch.zeros(0, 3)]},
        },
        'data_samples': [sample, more_sample],
    }
    preprocessor = SceneDataPreprocessor().to('meta')
    moved = preprocessor(data, training=True)
    assert [x.device.type for x in moved['inputs']['points']] == ['meta', 'meta']
    assert moved['inputs']['points'][1].shape == (50, 6)
    assert moved['inputs']['elastic_coords'][1] is None
    assert moved['inputs']['views']['feat'][1].device.type == 'meta'
    assert moved['data_samples'][0].gt_pts_seg.sp_pts_mask.device.type == 'meta'
    assert moved['data_samples'][1].scene_id == 'random_1'
    assert points.device.type == sample.gt_pts_seg.sp_pts_mask.device.type == 'cpu'


def test_data_samples_may_be_missing():
    assert SceneDataPreprocessor()({'inputs': {'points': []}})['data_samples'] is None


def test_batches_that_do_not_fit_are_refused():
    points, sample = random_scene()
    preprocessor = SceneDataPreprocessor()
    with pytest.raises(ValueError, match="expected 'points'"):
        preprocessor({'inputs': {'point': [points]}})
    with pytest.raises(ValueError, match="expected 'points'"):
        preprocessor({'inputs': {'points': points}})
    with pytest.raises(ValueError, match="1 point clouds but 2 entries of 'elastic_coords'"):
        preprocessor({'inputs': {'points': [points], 'elastic_coords': [points, points]}})
    with pytest.raises(ValueError, match='1 point clouds but 2 data samples'):
        preprocessor({'inputs': {'points': [points]}, 'data_samples': [sample, sample]})
