"""Published settings build as they are; published weights load and compute the same."""

import copy

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, PointData

from oneformer3d.segmentor.oneformer3d import OneFormer3D
from tests.helpers.reference_values import (
    oneformer3d_reference,
    published_parameters,
    published_settings,
)
from tests.helpers.small_models import random_scene, small_s3dis_settings, small_settings

DATASETS = ['scannet', 'scannet200', 's3dis']


@pytest.fixture(scope='module')
def reference():
    return oneformer3d_reference()


@pytest.fixture(scope='module')
def reference_model(reference):
    model = MODELS.build(copy.deepcopy(reference['config']))
    model.load_state_dict(reference['state_dict'], strict=True)
    return model.eval()


@pytest.fixture
def reference_batch(reference):
    samples = []
    for superpoints in reference['superpoints']:
        sample = Det3DDataSample()
        sample.gt_pts_seg = PointData(sp_pts_mask=superpoints)
        samples.append(sample)
    return {'points': list(reference['points'])}, samples


@pytest.mark.parametrize('dataset', DATASETS)
def test_published_settings_build_with_the_published_parameters(dataset):
    settings, listed = published_settings()[dataset], published_parameters(dataset)
    model = MODELS.build(copy.deepcopy(settings))
    assert isinstance(model, OneFormer3D)
    state = model.state_dict()
    shapes = {name: list(value.shape) for name, value in state.items()}
    assert shapes == listed['live_shapes']

    live = {name: torch.rand(value.shape).to(value.dtype) for name, value in state.items()}
    files = [live]
    if listed['published_shapes'] is not None:
        moved = {k: v.permute(1, 2, 3, 4, 0) if v.ndim == 5 else v for k, v in live.items()}
        kernels = {k: list(v.shape) for k, v in moved.items() if v.ndim == 5}
        assert kernels == listed['published_shapes']
        files.append(moved)
    for file in files:
        model.load_state_dict(file, strict=True)
        for name, value in model.state_dict().items():
            assert torch.equal(value, live[name]), name


def test_features_of_superpoints(reference, reference_model, reference_batch):
    with torch.no_grad():
        features, _ = reference_model.extract_feat(*reference_batch)
    for got, expected in zip(features, reference['sp_feats']):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_outputs_of_every_layer(reference, reference_model, reference_batch):
    with torch.no_grad():
        features, _ = reference_model.extract_feat(*reference_batch)
        outputs = reference_model.decoder(features, features)
    for key in ('cls_preds', 'sem_preds', 'masks'):
        for got, expected in zip(outputs[key], reference[key]):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    for layer, expected_layer in zip(outputs['aux_outputs'], reference['aux'], strict=True):
        for key in ('cls_preds', 'masks'):
            for got, expected in zip(layer[key], expected_layer[key]):
                torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_predictions(reference, reference_model, reference_batch):
    predictions = reference_model.predict(*reference_batch)
    for sample, expected in zip(predictions, reference['pred'], strict=True):
        got = sample.pred_pts_seg
        for mine, theirs in zip(got.pts_semantic_mask, expected['pts_semantic_mask']):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(got.pts_instance_mask[1], expected['pts_instance_mask'][1])
        mine = sorted_instances(got.instance_labels, got.pts_instance_mask[0], got.instance_scores)
        theirs = sorted_instances(
            expected['instance_labels'],
            expected['pts_instance_mask'][0],
            expected['instance_scores'],
        )
        assert [x[:2] for x in mine] == [x[:2] for x in theirs]
        np.testing.assert_allclose([x[2] for x in mine], [x[2] for x in theirs], atol=1e-5)


def sorted_instances(labels, masks, scores):
    return sorted((int(x), m.tobytes(), float(s)) for x, m, s in zip(labels, masks, scores))


def test_losses(reference, reference_model, reference_batch):
    """Through ``loss``, from labels of points that give the reference's ground truth."""
    inputs, samples = reference_batch
    for sample, superpoints, gt in zip(samples, reference['superpoints'], reference['gt']):
        semantic_rows, instance_rows = gt['sp_masks'][-21:], gt['sp_masks'][:-21]
        semantic = torch.where(semantic_rows.any(0), semantic_rows.int().argmax(0), 20)
        instance = torch.where(instance_rows.any(0), instance_rows.int().argmax(0), -1)
        sample.gt_pts_seg.pts_semantic_mask = semantic[superpoints]
        sample.gt_pts_seg.pts_instance_mask = instance[superpoints]
    # The reference has every superpoint as a query, in order.
    with torch.no_grad():
        features, superpoints = reference_model.extract_feat(inputs, samples)
        targets = reference_model.build_targets(superpoints, samples)
        for target, gt in zip(targets, reference['gt']):
            assert torch.equal(target.labels_3d, gt['labels'])
            assert torch.equal(target.sp_masks, gt['sp_masks'])
        outputs = reference_model.decoder(features, features)
        in_order = reference_model.criterion(outputs, targets)
        shuffled = reference_model.loss(inputs, samples)
    for losses in (in_order, shuffled):
        assert losses.keys() == reference['loss'].keys()
        for name, expected in reference['loss'].items():
            assert float(losses[name]) == pytest.approx(expected, abs=1e-4)


def test_either_layout_predicts_the_same(reference, reference_model, reference_batch):
    rotated = {
        name: value.permute(1, 2, 3, 4, 0).contiguous() if value.ndim == 5 else value
        for name, value in reference['state_dict'].items()
    }
    model = MODELS.build(copy.deepcopy(reference['config'])).eval()
    model.load_state_dict(rotated, strict=True)
    for a, b in zip(model.state_dict().values(), reference_model.state_dict().values()):
        assert torch.equal(a, b)


@pytest.mark.parametrize('make', [small_settings, small_s3dis_settings])
@pytest.mark.parametrize(('num_points', 'num_superpoints'), [(300, 9), (1, 1), (2, 2)])
def test_small_models_train_and_predict_with_their_backbones(make, num_points, num_superpoints):
    model = MODELS.build(make())
    points, sample = random_scene(num_points, num_superpoints)
    data = {'inputs': {'points': [points]}, 'data_samples': [sample]}
    data = model.data_preprocessor(data, training=True)
    total, _ = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    assert torch.isfinite(total)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    prediction = model.eval()(**data, mode='predict')[0].pred_pts_seg
    assert prediction.pts_semantic_mask[0].shape == (num_points,)


def test_scannet200_settings_train_and_predict():
    settings = small_settings(type='ScanNet200OneFormer3D', data_preprocessor=None)
    for key in ('in_channels', 'num_channels', 'min_spatial_shape'):
        settings.pop(key)
    settings['backbone'] = {'type': 'Res16UNet34C', 'in_channels': 3, 'out_channels': 96}
    settings['decoder']['in_channels'] = 96
    model = MODELS.build(settings)
    points, sample = random_scene(100, 8)
    losses = model.loss({'points': [points - 50]}, [sample])
    sum(losses.values()).backward()
    assert torch.isfinite(sum(losses.values()))
    assert torch.isfinite(model.encoder.backbone.conv0p1s1.kernel.grad).all()
    # A cloud moved by whole strides falls into the same voxels.
    model.eval()
    shift = torch.tensor([16.0, -32.0, 48.0, 0, 0, 0]) * 0.125
    model.encoder.voxel_size = 0.125
    here, there = (model.predict({'points': [p]}, [sample]) for p in (points, points + shift))
    for a, b in zip(here[0].pred_pts_seg.values(), there[0].pred_pts_seg.values()):
        for x, y in zip(a, b) if isinstance(a, list) else [(a, b)]:
            np.testing.assert_allclose(x, y, rtol=1e-4)


@pytest.mark.parametrize('make', [small_settings, small_s3dis_settings])
def test_bfloat16_autocast_through_the_backbone(make):
    model = MODELS.build(make())
    points, sample = random_scene()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss({'points': [points]}, [sample])
    with torch.no_grad():
        exact = model.loss({'points': [points]}, [sample])
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    assert losses['seg_loss'].dtype == torch.float32
    torch.testing.assert_close(losses['seg_loss'].detach(), exact['seg_loss'], rtol=0.1, atol=0)


def test_elastic_coordinates_move_voxels_and_not_features():
    model = MODELS.build(small_settings())
    points, _ = random_scene()
    plain = model.encoder.voxelize({'points': [points]})
    elastic = points[:, :3] / 0.1 + 5 * torch.randn(400, 3)
    moved = model.encoder.voxelize({'points': [points], 'elastic_coords': [elastic]})
    assert moved.spatial_shape != plain.spatial_shape
    expected = torch.cat([points[:, 3:], points[:, :3] - points[:, :3].mean(0)], dim=1)
    for grid in (plain, moved):
        alone = torch.bincount(grid.voxel_of_point)[grid.voxel_of_point] == 1
        torch.testing.assert_close(
            grid.features[grid.voxel_of_point[alone]], expected[alone], rtol=1e-4, atol=1e-5
        )


def test_points_of_another_width_are_refused():
    model = MODELS.build(small_settings())
    with pytest.raises(ValueError, match=r'sample 0: expected points \(N ≥ 1, 6\), got \(4, 5\)'):
        model.encoder({'points': [torch.zeros(4, 5)]})


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match='num_classes=4'):
        MODELS.build(small_settings(num_classes=4))
    with pytest.raises(ValueError, match='thing_cls'):
        MODELS.build(small_s3dis_settings(test_cfg={'stuff_cls': [0, 4], 'thing_cls': [1]}))
    with pytest.raises(ValueError, match='num_sem_cls'):
        MODELS.build(small_s3dis_settings(test_cfg={'stuff_cls': [0, 4], 'num_sem_cls': 4}))
    with pytest.raises(TypeError, match='voxel_sise'):
        MODELS.build(small_settings(voxel_sise=0.1))
