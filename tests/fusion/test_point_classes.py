"""Classes of single fused points: against the formula, and who feels it."""

import math

import pytest
import torch
from mmdet3d.structures import Det3DDataSample

from oneformer3d.fusion.point_classes import PointSemanticCriterion
from oneformer3d.registry import MODELS
from oneformer3d.structures import point_labels
from tests.helpers.fusion_scenes import batch, encoder_settings, scene, segmentor_settings

SETTINGS = {'num_classes': 5, 'loss_weight': 2.0}


def test_equals_the_formula():
    module = PointSemanticCriterion(3, in_channels=4, loss_weight=2.0)
    fused, labels = torch.randn(5, 4), torch.tensor([0, 2, 3, 1, 3])  # 3 is unlabeled
    logits = module.head(fused)
    terms = [
        math.log(sum(math.exp(x) for x in logits[i].tolist())) - logits[i, label].item()
        for i, label in enumerate(labels.tolist())
        if label < 3
    ]
    loss = module(fused, labels)['point_semantic_loss']
    assert loss.item() == pytest.approx(2 * sum(terms) / 3, rel=1e-5)


@pytest.mark.parametrize('num_points', [0, 4])
def test_costs_nothing_without_labels(num_points):
    module = PointSemanticCriterion(3, in_channels=4)
    fused = torch.randn(num_points, 4, requires_grad=True)
    loss = module(fused, torch.full((num_points,), 3))['point_semantic_loss']
    loss.backward()
    assert loss.item() == 0
    assert not fused.grad.any()


def test_reaches_all_of_the_image_branch_in_the_segmentor():
    model = MODELS.build(segmentor_settings(mode='concat', point_semantic=SETTINGS)).train()
    losses = model.loss(*batch(scene(0), scene(1)))
    plain = MODELS.build(segmentor_settings(mode='concat')).train()
    assert losses.keys() - plain.loss(*batch(scene(0), scene(1))).keys() == {'point_semantic_loss'}
    losses['point_semantic_loss'].backward()
    for name in ('image_branch', 'fusion_gate', 'geo_pe', 'point_semantic'):
        for parameter in getattr(model.encoder, name).parameters():
            assert parameter.grad is not None
            assert torch.isfinite(parameter.grad).all()
        assert any(p.grad.any() for p in getattr(model.encoder, name).parameters())
    assert all(p.grad is None for p in model.decoder.parameters())


def test_only_seen_points_count():
    encoder = MODELS.build(encoder_settings(point_semantic=SETTINGS)).eval()
    inputs, samples = batch(scene(0))
    points = encoder(inputs, samples)
    expected = encoder.auxiliary_losses(points, samples)['point_semantic_loss']
    unseen = ~points.lifted.valid
    assert unseen.any()
    samples[0].gt_pts_seg.pts_semantic_mask = torch.where(
        unseen, 4, samples[0].gt_pts_seg.pts_semantic_mask
    )
    assert torch.equal(encoder.auxiliary_losses(points, samples)['point_semantic_loss'], expected)


def test_missing_labels_are_named():
    encoder = MODELS.build(encoder_settings(point_semantic=SETTINGS)).eval()
    inputs, samples = batch(scene(0))
    with pytest.raises(ValueError, match='sample 0: gt_pts_seg has no pts_semantic_mask'):
        encoder.auxiliary_losses(encoder(inputs, samples))
    with pytest.raises(ValueError, match='sample 1'):
        point_labels([*samples, Det3DDataSample()], 'pts_semantic_mask')
