"""One text-space vector per mask, and the views that show it best.

Enters: dense maps (V, D, h, w) in the text space, the visible (point, view) pairs of N points, and
K masks of these points. Leaves: unit vectors (K, D) and ``MaskViews``. D width, P pairs.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from oneformer3d.lifting.chunks import DEFAULT_BYTE_BUDGET
from oneformer3d.lifting.pairs import PixelPairs
from oneformer3d.lifting.sampling import bag_chunks, bag_starts, gather_pairs
from oneformer3d.lifting.shapes import expect_shape

from .members import MaskMembers

NO_VIEW = -1


@dataclass(frozen=True, eq=False)
class MaskViews:
    """The views that show K masks best, the best first.

    Attributes:
        view: (K, B) int64 row of the view, −1 where there are no more.
        uv: (K, B, 2) float32 pixel of a point of the mask in that view.
        num_new: (K, B) int64 points of the mask that no better view shows.
    """

    view: NDArray[np.int64]
    uv: NDArray[np.float32]
    num_new: NDArray[np.int64]


@torch.no_grad()
def mask_vectors(
    maps: Tensor,
    pairs: PixelPairs,
    image_size: tuple[int, int],
    members: MaskMembers,
    confidence: Tensor | None = None,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> NDArray[np.float32]:
    """What each mask looks like, in the space of text.

    Every point counts once, however many views see it: what is seen for the hundredth time says
    nothing new, and a far side that one view saw does.

        f_n = Σ_v c_nv f_v(u_nv) / Σ_v c_nv    of unit vectors, over the views that see point n
        m_k = Σ_n f_n / |Σ_n f_n|              over the points of mask k that some view sees

    Args:
        maps: (V, D, h, w), the dense text-space features of the views, of any length.
        pairs: sorted by point, as ``project_pairs`` makes them.
        image_size: (H, W) that ``pairs.uv`` belongs to.
        members: K masks of the N points.
        confidence: (P,) not negative; None trusts every pair alike.
        byte_budget: bytes for temporary values beside the maps.

    Returns:
        (K, D) float32 of length 1, 0 for masks that no view sees.

    Example:
        >>> from .members import members_of_masks
        >>> maps = torch.tensor([[2.0, 0.0], [0.0, 3.0]]).reshape(2, 2, 1, 1)
        >>> pairs = PixelPairs(
        ...     torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.zeros(3, 2), torch.ones(3)
        ... )
        >>> masks = np.array([[True, False, False], [False, True, True], [False, False, True]])
        >>> mask_vectors(maps, pairs, (4, 4), members_of_masks(masks)).round(2)
        array([[0.71, 0.71],
               [0.  , 1.  ],
               [0.  , 0.  ]], dtype=float32)
    """
    width = expect_shape('maps', maps, 'V D h w')[1]
    if confidence is not None:
        expect_shape('confidence', confidence, 'P', P=len(pairs))
    directions = F.normalize(maps.float(), dim=1).contiguous(memory_format=torch.channels_last)

    # memberships by point, so that a chunk of points finds its own
    order = np.argsort(members.point, kind='stable')
    mask_of_member = torch.from_numpy(members.mask[order])
    point_of_member = torch.from_numpy(members.point[order])

    sums = torch.zeros(members.num_masks, width, dtype=torch.float64)  # (K, D)
    starts = bag_starts(pairs.point, members.num_points)
    max_points = max(1, byte_budget // (4 * 4 * width))
    for begin, end, first, last in bag_chunks(starts, len(pairs) + 1, max_points):
        chunk = pairs.select(slice(first, last))
        chunk = PixelPairs(chunk.point - begin, chunk.view, chunk.uv, chunk.depth_z)
        weights = None if confidence is None else confidence[first:last]
        features, weight = gather_pairs(
            directions, chunk, image_size, weights, end - begin, byte_budget=byte_budget
        )  # (n, D), (n,)
        features = torch.where(weight[:, None] > 0, features, 0.0)

        low, high = torch.searchsorted(point_of_member, torch.tensor([begin, end])).tolist()
        rows = features[point_of_member[low:high] - begin]  # (l, D)
        sums.index_add_(0, mask_of_member[low:high], rows.double())  # our own sums

    return F.normalize(sums, dim=1).float().numpy()


def best_views(pairs: PixelPairs, members: MaskMembers, num_best: int = 5) -> MaskViews:
    """The views that together show most of each mask.

    Chosen one after the other: each adds the most points that no view before it shows; ties go to
    the earlier view. A second picture of the same side comes after one of the far side.

    Args:
        pairs: of N points, sorted by point.
        members: K masks of them.
        num_best: B, at most so many views of a mask.

    Example:
        >>> from .members import members_of_masks
        >>> point, view = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 0, 1, 2])
        >>> pairs = PixelPairs(point, view, torch.arange(10.0).reshape(5, 2), torch.ones(5))
        >>> best_views(pairs, members_of_masks(np.ones((1, 3), bool)), num_best=3).view
        array([[ 0,  2, -1]])
    """
    if num_best < 1:
        raise ValueError(f'num_best must be at least 1, got {num_best}')
    view_of_pair, uv_of_pair = pairs.view.numpy(), pairs.uv.numpy()
    starts = bag_starts(pairs.point, members.num_points).numpy()  # (N + 1,)

    chosen = []
    for mask in range(members.num_masks):
        points = members.points_of(mask)
        counts = starts[points + 1] - starts[points]
        # rows of all pairs of the mask's points, and which of its points each belongs to
        first = np.repeat(starts[points] - np.cumsum(counts) + counts, counts)
        rows = first + np.arange(counts.sum())
        member = np.repeat(np.arange(len(points)), counts)
        chosen.append(_choose_views(view_of_pair[rows], uv_of_pair[rows], member, num_best))

    view, uv, num_new = zip(*chosen) if chosen else ((), (), ())
    return MaskViews(
        np.array(view, np.int64).reshape(-1, num_best),
        np.array(uv, np.float32).reshape(-1, num_best, 2),
        np.array(num_new, np.int64).reshape(-1, num_best),
    )


def _choose_views(
    view: NDArray[np.int64], uv: NDArray[np.float32], member: NDArray[np.int64], num_best: int
) -> tuple[list[int], list[NDArray[np.float32]], list[int]]:
    """View, pixel and number of new points of one mask's best views, from its pairs."""
    views, pixels, num_new = [], [], []
    shown = np.zeros(int(member.max(initial=-1)) + 1, bool)
    while len(views) < num_best and not shown[member].all():
        gains = np.bincount(view[~shown[member]])
        best = int(gains.argmax())
        in_view = view == best

        # the mean of the pixels may lie beside the object; the nearest of them does not
        seen = uv[in_view]
        views.append(best)
        pixels.append(seen[np.square(seen - seen.mean(0)).sum(1).argmin()])
        num_new.append(int(gains[best]))
        shown[member[in_view]] = True

    rest = num_best - len(views)
    no_pixel = [np.zeros(2, np.float32)] * rest
    return views + [NO_VIEW] * rest, pixels + no_pixel, num_new + [0] * rest
