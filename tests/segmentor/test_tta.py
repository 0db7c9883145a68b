"""Averages over views, against the network alone and against a mean computed by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from oneformer3d.registry import MODELS
from oneformer3d.segmentor.postprocess import SceneLogits
from oneformer3d.segmentor.tta import OneFormer3DTTA, add_matched, add_same, shares, view_sum
from tests.helpers.small_models import random_scene, small_s3dis_settings, small_settings

SETTINGS = {'superpoints': small_settings, 'learned queries': small_s3dis_settings}


def turned(points: torch.Tensor, turn: int) -> torch.Tensor:
    """A quarter turn per number, and mirrored for odd ones."""
    angle = turn * np.pi / 2
    rotation = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = points.clone()
    moved[:, :2] = points[:, :2] @ rotation.float().T
    moved[:, 0] *= (-1) ** turn
    return moved


def views(turns: tuple[int, ...], seeds: tuple[int, ...] = (0, 1)) -> dict:
    """A batch of ``TestTimeAug``, a scene for each seed."""
    scenes = [random_scene(seed=seed) for seed in seeds]
    return {
        'inputs': [{'points': [turned(points, turn) for points, _ in scenes]} for turn in turns],
        'data_samples': [[sample for _, sample in scenes] for _ in turns],
    }


def built(kind: str) -> OneFormer3DTTA:
    torch.manual_seed(3)
    settings = SETTINGS[kind]()
    return OneFormer3DTTA(settings).eval()


@pytest.mark.parametrize('kind', SETTINGS)
def test_the_same_view_three_times_is_the_network_alone(kind):
    model, batch = built(kind), views((0, 0, 0))
    alone = model.module.predict(batch['inputs'][0], batch['data_samples'][0])
    merged = model.test_step(batch)
    for expected, actual in zip(alone, merged, strict=True):
        expected, actual = expected.pred_pts_seg, actual.pred_pts_seg
        for one, other in zip(expected.pts_semantic_mask, actual.pts_semantic_mask):
            np.testing.assert_array_equal(one, other)
        for one, other in zip(expected.pts_instance_mask, actual.pts_instance_mask):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(expected.instance_scores, actual.instance_scores, rtol=1e-4)
        np.testing.assert_array_equal(expected.instance_labels, actual.instance_labels)


@pytest.mark.parametrize('kind', SETTINGS)
def test_classes_are_of_the_mean_probability_of_each_point(kind, monkeypatch):
    model, batch = built(kind), views((0, 1, 2))
    means, label_points = [], model.module.label_points

    def remember(logits, units):
        means.append(logits.semantic.softmax(1).numpy())
        return label_points(logits, units)

    monkeypatch.setattr(model.module, 'label_points', remember)
    merged = model.test_step(batch)

    seen = []
    for inputs, samples in zip(batch['inputs'], batch['data_samples']):
        with torch.no_grad():
            outputs, units = model.module.decode_all(inputs, samples)
        logits = [model.module.scene_logits(outputs, i).semantic for i in range(2)]
        seen.append([(x.softmax(1)[ids].numpy(), ids.numpy()) for x, ids in zip(logits, units)])

    for i in range(2):
        assert not np.allclose(seen[0][i][0], seen[1][i][0], atol=1e-4), 'views differ'
        of_point = np.mean([view[i][0] for view in seen], axis=0, dtype=np.float64)
        # of a superpoint, or a voxel of the first view: the mean of its points
        unit = seen[0][i][1]
        sums = np.stack([np.bincount(unit, weights=column) for column in of_point.T], axis=1)
        expected = sums / np.bincount(unit)[:, None]
        np.testing.assert_allclose(means[i], expected, atol=1e-5)
        labels = merged[i].pred_pts_seg.pts_semantic_mask[0]
        np.testing.assert_array_equal(labels, means[i].argmax(1)[unit])


def logits_of_objects(num_queries=9, num_units=20, seed=0) -> tuple[SceneLogits, torch.Tensor]:
    """Queries with a mask of their own each, and 100 points in units."""
    generator = torch.Generator().manual_seed(seed)
    owner = torch.arange(num_units) % num_queries
    noise = torch.rand(num_queries, num_units, generator=generator)
    masks = torch.where(owner == torch.arange(num_queries)[:, None], 4.0, -4.0) + noise
    logits = SceneLogits(
        torch.randn(num_queries, 4, generator=generator),
        masks,
        torch.rand(num_queries, 1, generator=generator),
        torch.randn(num_units, 5, generator=generator),
    )
    return logits, torch.arange(100) % num_units


def test_learned_queries_in_any_order_and_voxels_of_any_number_find_each_other():
    logits, units = logits_of_objects()
    total = view_sum(logits, units)
    order, renamed = torch.randperm(9), torch.randperm(20)
    other = SceneLogits(
        logits.classes[order],
        logits.masks[order][:, renamed],
        logits.scores[order],
        logits.semantic[renamed],
    )
    moved = view_sum(other, renamed.argsort()[units])
    actual = add_matched(total, moved)
    expected = add_same(total, total)
    for name in ('classes', 'masks', 'scores', 'counts', 'semantic'):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name))


def test_a_query_that_no_other_view_has_stays_as_it_was():
    logits, units = logits_of_objects()
    total = view_sum(logits, units)
    lost = replace(total, masks=total.masks.clone())
    lost.masks[4] = 0
    mean = add_matched(total, lost).mean()
    torch.testing.assert_close(mean.masks[4], torch.logit(total.masks[4]))
    torch.testing.assert_close(mean.classes[4], total.classes[4])


def test_shares_count_points():
    units, others = torch.randint(7, (200,)), torch.randint(11, (200,))
    units[:7], others[:11] = torch.arange(7), torch.arange(11)
    expected = np.zeros((7, 11))
    np.add.at(expected, (units.numpy(), others.numpy()), 1)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(shares(units, others).to_dense().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize('kind', SETTINGS)
def test_views_of_other_points_are_refused(kind):
    batch = views((0, 1))
    points, sample = random_scene(num_points=390)
    batch['inputs'][1]['points'][0] = points
    batch['data_samples'][1][0] = sample
    with pytest.raises(ValueError, match='test-time augmentation: '):
        built(kind).test_step(batch)


def test_a_model_of_another_kind_is_refused():
    model = MODELS.build({'type': 'MVPNet', 'use_images': False, 'point_inputs': ('color',)})
    with pytest.raises(TypeError, match='expected a OneFormer3D, got FeatureLifting'):
        OneFormer3DTTA(model)
