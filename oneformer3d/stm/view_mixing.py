"""Queries read the views: sample, mix over points, mix over views.

Enters: queries (Q, D), their boxes in the views that see them best, a pyramid of all views. Leaves:
an update (Q, D).

Letters: Q queries, D their width, K views of a query, A anchors (kinds of boxes), G groups, P
points of a group, c channels of a group.

A query takes the K views that show it best, whatever the number of views, so T views in training
and T' in testing meet the same layer, the best view always in the first slot. Slots that no view
fills do not take part in the mixing. Only boxes that are visible are sampled.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .mixing import AdaptiveMixing
from .pyramids import ViewPyramid
from .sampling import corners, gather_rows, make_sample_points, translate_to_linear_weight
from .stage import init_sampling_offset


@dataclass(frozen=True)
class QueryViews:
    """The views and boxes that queries sample.

    Attributes:
        image: (Q, K) int64, image of the pyramid.
        xyzr: (Q, K, A, 4) boxes on the pyramid's canvas.
        valid: (Q, K, A) bool, whether the view sees what the box is around.
    """

    image: Tensor
    xyzr: Tensor
    valid: Tensor

    def __post_init__(self) -> None:
        if not torch.isfinite(self.xyzr[self.valid]).all():
            raise ValueError('boxes of queries are not finite')


def best_views(visible: Tensor, xyzr: Tensor, first_image: int, num_views: int) -> QueryViews:
    """The views that see each query best, the best first: by visible share times scale.

    Args:
        visible: (Q, V, A) share that a view sees.
        xyzr: (Q, V, A, 4).
        first_image: of this sample in the pyramid.
        num_views: K; slots beyond V are not valid.
    """
    count = min(num_views, visible.shape[1])
    pixels = (visible * torch.exp2(xyzr[..., 2])).sum(-1)  # (Q, V)

    # Equal views: the earlier one, on every device.
    order = torch.sort(pixels, dim=1, descending=True, stable=True).indices[:, :count]
    visible = visible.gather(1, order[..., None].expand(-1, -1, visible.shape[-1]))
    xyzr = xyzr.gather(1, order[..., None, None].expand(-1, -1, *xyzr.shape[2:]))

    missing = num_views - count
    if missing:
        order = nn.functional.pad(order, (0, missing))
        visible = nn.functional.pad(visible, (0, 0, 0, missing))
        xyzr = nn.functional.pad(xyzr, (0, 0, 0, 0, 0, missing))
    return QueryViews(order + first_image, xyzr, visible > 0)


class ViewMixing(nn.Module):
    """Sampling, spatial and temporal mixing over views (after Wu et al., STMixer, CVPR 2023).

    Args:
        query_dim: D.
        channels: of the pyramid.
        num_points: P.
        num_views: K.
        num_groups: G, dealt out to the anchors in turn.
        num_anchors: A.
        out_multiplier: points after mixing over points before.
        tau: softness of the choice of a level.

    Raises:
        ValueError: anchors that do not divide the groups, or groups that do not divide channels.
    """

    def __init__(
        self,
        query_dim: int,
        channels: int,
        num_points: int = 8,
        num_views: int = 4,
        num_groups: int = 4,
        num_anchors: int = 1,
        out_multiplier: int = 4,
        tau: float = 2.0,
    ) -> None:
        super().__init__()
        if num_groups % num_anchors or channels % num_groups:
            raise ValueError(
                f'{num_anchors} anchors must divide {num_groups} groups, and these '
                f'{channels} channels'
            )
        self.num_points = num_points
        self.num_views = num_views
        self.num_groups = num_groups
        self.num_anchors = num_anchors
        self.tau = tau

        self.sampling_offset = nn.Linear(query_dim, num_groups * num_points * 3)
        init_sampling_offset(self.sampling_offset)

        self.spatial_mixing = AdaptiveMixing(
            channels, num_points, num_groups, query_dim, out_points=num_points * out_multiplier
        )
        self.temporal_mixing = AdaptiveMixing(
            channels, num_views, num_groups, query_dim, out_points=num_views * out_multiplier
        )

        self.spatial_norm = nn.LayerNorm(query_dim)
        self.temporal_norm = nn.LayerNorm(query_dim)
        self.out = nn.Linear(2 * query_dim, query_dim)

    def forward(self, queries: Tensor, views: QueryViews, pyramid: ViewPyramid) -> Tensor:
        """Updates (Q, D), 0 for queries that no view sees."""
        sampled = self.sample(queries, views, pyramid)  # (Q, K, G, P, c)
        groups_per_anchor = self.num_groups // self.num_anchors
        valid = views.valid.repeat_interleave(groups_per_anchor, dim=-1)  # (Q, K, G)
        num_valid = valid.sum(1).clamp(min=1)

        # the mean over valid views mixes its points, the mean over points mixes its views
        over_views = sampled.sum(1) / num_valid[..., None, None]  # (Q, G, P, c)
        over_points = sampled.mean(3).transpose(1, 2)  # (Q, G, K, c)
        visible = valid.any(1)[..., None].expand(-1, -1, self.num_points)
        spatial = self.spatial_mixing(over_views[None], queries[None], visible[None])[0]
        temporal = self.temporal_mixing(
            over_points[None], queries[None], valid.transpose(1, 2)[None]
        )[0]

        update = self.out(
            torch.cat((self.spatial_norm(spatial), self.temporal_norm(temporal)), dim=-1)
        )
        return update * views.valid.flatten(1).any(1)[:, None]

    def sample(self, queries: Tensor, views: QueryViews, pyramid: ViewPyramid) -> Tensor:
        """(Q, K, G, P, c), 0 where not valid."""
        points = self.sample_points(queries, views)  # (n, G / A * P, 3)
        query, slot, anchor = views.valid.nonzero(as_tuple=True)

        # four corners on every level, bilinear times level weights
        table = pyramid.table
        weights = translate_to_linear_weight(
            points[..., 2] - pyramid.mapping_stride, len(table.sizes), self.tau
        )
        cells, weights = corners(points[..., :2], weights, table.sizes, table.strides)

        # row = (image · cells + cell) G + group
        groups = self._groups(anchor).repeat_interleave(self.num_points, dim=1)
        image = views.image[query, slot]
        index = (image[:, None, None] * table.num_cells + cells) * self.num_groups
        index = index + groups[..., None]
        rows = gather_rows(table.rows, index.flatten(0, 1), weights.flatten(0, 1))

        groups_per_anchor = self.num_groups // self.num_anchors
        rows = rows.view(len(query), groups_per_anchor, self.num_points, table.rows.shape[1])
        shape = (*views.valid.shape, *rows.shape[1:])
        sampled = rows.new_zeros(shape).index_put((query, slot, anchor), rows)
        # anchor a has the groups a * G / A … (a + 1) * G / A
        return sampled.flatten(2, 3)

    def sample_points(self, queries: Tensor, views: QueryViews) -> Tensor:
        """(n, G / A * P, 3) x, y, level on the canvas, for the n valid boxes in order."""
        offset = self.sampling_offset(queries).float().unflatten(-1, (self.num_anchors, -1))
        query, slot, anchor = views.valid.nonzero(as_tuple=True)
        offset = offset[query, anchor][:, None]
        xyzr = views.xyzr[query, slot, anchor][:, None]
        return make_sample_points(offset, offset.shape[-1] // 3, xyzr)[:, 0, 0]

    def _groups(self, anchor: Tensor) -> Tensor:
        """(n, G / A) groups of each anchor."""
        groups_per_anchor = self.num_groups // self.num_anchors
        steps = torch.arange(groups_per_anchor, device=anchor.device)
        return anchor[:, None] * groups_per_anchor + steps
