"""The box of a scan that a few stray points do not stretch.

Enters: points (N, D). Leaves: the lowest and the highest coordinates (D,) of its bulk.
"""

import torch
from torch import Tensor

_STRAY = 0.005  # share of the points at each end that may be stray
_REACH = 0.10  # metres: what lies so near to the others is not


def bulk_extent(points: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest coordinates of the bulk, each (D,).

    Along each axis these are the extremes of all points within 10 cm of the inner 99 %: the very
    minimum and maximum of a scan without stray points, as a floor and walls hold more than that.

    Args:
        points: (N, D) metres, N ≥ 1.

    Example:
        >>> room = torch.linspace(0, 3, 1000)[:, None].expand(1000, 3)
        >>> low, high = bulk_extent(torch.cat([room, torch.tensor([[1.0, 1.0, -40.0]])]))
        >>> low, high
        (tensor([0., 0., 0.]), tensor([3., 3., 3.]))
    """
    rank = max(1, round(_STRAY * len(points)))
    inner_low = points.kthvalue(rank, dim=0).values  # (D,)
    inner_high = points.kthvalue(len(points) - rank + 1, dim=0).values

    low = points.masked_fill(points < inner_low - _REACH, torch.inf).amin(0)
    high = points.masked_fill(points > inner_high + _REACH, -torch.inf).amax(0)
    return low, high
