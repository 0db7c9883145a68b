"""The sum of all terms, and the published loss of four of them."""

import pytest
import torch
import torch.nn.functional as F

from oneformer3d.fields import SemanticNeRFLoss, total_loss
from tests.fields.losses.test_ray_losses import random_histogram


def test_semantic_nerf_loss_weighs_its_terms() -> None:
    rgb, target = torch.rand(5, 3), torch.rand(5, 3)
    semantics = torch.rand(5, 4).softmax(-1)
    labels, depth = torch.tensor([0, 1, 2, 3, 255]), torch.tensor([1.0, 2, 3, 4, 5])
    measured = torch.tensor([1.5, 0, 3, 4, 0])
    density = torch.rand(5, 8)
    total, terms = SemanticNeRFLoss()(rgb, semantics, depth, target, labels, measured, density)
    assert terms['rgb'] == pytest.approx(float(F.mse_loss(rgb, target)))
    assert terms['semantic'] == pytest.approx(
        float(F.nll_loss(semantics.log(), labels, ignore_index=255))
    )
    assert terms['depth'] == pytest.approx(0.5 / 3)
    assert terms['regularization'] == pytest.approx(float(density.mean()))
    expected = (
        terms['rgb'] + terms['semantic'] + 0.1 * terms['depth'] + 0.01 * terms['regularization']
    )
    assert float(total) == pytest.approx(expected, rel=1e-5)
    _, without = SemanticNeRFLoss()(rgb, semantics, depth, target, labels)
    assert without['depth'] == without['regularization'] == 0


def outputs_and_batch() -> tuple[dict, dict]:
    edges, weights = random_histogram(6, 5)
    weights = weights.requires_grad_()
    outputs = {
        'rgb': torch.rand(6, 3, requires_grad=True),
        'semantics': torch.rand(6, 4).softmax(-1),
        'depth': torch.rand(6),
        'distance': torch.rand(6),
        'z_scale': torch.full((6,), 2.0),
        'accumulation': weights.sum(-1),
        'weights': weights,
        'density': weights,
        'edges': edges,
        'features_clip': torch.rand(6, 3),
        'features_dino': torch.rand(6, 2),
        'instances': torch.rand(6, 4),
        'slots': torch.rand(6, 3).softmax(-1),
        'proposals': [random_histogram(6, 4)],
    }
    batch = {
        'rgb': torch.rand(6, 3),
        'semantics': torch.tensor([0, 1, 2, 3, 255, 0]),
        'depth': torch.rand(6),
        'features_clip': torch.rand(6, 3),
        'features_dino': torch.rand(6, 2),
        'instances': torch.tensor([0, 0, 1, 1, -1, 2]),
    }
    return outputs, batch


def test_total_is_the_weighted_sum_of_what_is_there() -> None:
    outputs, batch = outputs_and_batch()
    weights = {
        'rgb': 1.0, 'semantics': 0.5, 'depth': 0.1, 'termination': 0.2, 'empty': 0.3,
        'density': 0.01, 'features': 0.001, 'language': 1.0, 'instances': 0.1, 'slots': 0.2,
        'interlevel': 1.0, 'distortion': 0.002, 'slow_fast': 0.1,
    }  # fmt: skip
    total, terms = total_loss(outputs, batch, weights)
    # no language was rendered, and no slow copy; two types of features are two terms
    assert set(terms) == (set(weights) - {'language', 'slow_fast', 'features'}) | {
        'features_clip',
        'features_dino',
    }
    share = {**weights, 'features_clip': 0.001, 'features_dino': 0.001}
    torch.testing.assert_close(total, sum(share[name] * value for name, value in terms.items()))
    assert not any(value.requires_grad for value in terms.values())
    total.backward()
    assert outputs['rgb'].grad is not None
    expected = (outputs['depth'] - batch['depth']).abs().mean()
    torch.testing.assert_close(terms['depth'], expected)
    along = {**batch, 'distance': batch['depth'] * 2}
    along.pop('depth')
    _, again = total_loss(outputs, along, {'termination': 1.0, 'depth': 1.0})
    torch.testing.assert_close(again['termination'], terms['termination'])
    torch.testing.assert_close(
        again['depth'], (outputs['distance'] - along['distance']).abs().mean()
    )


def test_total_of_nothing_has_a_graph_and_unknown_terms_are_named() -> None:
    outputs, _ = outputs_and_batch()
    total, terms = total_loss(outputs, {}, {'rgb': 1.0})
    assert total == 0
    assert terms == {}
    total.backward()
    with pytest.raises(ValueError, match=r"no loss terms \['colour'\]"):
        total_loss(outputs, {}, {'colour': 1.0})
