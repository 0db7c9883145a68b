"""What the Bi-Fusion encoder returns: the segmentor's point features and all that fusion found.

The dictionaries of ``FusedPoints.samples`` are the interface for whatever merges the points of
several scans or frames later on: they say which scene a point is of and which frame shows it.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import TypedDict

import torch
from torch import Tensor

from oneformer3d.structures import PointFeatures

from .image_branch import LiftedViews


class FusedSample(TypedDict):
    """Of one sample: N points, D channels, V views with embeddings (V, D')."""

    feat_fusion: Tensor
    conf_2d: Tensor
    pe_xyz: Tensor
    gate: Tensor
    valid: Tensor
    frame_of_point: Tensor
    clip_global: Tensor | None
    scene_id: str
    frame_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FusedPoints(PointFeatures):
    """Point features with what fusion found out.

    Attributes:
        fused: (sum N, 96) gated features; with early fusion alone (sum N, E) those.
        gate: (sum N, 96), exactly 0 where no view sees the point; with early fusion alone
            (sum N, 1) the confidence.
        geo: (sum N, 32) positional encoding; with early fusion alone (sum N, 0).
        lifted: what the views show of the points.
        view_of_point: (sum N,) int64, the view of the sample that is nearest, −1 for none.
        scene_ids: of each sample, '' where unknown.
    """

    fused: Tensor
    gate: Tensor
    geo: Tensor
    lifted: LiftedViews
    view_of_point: Tensor
    scene_ids: tuple[str, ...]

    def samples(self) -> list[FusedSample]:
        """The documented outputs, one dictionary per sample.

        ``feat_fusion`` (N, D), ``conf_2d`` (N,) 0…1, ``pe_xyz`` (N, 32), ``gate`` (N, 96),
        ``valid`` (N,) bool, ``clip_global`` (V, D') or None, ``scene_id``, ``frame_ids`` (V names)
        and ``frame_of_point`` (N,) int64, the index in ``frame_ids`` of the view that sees the
        point from nearest, −1 for none.
        """
        views_of_sample = self.views or (None,) * len(self.num_points)
        ends = list(accumulate(self.num_points))
        rows = [slice(end - count, end) for count, end in zip(self.num_points, ends)]

        return [
            FusedSample(
                feat_fusion=self.features[of],
                conf_2d=self.lifted.conf[of],
                pe_xyz=self.geo[of],
                gate=self.gate[of],
                valid=self.lifted.valid[of],
                frame_of_point=self.view_of_point[of],
                clip_global=None if views is None else views.clip_global,
                scene_id=scene_id,
                frame_ids=() if views is None else views.frames,
            )
            for of, views, scene_id in zip(rows, views_of_sample, self.scene_ids)
        ]


@torch.no_grad()
def fusion_statistics(points: FusedPoints) -> dict[str, Tensor]:
    """Metrics of a batch, scalars; none has "loss" in its name, so none is added to the loss.

    ``gate_mean`` and ``gate_std`` over visible points, ``coverage`` (visible points / points),
    ``views_per_point`` (over visible points), ``valid_rate`` (visible pairs / pairs of a point and
    a view), ``conf_mean`` over visible points.
    """
    lifted, batch = points.lifted, points.lifted.batch
    num_visible = lifted.valid.sum().clamp(min=1)
    gate = points.gate.float().mean(1)[lifted.valid]  # (n,)
    mean = gate.sum() / num_visible

    possible = sum(n * v for n, v in zip(batch.num_points, batch.num_views))
    num_pairs = mean.new_tensor(float(len(batch.pairs)))
    return {
        'gate_mean': mean,
        'gate_std': ((gate - mean).square().sum() / num_visible).sqrt(),
        'coverage': lifted.valid.float().mean(),
        'valid_rate': num_pairs / max(1, possible),
        'views_per_point': num_pairs / num_visible,
        'conf_mean': lifted.conf.sum() / num_visible,
    }
