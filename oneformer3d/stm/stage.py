"""One stage of the tube decoder: attend, sample, mix over points and over frames, predict.

Enters: a pyramid of T frames, spatial and temporal queries (B, N, D) and boxes (B, N, T', 4),
T' = 1 where all frames share a box, else T. Leaves: both queries, class and action logits, refined
boxes. After Wu et al., "STMixer: A One-Stage Sparse Action Detector", CVPR 2023.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .boxes import box_embedding, check_boxes, log_iof, refine_xyzr
from .mixing import AdaptiveMixing
from .sampling import SAMPLE4D, LevelTable, level_table, make_sample_points

ACTION_PRIOR = 0.01


class StageOutput(NamedTuple):
    """What a stage predicts, and what the next one starts from.

    Attributes:
        cls_logits: (B, N, classes).
        action_logits: (B, N, actions).
        xyzr: (B, N, T', 4) refined boxes.
        spatial, temporal: (B, N, D) queries.
    """

    cls_logits: Tensor
    action_logits: Tensor
    xyzr: Tensor
    spatial: Tensor
    temporal: Tensor


class AdaptiveSTSamplingMixing(nn.Module):
    """Points sampled in every frame, mixed over points and over frames.

    The spatial query mixes the P points, averaged over the frames; the temporal query mixes the T
    frames, averaged over the points.

    Args:
        spatial_points: P.
        temporal_points: T.
        out_multiplier: points after mixing over points before.
        n_groups: G.
        query_dim: D.
        feat_channels: of the pyramid; D by default.
        mapping_stride, tau: see ``SAMPLE4D``.
    """

    def __init__(
        self,
        spatial_points: int = 32,
        temporal_points: int = 4,
        out_multiplier: int = 4,
        n_groups: int = 4,
        query_dim: int = 256,
        feat_channels: int | None = None,
        mapping_stride: float = 3.0,
        tau: float = 2.0,
    ) -> None:
        super().__init__()
        channels = query_dim if feat_channels is None else feat_channels
        self.spatial_points = spatial_points
        self.temporal_points = temporal_points
        self.n_groups = n_groups
        self.mapping_stride = mapping_stride
        self.tau = tau

        self.sampling_offset_generator = nn.Linear(query_dim, spatial_points * n_groups * 3)
        self.adaptive_mixing_s = AdaptiveMixing(
            channels,
            spatial_points,
            n_groups,
            query_dim,
            out_points=spatial_points * out_multiplier,
        )
        self.adaptive_mixing_t = AdaptiveMixing(
            channels,
            temporal_points,
            n_groups,
            query_dim,
            out_points=temporal_points * out_multiplier,
        )

        self.norm_s = nn.LayerNorm(query_dim)
        self.norm_t = nn.LayerNorm(query_dim)
        init_sampling_offset(self.sampling_offset_generator)

    def forward(
        self,
        values: Sequence[Tensor] | LevelTable,
        featmap_strides: Sequence[float] | None,
        spatial_queries: Tensor,
        temporal_queries: Tensor,
        xyzr: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Updated queries.

        Args:
            values: L maps (B, C, T, h, w), or their table.
            featmap_strides: of the maps.
            spatial_queries, temporal_queries: (B, N, D).
            xyzr: (B, N, 4), or (B, N, T', 4).

        Raises:
            ValueError: T frames that are not ``temporal_points``, or boxes of other frames.
        """
        if xyzr.ndim == 3:
            xyzr = xyzr[:, :, None]  # (B, N, 1, 4)
        check_boxes(xyzr)
        shared = xyzr.shape[2] == 1
        if not isinstance(values, LevelTable):
            values = level_table(list(values), featmap_strides or (), self.n_groups, shared)
        check_frames(values.num_frames, self.temporal_points, xyzr)

        offset = self.sampling_offset_generator(spatial_queries)
        num_points = self.n_groups * self.spatial_points
        points = torch.stack(
            [make_sample_points(offset, num_points, boxes) for boxes in xyzr.unbind(2)], dim=1
        )  # (B, T', N, 1, G·P, 3)
        sampled, _ = SAMPLE4D(
            points[:, 0] if shared else points,
            values,
            n_points=self.spatial_points,
            mapping_stride=self.mapping_stride,
            tau=self.tau,
        )
        sampled = sampled[..., 0].permute(0, 5, 2, 3, 4, 1)  # (B, N, G, T, P, c)

        spatial = self.adaptive_mixing_s(sampled.mean(3), spatial_queries)
        temporal = self.adaptive_mixing_t(sampled.mean(4), temporal_queries)
        return self.norm_s(spatial), self.norm_t(temporal)


class AMStage(nn.Module):
    """Attention among queries, sampling and mixing, FFN, heads.

    Args:
        query_dim: D.
        feat_channels: of the pyramid.
        num_heads: of the attention.
        feedforward_channels: of the FFN.
        spatial_points, temporal_points, out_multiplier, n_groups: see
            ``AdaptiveSTSamplingMixing``.
        num_classes_object: classes of boxes, the last of them background.
        num_classes_action: actions.
        num_box_frames: T', 1 for boxes that all frames share.
        dropout: in attention and FFN.
        mapping_stride: see ``SAMPLE4D``.
    """

    def __init__(
        self,
        query_dim: int = 256,
        feat_channels: int | None = None,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        spatial_points: int = 32,
        temporal_points: int = 4,
        out_multiplier: int = 4,
        n_groups: int = 4,
        num_classes_object: int = 2,
        num_classes_action: int = 80,
        num_box_frames: int = 1,
        dropout: float = 0.0,
        mapping_stride: float = 3.0,
    ) -> None:
        super().__init__()
        self.num_box_frames = num_box_frames
        self.attention_s = BoxAttention(query_dim, num_heads, dropout)
        self.attention_t = BoxAttention(query_dim, num_heads, dropout)
        self.sampling_mixing = AdaptiveSTSamplingMixing(
            spatial_points,
            temporal_points,
            out_multiplier,
            n_groups,
            query_dim,
            feat_channels,
            mapping_stride,
        )

        self.ffn_s = _FFN(query_dim, feedforward_channels, dropout)
        self.ffn_t = _FFN(query_dim, feedforward_channels, dropout)

        self.cls_fc = _hidden(query_dim, query_dim)
        self.cls_head = nn.Linear(query_dim, num_classes_object)
        self.box_fc = _hidden(query_dim * (1 if num_box_frames == 1 else 2), query_dim)
        self.box_head = nn.Linear(query_dim, 4 * num_box_frames)
        self.action_fc = _hidden(2 * query_dim, 2 * query_dim)
        self.action_head = nn.Linear(2 * query_dim, num_classes_action)

        # boxes stay where they are at first, and actions are rare
        nn.init.zeros_(self.box_head.weight)
        nn.init.zeros_(self.box_head.bias)
        nn.init.constant_(self.action_head.bias, -math.log((1 - ACTION_PRIOR) / ACTION_PRIOR))

    def forward(
        self, values: LevelTable, spatial: Tensor, temporal: Tensor, xyzr: Tensor
    ) -> StageOutput:
        """One stage.

        Args:
            values: the pyramid.
            spatial, temporal: (B, N, D).
            xyzr: (B, N, T', 4).
        """
        check_boxes(xyzr)
        bias = log_iof(xyzr)  # (B, N, N)
        position = box_embedding(xyzr.mean(2), spatial.shape[-1]).to(spatial.dtype)
        spatial = self.attention_s(spatial, position, bias)
        temporal = self.attention_t(temporal, position, bias)

        spatial, temporal = self.sampling_mixing(values, None, spatial, temporal, xyzr)
        spatial, temporal = self.ffn_s(spatial), self.ffn_t(temporal)

        both = torch.cat((spatial, temporal), dim=-1)  # (B, N, 2 D)
        # Where the box moves from frame to frame is a question of time, too.
        box_input = spatial if self.num_box_frames == 1 else both
        delta = self.box_head(self.box_fc(box_input)).unflatten(-1, (self.num_box_frames, 4))

        return StageOutput(
            cls_logits=self.cls_head(self.cls_fc(spatial)),
            action_logits=self.action_head(self.action_fc(both)),
            xyzr=refine_xyzr(xyzr, delta.float()),
            spatial=spatial,
            temporal=temporal,
        )


class BoxAttention(nn.Module):
    """Self-attention that prefers queries whose boxes cover one's own; post-norm residual.

    Args:
        dim: D.
        num_heads: each with a factor of the bias of its own, 0…4 at first.
        dropout: of the attention.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn = nn.MultiheadAttention(dim, num_heads, dropout=dropout, batch_first=True)
        self.iof_tau = nn.Parameter(torch.empty(num_heads).uniform_(0.0, 4.0))
        self.norm = nn.LayerNorm(dim)

    def forward(self, queries: Tensor, position: Tensor, bias: Tensor) -> Tensor:
        """(B, N, D) queries and box embeddings, (B, N, N) bias → (B, N, D)."""
        x = queries + position
        mask = (bias[:, None] * self.iof_tau[:, None, None]).flatten(0, 1).to(x.dtype)
        attended = self.attn(x, x, x, attn_mask=mask, need_weights=False)[0]
        # the box stays in the residual, as in STMixer's own layer
        return self.norm(x + attended)


class _FFN(nn.Module):
    """Two-layer perceptron; post-norm residual."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        return self.norm(x + self.net(x))


def init_sampling_offset(linear: nn.Linear) -> None:
    """Points spread over the box, on its own level, the same for every query at first."""
    nn.init.zeros_(linear.weight)
    with torch.no_grad():
        bias = linear.bias.view(-1, 3)
        bias.uniform_(-0.5, 0.5)
        bias[:, 2] = 0


def check_frames(num_frames: int, temporal_points: int, xyzr: Tensor) -> None:
    """ValueError where the frames are not those that the temporal mixing was made for."""
    if num_frames != temporal_points:
        raise ValueError(
            f'the temporal mixing was made for {temporal_points} frames, got maps of {num_frames}'
        )
    if xyzr.shape[2] not in (1, num_frames):
        raise ValueError(f'boxes of {xyzr.shape[2]} frames beside maps of {num_frames}')


def _hidden(in_dim: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, dim), nn.LayerNorm(dim), nn.ReLU())
