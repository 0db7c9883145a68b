"""Aggregation of sparse pairs: only points with views, and no place for views that do not see.

Enters: one feature (P, C) and confidence (P,) for each pair of a point and a view that sees it.
Leaves: (N, C). A room's point is seen by a quarter of the views, so a table (N, V, C) would mostly
hold nothing; points are grouped by their number of views instead, and each group is a full
(n, k, C) table without padding. Any ``ViewAggregator`` works on it, with the same values.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .aggregation import ViewAggregator
from .camera import invert_pose, transform_points
from .pairs import PixelPairs

DECAY = 10.0  # metres over which the confidence in a view falls to 1/e


def aggregate_pairs(
    aggregator: ViewAggregator,
    features: Tensor,
    point: Tensor,
    num_points: int,
    confidence: Tensor | None = None,
    view: Tensor | None = None,
    points: Tensor | None = None,
    max_views: int | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """Combine the pairs of each point.

    The views of a point are handed over in order of falling confidence, so the first slot of
    ``LearnableFusion`` is the best view.

    Args:
        aggregator: how.
        features: (P, C).
        point: (P,) int64 row of the point, in any order.
        num_points: N.
        confidence: (P,) not negative; None is 1.
        view: (P,) int64 number of the view; None numbers the pairs of a point.
        points: (N, 3) metres.
        max_views: only the best views of a point; None takes all.
        chunk_size: points at a time, which bounds memory where no gradient is needed.

    Returns:
        (N, C); the aggregator's token for points without pairs.

    Raises:
        ValueError: shapes that do not fit, or points out of range.
    """
    num_pairs = len(features)
    for name, value in (('point', point), ('confidence', confidence), ('view', view)):
        if value is not None and tuple(value.shape) != (num_pairs,):
            raise ValueError(f'{name} must be ({num_pairs},), got {tuple(value.shape)}')
    if num_pairs and not 0 <= int(point.min()) <= int(point.max()) < num_points:
        raise ValueError(f'pairs name points outside 0…{num_points - 1}')
    if confidence is None:
        confidence = features.new_ones(num_pairs)
    order = strongest_pairs(point, confidence, max_views)
    counts = torch.bincount(point[order], minlength=num_points)
    starts = counts.cumsum(0) - counts
    rows_of_groups, groups = [], []
    for count in torch.unique(counts).tolist():
        rows = (counts == count).nonzero()[:, 0]
        for piece in rows.split(chunk_size or max(1, len(rows))):
            pairs = order[starts[piece][:, None] + torch.arange(count, device=order.device)]
            rows_of_groups.append(piece)
            groups.append(
                aggregator(
                    features[pairs],
                    confidence[pairs],
                    points=None if points is None else points[piece],
                    view_ids=None if view is None else view[pairs],
                )
            )
    if not groups:
        return features.new_zeros(0, features.shape[1])
    rows = torch.cat(rows_of_groups)
    return torch.cat(groups)[torch.argsort(rows)]


def strongest_pairs(point: Tensor, confidence: Tensor, max_views: int | None = None) -> Tensor:
    """The pairs with the highest confidence of each point, sorted by point, best first.

    Pairs of equal confidence keep their order.

    Args:
        point: (P,) int64.
        confidence: (P,).
        max_views: of a point; None keeps all.

    Returns:
        (P',) int64 rows of the pairs.
    """
    if max_views is not None and max_views < 1:
        raise ValueError(f'max_views must be positive, got {max_views}')
    order = torch.argsort(confidence.detach(), descending=True, stable=True)
    order = order[torch.argsort(point[order], stable=True)]
    if max_views is None or len(order) == 0:
        return order
    counts = torch.bincount(point)
    rank = torch.arange(len(order), device=order.device)
    rank = rank - (counts.cumsum(0) - counts)[point[order]]
    return order[rank < max_views]


def pair_confidence(
    points: Tensor,
    pairs: PixelPairs,
    world_from_cam: Tensor,
    normals: Tensor | None = None,
    decay: float = DECAY,
    two_sided: bool = False,
) -> Tensor:
    """``exp(−distance / decay)`` of each pair, times the cosine of incidence with normals.

    Args:
        points: (N, 3) metres.
        pairs: P pairs.
        world_from_cam: (V, 4, 4).
        normals: (N, 3) unit vectors, or None; a zero one is not known and takes nothing away.
        decay: metres.
        two_sided: normals without a side, as ``estimate_normals`` gives them.

    Returns:
        (P,) in 0…1.
    """
    if decay <= 0:
        raise ValueError(f'decay must be positive, got {decay}')
    to_camera = world_from_cam[pairs.view, :3, 3] - points[pairs.point]
    distance = to_camera.norm(dim=1)
    confidence = torch.exp(-distance / decay)
    if normals is None:
        return confidence
    normals = normals[pairs.point]
    cosine = (to_camera * normals).sum(1) / distance.clamp(min=1e-6)
    cosine = cosine.abs() if two_sided else cosine.clamp(min=0.0)
    return confidence * torch.where((normals == 0).all(1), 1.0, cosine.clamp(max=1.0))


def pair_agreement(features: Tensor, point: Tensor, num_points: int, weights: Tensor) -> Tensor:
    """``view_agreement`` of pairs: length of the weighted mean of a point's unit features.

    Args:
        features: (P, C).
        point: (P,) int64 row of the point.
        num_points: N.
        weights: (P,) not negative.

    Returns:
        (N,) in [0, 1], 0 for points without a pair.
    """
    unit = F.normalize(features, dim=1) * weights[:, None]
    total = weights.new_zeros(num_points).index_add(0, point, weights)
    mean = unit.new_zeros(num_points, unit.shape[1]).index_add(0, point, unit)
    length = torch.linalg.vector_norm(mean, dim=1)
    return (length / torch.where(total > 0, total, 1.0)).clamp(max=1)


def original_coordinates(points: Tensor, augmented_from_original: Tensor | None) -> Tensor:
    """(N, 3) points as they were before augmentation."""
    if augmented_from_original is None:
        return points
    return transform_points(invert_pose(augmented_from_original.to(points)), points)


def select_points(pairs: PixelPairs, chosen: Tensor, num_points: int) -> PixelPairs:
    """The pairs of some points, renumbered to the rows of ``chosen`` (n,) int64, sorted."""
    row = torch.full((num_points,), -1, dtype=torch.int64, device=chosen.device)
    row[chosen] = torch.arange(len(chosen), device=chosen.device)
    kept = pairs.select(row[pairs.point] >= 0)
    order = torch.argsort(row[kept.point], stable=True)
    kept = kept.select(order)
    return PixelPairs(row[kept.point], kept.view, kept.uv, kept.depth_z)
