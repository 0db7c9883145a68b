"""Masks of points that may overlap, as pairs of a mask and a point.

Enters: masks, as rows of booleans or lists of points, and superpoints. Leaves: ``MaskMembers``, and
for each point the best of the masks that have it. K masks, N points, L memberships.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oneformer3d.lifting.shapes import expect_shape

NO_MASK = -1


@dataclass(frozen=True, eq=False)
class MaskMembers:
    """Which points K masks have, sorted by mask, then by point.

    Attributes:
        mask: (L,) int64 row of the mask.
        point: (L,) int64 row of the point.
        num_masks: K; a mask may have no point.
        num_points: N.

    Raises:
        ValueError: unsorted memberships, or rows that do not exist.
    """

    mask: NDArray[np.int64]
    point: NDArray[np.int64]
    num_masks: int
    num_points: int

    def __post_init__(self) -> None:
        expect_shape('mask', self.mask, 'L')
        expect_shape('point', self.point, 'L', L=len(self.mask))
        for name, rows, limit in (
            ('mask', self.mask, self.num_masks),
            ('point', self.point, self.num_points),
        ):
            if len(rows) and not 0 <= rows.min() <= rows.max() < limit:
                raise ValueError(f'{name}: rows {rows.min()} … {rows.max()}, but there are {limit}')

        key = self.mask * self.num_points + self.point
        if (np.diff(key) <= 0).any():
            raise ValueError('memberships must be sorted by mask and point, each once')

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Points of each mask, (K,) int64."""
        return np.bincount(self.mask, minlength=self.num_masks)

    def points_of(self, mask: int) -> NDArray[np.int64]:
        """Rows of the points of one mask."""
        first, last = np.searchsorted(self.mask, [mask, mask + 1])
        return self.point[first:last]


def members_of_masks(masks: NDArray[np.bool_]) -> MaskMembers:
    """Masks as rows.

    Args:
        masks: (K, N) bool.

    Example:
        >>> members = members_of_masks(np.array([[True, True, False], [False, True, False]]))
        >>> members.points_of(1), members.sizes
        (array([1]), array([2, 1]))
    """
    num_masks, num_points = expect_shape('masks', masks, 'K N')
    mask, point = np.nonzero(masks)
    return MaskMembers(mask, point, num_masks, num_points)


def members_of_lists(points: Sequence[NDArray[np.int64]], num_points: int) -> MaskMembers:
    """Masks as lists of their points.

    Args:
        points: K arrays of rows, in any order, each row once.
        num_points: N.
    """
    mask = np.repeat(np.arange(len(points)), [len(rows) for rows in points])
    point = np.concatenate([np.sort(rows) for rows in points] or [np.empty(0, np.int64)])
    return MaskMembers(mask, point.astype(np.int64), len(points), num_points)


def add_uncovered(members: MaskMembers, superpoints: NDArray[np.int64]) -> MaskMembers:
    """Append the superpoints that no mask covers, each as a mask of its own.

    A superpoint is covered when masks have at least half of its points; of the others all points
    go into the new mask.

    Args:
        members: K masks.
        superpoints: (N,) int64 ids 0…S−1, as ``superpoints_from_points`` makes them.

    Returns:
        K + S' masks, the first K as they were.

    Example:
        >>> members = members_of_masks(np.array([[True, True, False, False, False]]))
        >>> add_uncovered(members, np.array([0, 0, 1, 1, 2])).sizes
        array([2, 2, 1])
    """
    expect_shape('superpoints', superpoints, 'N', N=members.num_points)
    covered = np.zeros(members.num_points, bool)
    covered[members.point] = True

    sizes = np.bincount(superpoints)
    num_covered = np.bincount(superpoints[covered], minlength=len(sizes))
    alone = (2 * num_covered < sizes) & (sizes > 0)  # (S,)

    # rows of new masks follow the old ones, in the order of the superpoints
    row_of_superpoint = members.num_masks + np.cumsum(alone) - 1
    point = np.flatnonzero(alone[superpoints])
    mask = row_of_superpoint[superpoints[point]]
    order = np.lexsort((point, mask))
    return MaskMembers(
        np.concatenate([members.mask, mask[order]]),
        np.concatenate([members.point, point[order]]),
        members.num_masks + int(alone.sum()),
        members.num_points,
    )


def best_mask_of_points(members: MaskMembers, scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """For each point the mask with the greatest score that has it, −1 for none.

    Masks of equal score: the first.

    Args:
        members: K masks of N points.
        scores: (K,).

    Returns:
        (N,) int64.

    Example:
        >>> members = members_of_masks(np.array([[True, True, False], [False, True, False]]))
        >>> best_mask_of_points(members, np.array([0.5, 0.9]))
        array([ 0,  1, -1])
    """
    expect_shape('scores', scores, 'K', K=members.num_masks)
    best = np.full(members.num_points, NO_MASK, np.int64)
    # written from the least score to the greatest, so that the last one stays
    rank = np.empty(members.num_masks, np.int64)
    rank[np.argsort(-scores, kind='stable')] = np.arange(members.num_masks)
    order = np.argsort(-rank[members.mask], kind='stable')
    best[members.point[order]] = members.mask[order]
    return best
