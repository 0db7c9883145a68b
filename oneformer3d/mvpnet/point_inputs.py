"""What the points bring themselves, and subsets of them.

Enters: points (N, 6), xyz in metres and colours, and their views. Leaves: columns (N, F), or fewer
points with their views.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from oneformer3d.lifting.extent import bulk_extent
from oneformer3d.lifting.pair_aggregation import select_points
from oneformer3d.structures import PosedViews

# columns of each
POINT_INPUTS = {'color': 3, 'height': 1}


def point_features(points: Tensor, names: Sequence[str]) -> Tensor:
    """Of 'color' and 'height' above the lowest point of the bulk: (N, 6) → (N, F)."""
    columns = []
    for name in names:
        if name == 'color':
            columns.append(points[:, 3:6])  # (N, 3)
        elif len(points):
            columns.append(points[:, 2:3] - bulk_extent(points[:, 2:3])[0])
        else:
            columns.append(points[:, 2:3])
    return torch.cat(columns, dim=1) if columns else points[:, :0]


def draw_points(points: Tensor, count: int) -> Tensor:
    """Rows (n ≤ count,) int64 of points drawn at random, in order."""
    order = torch.randperm(len(points), device=points.device)[:count]
    return order.sort().values


def views_of_points(views: PosedViews | None, chosen: Tensor) -> PosedViews | None:
    """The views as the chosen points (n,) alone see them."""
    if views is None:
        return None
    pairs = select_points(views.pairs, chosen, views.num_points)
    # objects belong to pairs; MVPNet reads none
    return replace(views, pairs=pairs, num_points=len(chosen), pair_objects=None)
