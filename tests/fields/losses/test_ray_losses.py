"""Losses of weights along rays against closed forms and slow twins."""

import math

import pytest
import torch

from oneformer3d.fields.losses.ray_losses import (
    distortion_loss,
    empty_space_loss,
    interlevel_loss,
    outer_measure,
    termination_loss,
)


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
