"""Lifting by pairs: read each pair's feature, combine those of a point, chunk by chunk.

Enters: P pairs of a point and a view that sees it, what reads their features (P, C), a
``ViewAggregator``. Leaves: (N, C). A room's point is visible in a quarter of the views, so a table
(N, V, C) would mostly hold nothing; points are grouped by their number of views instead, and each
group is a full (n, k, C) table without padding. Any aggregator works on it, with the same values.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .camera import invert_pose, transform_points
from .chunks import join
from .confidence import DECAY, pair_agreement, pair_confidence
from .pairs import PixelPairs
from .sampling import bag_chunks, bag_starts
from .shapes import expect_shape
from .view_aggregator import ViewAggregator


def lift_pairs(
    read: Callable[[PixelPairs], Tensor],
    aggregator: ViewAggregator,
    pairs: PixelPairs,
    confidence: Tensor,
    points: Tensor,
    *,
    max_points: int | None = None,
    max_pairs: int | None = None,
    with_agreement: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Read and combine the pairs of each point, a chunk of points at a time.

    Chunks change nothing, since points do not influence each other.

    Args:
        read: some of the pairs → their features (P', C).
        aggregator: of the views of a point.
        pairs: of all points, sorted by point.
        confidence: (P,) not negative.
        points: (N, 3) metres.
        max_points: of a chunk; None takes all.
        max_pairs: of a chunk, where it has more than one point; None takes all.
        with_agreement: also measure how far the views of a point agree.

    Returns:
        (N, C), the aggregator's token for points without pairs, and ``pair_agreement`` (N,) or
        None.

    Example:
        >>> from oneformer3d.lifting.aggregation import build_aggregator
        >>> pairs = PixelPairs(
        ...     torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.zeros(3, 2), torch.ones(3)
        ... )
        >>> read = lambda pairs: 1.0 + pairs.view[:, None]  # a view shows its number, from 1
        >>> mean = build_aggregator('mean', 1)
        >>> lift_pairs(read, mean, pairs, torch.ones(3), torch.zeros(2, 3), max_points=1)[0]
        tensor([[1.5000],
                [2.0000]])
    """
    num_points = len(points)
    starts = bag_starts(pairs.point, num_points)
    limits = bag_chunks(starts, max_pairs or max(1, len(pairs)), max_points or max(1, num_points))
    agreement: list[Tensor] = []

    def chunk(begin: int, end: int, first: int, last: int) -> Tensor:
        some = pairs.select(slice(first, last))
        features, weights = read(some), confidence[first:last]
        point, count = some.point - begin, end - begin
        if with_agreement:
            agreement.append(pair_agreement(features, point, count, weights))
        return aggregate_pairs(
            aggregator, features, point, count, weights, some.view, points[begin:end]
        )

    empty_cloud = [(0, 0, 0, 0)]
    features = join((chunk(*limit) for limit in limits or empty_cloud), num_points)
    return features, torch.cat(agreement) if with_agreement else None


def aggregate_pairs(
    aggregator: ViewAggregator,
    features: Tensor,
    point: Tensor,
    num_points: int,
    confidence: Tensor | None = None,
    view: Tensor | None = None,
    points: Tensor | None = None,
    max_views: int | None = None,
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

    Returns:
        (N, C); the aggregator's token for points without pairs.

    Raises:
        ValueError: shapes that do not fit, or points out of range.

    Example:
        >>> from oneformer3d.lifting.aggregation import build_aggregator
        >>> features = torch.tensor([[1.0], [3.0], [8.0]])
        >>> aggregate_pairs(build_aggregator('max', 1), features, torch.tensor([0, 0, 1]), 2)
        tensor([[3.],
                [8.]])
    """
    num_pairs = len(features)
    for name, value in (('point', point), ('confidence', confidence), ('view', view)):
        if value is not None:
            expect_shape(name, value, 'P', P=num_pairs)
    if num_pairs and not 0 <= int(point.min()) <= int(point.max()) < num_points:
        raise ValueError(f'pairs name points outside 0…{num_points - 1}')
    if confidence is None:
        confidence = features.new_ones(num_pairs)

    # points with the same number of views k make one table (n, k, C)
    order = strongest_pairs(point, confidence, max_views)
    counts = torch.bincount(point[order], minlength=num_points)
    starts = counts.cumsum(0) - counts
    rows_of_groups, groups = [], []
    for count in torch.unique(counts).tolist():
        rows = (counts == count).nonzero()[:, 0]
        pairs = order[starts[rows][:, None] + torch.arange(count, device=order.device)]  # (n, k)
        combined = aggregator(
            features[pairs],
            confidence=confidence[pairs],
            points_3d=None if points is None else points[rows],
            view_ids=None if view is None else view[pairs],
        )
        rows_of_groups.append(rows)
        groups.append(combined)

    if not groups:
        return features.new_zeros(0, features.shape[1])
    return torch.cat(groups)[torch.argsort(torch.cat(rows_of_groups))]


def best_pairs(
    points: Tensor,
    pairs: PixelPairs,
    world_from_cam: Tensor,
    normals: Tensor | None = None,
    decay: float = DECAY,
    two_sided: bool = False,
    max_views: int | None = None,
) -> tuple[PixelPairs, Tensor]:
    """The pairs whose features are read, those of a point best first, and their confidence (P',).

    Args:
        points: (N, 3) metres.
        pairs: of these points.
        world_from_cam: (V, 4, 4).
        normals: (N, 3) unit, see ``pair_confidence``, as are decay and two_sided.
        decay: metres.
        two_sided: normals without a side.
        max_views: of a point; None takes all.
    """
    confidence = pair_confidence(points, pairs, world_from_cam, normals, decay, two_sided)
    order = strongest_pairs(pairs.point, confidence, max_views)
    return pairs.select(order), confidence[order]


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

    # rank of a pair among those of its point
    counts = torch.bincount(point)
    rank = torch.arange(len(order), device=order.device)
    rank = rank - (counts.cumsum(0) - counts)[point[order]]
    return order[rank < max_views]


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
