"""Which views of a scene to take: evenly spread, or greedily those that together see most.

Enters: the number of views, or the visible pairs of each. Leaves: indices of the chosen ones.
"""

from collections.abc import Sequence

import numpy as np
import torch

from oneformer3d.lifting.pairs import PixelPairs

SEEN_AGAIN = 0.5  # what a further view of a point is worth, times the view before


def evenly_spread(num_views: int, count: int) -> np.ndarray:
    """``count`` of ``num_views`` indices, first and last among them; the first alone for one."""
    return np.linspace(0, num_views - 1, count).round().astype(np.int64)


def greedy_coverage(views: Sequence[PixelPairs], num_points: int, count: int) -> list[int]:
    """Indices of at most ``count`` views, in the order in which they were chosen.

    Each step takes the view that adds most: 1 for a point that no chosen view sees, half as much
    for every one that does. Ties go to the earlier view, so equal scenes give equal views. Greedy
    choice reaches at least 1 − 1/e of the best sum (Nemhauser et al., 1978).

    Args:
        views: the pairs of each candidate.
        num_points: N.
        count: views wanted.
    """
    worth = torch.ones(num_points, dtype=torch.float64)
    left = list(range(len(views)))
    chosen: list[int] = []
    while left and len(chosen) < count:
        gains = [float(worth[views[index].point].sum()) for index in left]
        best = left.pop(max(range(len(left)), key=lambda i: (gains[i], -i)))
        chosen.append(best)
        worth[views[best].point] *= SEEN_AGAIN
    return chosen
