"""Losses against closed forms and slow twins."""

import math

import pytest
import torch
import torch.nn.functional as F

from oneformer3d.fields import SemanticNeRFLoss, clip_feature_loss, total_loss
from oneformer3d.fields.losses.pixel_losses import (
    depth_loss,
    feature_loss,
    language_loss,
    semantic_loss,
)
from oneformer3d.fields.losses.ray_losses import (
    distortion_loss,
    empty_space_loss,
    interlevel_loss,
    outer_measure,
    termination_loss,
)


def test_semantic_loss_of_probabilities_and_logits() -> None:
    logits = torch.randn(6, 4)
    labels = torch.tensor([0, 3, 255, 1, 2, 255])
    expected = F.cross_entropy(logits, labels, ignore_index=255)
    torch.testing.assert_close(semantic_loss(logits, labels, 'logits'), expected)
    torch.testing.assert_close(semantic_loss(logits.softmax(-1), labels), expected)
    confidence = torch.tensor([1.0, 0, 1, 0, 0, 1])
    torch.testing.assert_close(
        semantic_loss(logits.softmax(-1), labels, confidence=confidence),
        -logits.log_softmax(-1)[0, 0],
    )
    nothing = semantic_loss(logits.requires_grad_(), torch.full((6,), 255), 'logits')
    assert nothing == 0
    nothing.backward()
    assert logits.grad.abs().max() == 0
    with pytest.raises(ValueError, match='labels must be 0 … 3 or 255'):
        semantic_loss(logits, torch.tensor([0, 1, 2, 3, 4, 0]))


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


def test_depth_and_feature_terms() -> None:
    assert depth_loss(torch.tensor([1.0, 2]), torch.tensor([0.0, 0])) == 0
    features, target = torch.rand(4, 7), torch.rand(4, 7)
    torch.testing.assert_close(feature_loss(features, target), F.mse_loss(features, target))
    mask = torch.tensor([True, False, True, False])
    torch.testing.assert_close(
        feature_loss(features, target, mask), F.mse_loss(features[mask], target[mask])
    )
    # quadratic below 1.25, linear above
    language = language_loss(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2))
    assert float(language) == pytest.approx(0.5 + 1.25 * (2 - 0.625))


def random_histogram(num_rays: int, num_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    edges = torch.rand(num_rays, num_samples + 1).sort(-1).values
    edges[:, 0], edges[:, -1] = 0, 1
    return edges, torch.rand(num_rays, num_samples).softmax(-1)


def test_outer_measure_and_interlevel_loss_equal_their_slow_twins() -> None:
    edges, weights = random_histogram(3, 6)
    other_edges, other_weights = random_histogram(3, 5)
    bound = outer_measure(edges, other_edges, other_weights)
    for ray in range(3):
        for i in range(6):
            overlaps = (other_edges[ray, 1:] > edges[ray, i]) & (
                other_edges[ray, :-1] < edges[ray, i + 1]
            )
            torch.testing.assert_close(bound[ray, i], other_weights[ray, overlaps].sum())
    loss = interlevel_loss(edges, weights, [(other_edges, other_weights)])
    expected = ((weights - bound).clamp(min=0) ** 2 / (weights + 1e-7)).sum(-1).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(interlevel_loss(edges, weights, [(edges, weights)]), torch.zeros(()))


def test_interlevel_loss_moves_the_proposal_only() -> None:
    edges, weights = random_histogram(2, 4)
    proposed = torch.full((2, 4), 0.01, requires_grad=True)
    weights.requires_grad_()
    interlevel_loss(edges, weights, [(edges, proposed)]).backward()
    assert weights.grad is None
    assert proposed.grad.abs().max() > 0


def test_distortion_loss_equals_the_double_sum() -> None:
    edges, weights = random_histogram(3, 7)
    middles, lengths = (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=-1)
    pairs = weights[:, :, None] * weights[:, None] * (middles[:, :, None] - middles[:, None]).abs()
    expected = pairs.sum((1, 2)) + (weights**2 * lengths).sum(-1) / 3
    torch.testing.assert_close(distortion_loss(edges, weights), expected.mean())
    # the same in metres, between 2 and 7
    torch.testing.assert_close(distortion_loss(edges * 5 + 2, weights), expected.mean())


def test_termination_and_empty_space_look_at_the_measured_surface() -> None:
    edges = torch.linspace(0, 4, 41).expand(3, -1)
    at_surface, in_front = torch.zeros(40), torch.zeros(40)
    at_surface[20], in_front[8] = 1.0, 1.0
    weights = torch.stack((at_surface, in_front, in_front))
    distance = torch.tensor([2.05, 2.05, 0.0])
    assert float(empty_space_loss(edges, weights, distance)) == pytest.approx(0.5)
    good = termination_loss(edges[:1], weights[:1], distance[:1])
    bad = termination_loss(edges[1:2], weights[1:2], distance[1:2])
    assert good < bad
    # one interval, its middle a standard deviation away
    one = termination_loss(
        torch.tensor([[1.0, 2.0]]), torch.tensor([[0.3]]), torch.tensor([1.4]), sigma=0.1
    )
    assert float(one) == pytest.approx(-math.log(0.3) * math.exp(-0.5), rel=1e-4)
    assert termination_loss(edges, weights, torch.zeros(3)) == 0


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


class MeanColourClip:
    """A model whose embedding of a patch is its mean colour."""

    calls = 0

    def preprocess(self, patch):
        assert patch.shape[-1] == 3
        return patch.movedim(-1, 0)

    def encode_image(self, images):
        self.calls += 1
        return images.mean((-2, -1))


def test_clip_feature_loss_compares_patches_of_three_sizes() -> None:
    image = torch.rand(16, 12, 3)
    clip = MeanColourClip()
    # features equal to the colours: their mean over a patch is its embedding
    assert float(clip_feature_loss(image, image, clip, patch_size=4)) == pytest.approx(0, abs=1e-6)
    assert clip.calls == 2  # 12 patches of 4, 2 of 8, none of 16 pixels
    opposite = clip_feature_loss(-image, image, clip, patch_size=4)
    assert float(opposite) == pytest.approx(2)
    other = torch.rand(16, 12, 3)
    loss = clip_feature_loss(other, image, clip, patch_size=8)
    tiles = [(slice(8 * i, 8 * i + 8), slice(0, 8)) for i in range(2)]
    expected = [
        1 - F.cosine_similarity(other[t].mean((0, 1)), image[t].mean((0, 1)), dim=0) for t in tiles
    ]
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    with pytest.raises(ValueError, match='no patch of 32'):
        clip_feature_loss(image, image, clip)
