"""Sparse pairs against the dense table of all points and views."""

import math

import pytest
import torch

from oneformer3d.lifting.aggregation import AGGREGATORS, build_aggregator
from oneformer3d.lifting.confidence import pair_agreement, pair_confidence, view_agreement
from oneformer3d.lifting.pair_aggregation import (
    aggregate_pairs,
    best_pairs,
    lift_pairs,
    original_coordinates,
    select_points,
    strongest_pairs,
)
from oneformer3d.lifting.pairs import PixelPairs
from tests.lifting.test_aggregation import SETTINGS, C, scene

NAMES = [name for name in sorted(AGGREGATORS) if name != 'learnable']


def sparse(num_points: int = 12):
    features, confidence, mask, points = scene(num_points)
    point, view = mask.nonzero(as_tuple=True)
    return (features, confidence, mask, points), (
        features[mask],
        point,
        view,
        confidence[mask],
    )


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('max_points', [1, 2])
def test_pairs_equal_table(name, max_points):
    aggregator = build_aggregator({'type': name, **SETTINGS.get(name, {})}, C).eval()
    (features, confidence, mask, points), (rows, point, view, weights) = sparse()
    expected = aggregator(features, confidence=confidence, mask=mask, points_3d=points)
    shuffled = torch.randperm(len(rows))
    result = aggregate_pairs(
        aggregator,
        rows[shuffled],
        point[shuffled],
        12,
        weights[shuffled],
        view[shuffled],
        points,
    )
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-4)

    # the same in chunks, each pair's row found by the number that its pixel holds
    pairs = PixelPairs(point, view, torch.arange(len(rows))[:, None].expand(-1, 2), weights)
    for limits in ({}, {'max_points': max_points}, {'max_pairs': 3}):
        found, agreement = lift_pairs(
            lambda some: rows[some.uv[:, 0]],
            aggregator,
            pairs,
            weights,
            points,
            with_agreement=True,
            **limits,
        )
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
        whole = view_agreement(features, confidence * mask)
        torch.testing.assert_close(agreement, whole)


def test_best_views_come_first():
    aggregator = build_aggregator({'type': 'learnable', 'num_views': 9}, C).eval()
    (features, confidence, mask, _), (rows, point, _, weights) = sparse()
    result = aggregate_pairs(aggregator, rows, point, 12, weights)
    for i in range(1, 12):
        order = confidence[i].masked_fill(~mask[i], -1).argsort(descending=True)[: mask[i].sum()]
        torch.testing.assert_close(result[i], aggregator(features[i : i + 1, order])[0])


def test_only_the_best_views_count():
    aggregator = build_aggregator('max', C)
    (features, confidence, mask, _), (rows, point, _, weights) = sparse()
    result = aggregate_pairs(aggregator, rows, point, 12, weights, max_views=2)
    for i in range(1, 12):
        order = confidence[i].masked_fill(~mask[i], -1).argsort(descending=True)
        order = order[: min(2, int(mask[i].sum()))]
        torch.testing.assert_close(result[i], features[i, order].amax(0))


def test_strongest_pairs():
    point = torch.tensor([2, 0, 2, 2, 0])
    confidence = torch.tensor([0.1, 0.5, 0.9, 0.3, 0.5])
    assert strongest_pairs(point, confidence).tolist() == [1, 4, 2, 3, 0]
    assert strongest_pairs(point, confidence, 1).tolist() == [1, 2]
    assert strongest_pairs(point[:0], confidence[:0], 1).tolist() == []
    with pytest.raises(ValueError, match='must be positive'):
        strongest_pairs(point, confidence, 0)


def test_nothing_to_aggregate():
    aggregator = build_aggregator('attention', C)
    none = torch.zeros(0, dtype=torch.int64)
    result = aggregate_pairs(aggregator, torch.zeros(0, C), none, 4)
    torch.testing.assert_close(result, aggregator.no_view.expand(4, -1))
    assert aggregate_pairs(aggregator, torch.zeros(0, C), none, 0).shape == (0, C)


def test_bad_pairs():
    aggregator = build_aggregator('mean', C)
    with pytest.raises(ValueError, match=r'outside 0…1'):
        aggregate_pairs(aggregator, torch.zeros(1, C), torch.tensor([2]), 2)
    with pytest.raises(ValueError, match=r'confidence: expected \(P,\) with P=1'):
        aggregate_pairs(aggregator, torch.zeros(1, C), torch.tensor([0]), 2, torch.ones(2))


def pairs_of(point, view) -> PixelPairs:
    point, view = torch.tensor(point), torch.tensor(view)
    uv = torch.stack((point, view), dim=1).float()
    return PixelPairs(point, view, uv, point.float())


def test_confidence_falls_with_distance_and_angle():
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[1, :3, 3] = torch.tensor([3.0, 0.0, 4.0])
    pairs = pairs_of([0, 1, 0], [1, 0, 0])
    expected = torch.tensor([math.exp(-0.5), math.exp(-0.5), 1.0])
    torch.testing.assert_close(pair_confidence(points, pairs, pose), expected)
    normals = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    expected = torch.tensor([0.6 * math.exp(-0.5), 0.0, 0.0])
    torch.testing.assert_close(pair_confidence(points, pairs, pose, normals), expected)
    turned = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])  # the other side; not known
    expected = torch.tensor([0.6 * math.exp(-0.5), math.exp(-0.5), 0.0])
    both = pair_confidence(points, pairs, pose, turned, two_sided=True)
    torch.testing.assert_close(both, expected)
    expected = torch.tensor([0.0, math.exp(-0.5), 0.0])
    torch.testing.assert_close(pair_confidence(points, pairs, pose, turned), expected)
    with pytest.raises(ValueError, match='decay'):
        pair_confidence(points, pairs, pose, decay=0.0)


def test_agreement_equals_table():
    (features, confidence, mask, _), (rows, point, _, weights) = sparse()
    expected = view_agreement(features, confidence * mask)
    torch.testing.assert_close(pair_agreement(rows, point, 12, weights), expected)
    assert (expected[~mask.any(1)] == 0).all()
    assert (expected > 0).any()


def test_points_that_are_left_keep_their_pairs():
    pairs = pairs_of([0, 0, 2, 3, 3], [0, 1, 1, 0, 2])
    some = select_points(pairs, torch.tensor([3, 0]), 4)
    assert some.point.tolist() == [0, 0, 1, 1]
    assert some.view.tolist() == [0, 2, 0, 1]
    assert some.uv[:, 0].tolist() == [3, 3, 0, 0]
    assert len(select_points(pairs, torch.tensor([1]), 4)) == 0


def test_augmentation_is_undone():
    points = torch.rand(5, 3)
    moved = torch.eye(4)
    moved[:3, :3] *= 1.3
    moved[0] *= -1
    moved[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    augmented = points @ moved[:3, :3].T + moved[:3, 3]
    torch.testing.assert_close(original_coordinates(augmented, moved), points)
    assert original_coordinates(points, None) is points


def test_the_best_pairs_come_first():
    points = torch.zeros(2, 3)
    pose = torch.eye(4).repeat(3, 1, 1)
    pose[:, 2, 3] = torch.tensor([3.0, 1.0, 2.0])
    pairs = pairs_of([0, 0, 0, 1], [0, 1, 2, 0])
    best, confidence = best_pairs(points, pairs, pose, max_views=2)
    assert best.point.tolist() == [0, 0, 1]
    assert best.view.tolist() == [1, 2, 0]
    torch.testing.assert_close(confidence, torch.exp(-torch.tensor([1.0, 2.0, 3.0]) / 10))
