"""Training of the Bi-Fusion encoder: with and without views, its losses, what moves."""

import copy
from dataclasses import replace

import pytest
import torch

from oneformer3d.fusion.encoder import MODES
from tests.helpers.bi_fusion_models import CONS, build, build_segmentor, opened
from tests.helpers.fusion_scenes import batch, scene


@pytest.mark.parametrize('mode', MODES)
def test_training_without_views_sees_what_a_scan_without_images_gives(mode):
    encoder = opened(build(mode=mode, train_without_views=True)).train()
    inputs = batch(scene(0), scene(1))[0]
    points = encoder(inputs)
    alone = encoder({'points': inputs['points']})
    torch.testing.assert_close(points.without_views, alone.features)
    assert not torch.allclose(points.features, alone.features)
    assert encoder.eval()(inputs).without_views is None


@pytest.mark.parametrize('mode', MODES)
def test_training_without_views_takes_the_mean_of_both_losses(mode):
    model = opened(build_segmentor(mode=mode)).train()
    model.query_thr = 1.0  # all superpoints are queries, whatever is drawn
    inputs, samples = batch(scene(0), scene(1))
    with_views = model.loss(inputs, samples)
    without = model.loss({'points': inputs['points']}, samples)
    model.encoder.train_without_views = True
    both = model.loss(inputs, samples)
    names = [name for name in both if 'loss' in name]
    assert names
    for name in names:
        torch.testing.assert_close(
            both[name], (with_views[name] + without[name]) / 2, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize('mode', MODES)
def test_every_parameter_is_there_from_the_start_and_moves(mode):
    model = build_segmentor(mode=mode, clip_cons=CONS, use_tiny_sa_2d=True).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(2):
        losses = model.loss(*batch(scene(2 * step), scene(2 * step + 1)))
        total, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    after = model.state_dict()
    assert after.keys() == before.keys()
    parameters = {
        name.replace('encoder.points_3d.', '').replace('encoder.', '')
        for name, _ in model.named_parameters()
    }
    assert parameters <= before.keys()
    for name in parameters:
        assert not torch.equal(after[name], before[name]), name


def test_clip_cons_reaches_the_fusion_at_once():
    encoder = build(clip_cons=CONS).train()
    losses = encoder.auxiliary_losses(encoder(batch(scene(0), scene(1))[0]))
    assert losses['clip_cons_loss'] > 0
    assert losses['cross_view_loss'] > 0
    (losses['clip_cons_loss'] + losses['cross_view_loss']).backward()
    for name in ('fusion_gate', 'image_branch', 'tiny_sa', 'point_linear', 'geo_pe', 'points_3d'):
        for key, parameter in getattr(encoder, name).named_parameters():
            assert parameter.grad is not None, f'{name}.{key}'
            assert parameter.grad.abs().max() > 0, f'{name}.{key}'
    assert encoder.out.weight.grad is None


def test_clip_cons_targets_come_from_the_frozen_map():
    """Hiding the pixels from the network leaves the targets; other maps change them."""
    encoder = build(clip_cons={**CONS, 'view_weight': 0.0})
    points, views, _ = scene()

    def loss_of(seen):
        return encoder.auxiliary_losses(encoder({'points': [points], 'views': [seen]}))[
            'clip_cons_loss'
        ]

    hidden = replace(views, pixels_masked=True)
    other = replace(hidden, feat=torch.randn(views.feat.shape))
    assert not torch.allclose(loss_of(hidden), loss_of(other))


def test_mixed_precision():
    """Autocast around the whole model, as the runner's wrapper does it, and its backward pass."""
    model = build_segmentor(clip_cons=CONS, use_tiny_sa_2d=True).train()
    inputs, samples = batch(scene(0), scene(1))
    torch.manual_seed(0)
    full = model.loss(inputs, samples)
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = model.loss(inputs, samples)
    for name in ('clip_cons_loss', 'coverage', 'conf_mean', 'gate_mean'):
        torch.testing.assert_close(half[name], full[name], atol=0.02, rtol=0.05)
    model.parse_losses(half)[0].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_statistics():
    encoder = build()
    inputs, _ = batch(scene(0), scene(1, num_views=0))
    result = encoder(inputs)
    metrics = encoder.auxiliary_losses(result)
    assert not any('loss' in name for name in metrics)
    num_pairs, seen = len(inputs['views'][0].pairs), result.lifted.valid.sum()
    torch.testing.assert_close(metrics['coverage'], seen / 800)
    torch.testing.assert_close(metrics['valid_rate'], torch.tensor(num_pairs / (400 * 3)))
    torch.testing.assert_close(metrics['views_per_point'], num_pairs / seen)
    torch.testing.assert_close(metrics['gate_mean'], result.gate[result.lifted.valid].mean())
    model = build_segmentor()
    total, logged = model.parse_losses(model.loss(*batch(scene(0), scene(1))))
    torch.testing.assert_close(total, logged['inst_loss'] + logged['seg_loss'])
    assert set(metrics) <= set(logged)
