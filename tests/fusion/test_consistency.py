"""ClipCons: what it rewards, what it punishes, and who feels it."""

import pytest
import torch

from oneformer3d.fusion.consistency import (
    ClipConsCriterion,
    centred,
    coverage_weights,
    cross_view_distance,
)

NUM_POINTS = 64


def criterion(**changes) -> ClipConsCriterion:
    settings = {
        'in_channels': 6,
        'target_channels': 6,
        'loss_weight': 1.0,
        'view_weight': 1.0,
        'warmup_iters': 0,
    }
    return ClipConsCriterion(**{**settings, **changes})


def identity_head(module: ClipConsCriterion) -> ClipConsCriterion:
    with torch.no_grad():
        module.head.weight.copy_(torch.eye(6))
        module.head.bias.zero_()
    return module


def arguments(fused=None, target=None, view_features=None, points=None) -> dict:
    target = torch.randn(NUM_POINTS, 6) if target is None else target
    return {
        'fused': torch.randn(NUM_POINTS, 6) if fused is None else fused,
        'target': target,
        'point_weight': torch.full((NUM_POINTS,), 1 / NUM_POINTS),
        'view_features': torch.randn(40, 5) if view_features is None else view_features,
        'point_of_view': torch.arange(40) // 2 if points is None else points,
    }


def test_equals_the_formula():
    module = criterion()
    given = arguments()
    x = module.head(given['fused'])
    x, t = x - x.mean(0), given['target'] - given['target'].mean(0)
    cosine = (x * t).sum(1) / x.norm(dim=1) / t.norm(dim=1)
    losses = module(**given)
    torch.testing.assert_close(losses['clip_cons_loss'], (1 - cosine).mean())
    z = given['view_features'] - given['view_features'].mean(0)
    means = z.reshape(20, 2, 5).mean(1).repeat_interleave(2, 0)
    cosine = (z * means).sum(1) / z.norm(dim=1) / means.norm(dim=1)
    torch.testing.assert_close(losses['cross_view_loss'], (1 - cosine).mean())


def test_agreement_costs_nothing():
    target = torch.randn(NUM_POINTS, 6) + 10
    views = torch.randn(20, 5).repeat_interleave(2, 0)
    losses = identity_head(criterion())(**arguments(3 * target + 1, target, views))
    assert losses['clip_cons_loss'] < 1e-5
    assert losses['cross_view_loss'] < 1e-5


def test_constant_features_pay_in_full():
    """Also where targets share a large mean, which a constant could imitate."""
    target = torch.randn(NUM_POINTS, 6) + 50
    constant = target.mean(0).expand(NUM_POINTS, 6)
    given = arguments(constant, target, torch.ones(40, 5))
    losses = identity_head(criterion())(**given)
    assert losses['clip_cons_loss'] > 0.9
    assert losses['cross_view_loss'] > 0.9
    # Without the mean taken away the same constant would look perfect.
    assert (1 - torch.cosine_similarity(constant, target)).mean() < 0.01


def test_training_on_it_does_not_collapse():
    """From almost constant features, descent on the loss finds the targets' directions."""
    module = identity_head(criterion())
    target = torch.randn(NUM_POINTS, 6) + 5
    fused = (torch.ones(NUM_POINTS, 6) + 0.1 * torch.randn(NUM_POINTS, 6)).requires_grad_()
    optimizer = torch.optim.Adam([fused], 0.05)
    first = None
    for _ in range(120):
        loss = module(**arguments(fused, target))['clip_cons_loss']
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * first
    assert fused.detach().std(0).min() > 0.1


def test_gradient_reaches_features_and_head_but_never_the_target():
    module = criterion()
    given = arguments()
    for name in ('fused', 'target', 'view_features'):
        given[name].requires_grad_()
    sum(module(**given).values()).backward()
    assert given['fused'].grad.abs().max() > 0
    assert given['view_features'].grad.abs().max() > 0
    assert given['target'].grad is None
    assert module.head.weight.grad.abs().max() > 0


def test_warm_up_follows_the_iteration():
    module = criterion(warmup_iters=10)
    given = arguments()
    full = module(**given, iteration=9)['clip_cons_loss']
    for iteration, factor in ((0, 0.1), (4, 0.5), (99, 1.0)):
        loss = module(**given, iteration=iteration)['clip_cons_loss']
        torch.testing.assert_close(loss, factor * full)
    with pytest.raises(ValueError, match='warmup_iters=10 needs the iteration'):
        module(**given)


def test_nothing_visible():
    module = criterion()
    fused = torch.zeros(0, 6, requires_grad=True)
    losses = module(
        fused,
        torch.zeros(0, 6),
        torch.zeros(0),
        torch.zeros(0, 5),
        torch.zeros(0, dtype=torch.int64),
    )
    total = sum(losses.values())
    assert total == 0
    total.backward()
    assert torch.equal(module.head.weight.grad, torch.zeros(6, 6))


def test_coverage_weights():
    """Two samples: 3 of 10 and 8 of 10 points visible, 3 and 2 of them compared."""
    weights = coverage_weights(
        torch.tensor([0, 0, 0, 1, 1]), torch.tensor([3.0, 8.0]), torch.tensor([10, 10])
    )
    torch.testing.assert_close(weights, torch.tensor([0.05, 0.05, 0.05, 0.2, 0.2]))
    torch.testing.assert_close(weights.sum(), torch.tensor((0.3 + 0.8) / 2))


def test_numbering_of_points_does_not_matter():
    views, points = torch.randn(9, 4), torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
    renamed = torch.tensor([70, 3, 11])[points]
    torch.testing.assert_close(
        cross_view_distance(views, points), cross_view_distance(views, renamed)
    )


def test_centred():
    assert centred(torch.randn(5, 3) + 4).sum(0).abs().max() < 1e-5
    assert centred(torch.zeros(0, 3)).shape == (0, 3)


def test_bad_settings():
    with pytest.raises(ValueError, match='negative'):
        criterion(loss_weight=-1)
