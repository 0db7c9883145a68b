"""The stand-alone decoder: a pyramid of a clip → boxes, classes and actions of tubes.

Enters: maps (B, C, T, h, w) at several strides. Leaves: the ``StageOutput`` of every stage.
Letters: B clips, T frames, N queries, D their width, T' frames of a box (1 where shared).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .boxes import clip_sizes, whole_images
from .sampling import level_table
from .stage import AMStage, StageOutput, check_frames


class STMDecoder(nn.Module):
    """Queries sample and mix a clip, stage after stage (Wu et al., STMixer, CVPR 2023).

    With the defaults each stage has 25.3 M parameters, 151.9 M in all; most of them make and
    project mixing weights, and shrink with ``spatial_points``, ``out_multiplier`` and D.

    Args:
        num_stages: stages.
        num_queries: N.
        query_dim: D.
        feat_channels: C; D by default.
        featmap_strides: of the maps, finest first.
        num_heads: of the attention.
        feedforward_channels: of the FFN.
        spatial_points: P.
        temporal_points: T.
        out_multiplier: points after mixing over points before.
        n_groups: G.
        num_classes_object: classes of boxes, the last of them background.
        num_classes_action: actions.
        per_frame_boxes: a box for every frame instead of one for all.
        dropout: in attention and FFN.
        mapping_stride: see ``SAMPLE4D``; 3 for a finest stride of 4.

    Raises:
        ValueError: sizes below 1 or that do not divide.
    """

    def __init__(
        self,
        num_stages: int = 6,
        num_queries: int = 100,
        query_dim: int = 256,
        feat_channels: int | None = None,
        featmap_strides: Sequence[int] = (4, 8, 16, 32),
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        spatial_points: int = 32,
        temporal_points: int = 4,
        out_multiplier: int = 4,
        n_groups: int = 4,
        num_classes_object: int = 2,
        num_classes_action: int = 80,
        per_frame_boxes: bool = False,
        dropout: float = 0.0,
        mapping_stride: float = 3.0,
    ) -> None:
        super().__init__()
        if min(num_stages, num_queries) < 1:
            raise ValueError('STMDecoder: expected at least one stage and one query')
        if query_dim % num_heads or query_dim % 8:
            raise ValueError(f'query_dim={query_dim}: expected a multiple of 8 and of {num_heads}')

        self.featmap_strides = tuple(featmap_strides)
        self.n_groups = n_groups
        self.temporal_points = temporal_points
        self.num_box_frames = temporal_points if per_frame_boxes else 1

        self.init_spatial = nn.Embedding(num_queries, query_dim)
        self.init_temporal = nn.Embedding(num_queries, query_dim)
        self.input_norm = nn.LayerNorm(query_dim, elementwise_affine=False)

        self.stages = nn.ModuleList(
            AMStage(
                query_dim,
                feat_channels,
                num_heads,
                feedforward_channels,
                spatial_points,
                temporal_points,
                out_multiplier,
                n_groups,
                num_classes_object,
                num_classes_action,
                self.num_box_frames,
                dropout,
                mapping_stride,
            )
            for _ in range(num_stages)
        )

    def forward(
        self, features: Sequence[Tensor], whwh: Tensor | tuple[int, int]
    ) -> list[StageOutput]:
        """Decode a batch of clips; the boxes start as the whole image.

        Args:
            features: maps (B, C, T', h, w), one for each stride. Clips of smaller frames are
                padded at the right and bottom. Where boxes are shared and T' is not
                ``temporal_points``, the maps are brought to so many frames, linearly in time.
            whwh: (B, 4) width, height, width, height of the frames of each clip in pixels, without
                padding; or the (H, W) that all share.

        Returns:
            The output of each stage, the last one last.

        Raises:
            ValueError: maps that do not fit the strides, the frames or each other.
        """
        features = list(features)
        if len(features) != len(self.featmap_strides):
            raise ValueError(
                f'expected maps of strides {self.featmap_strides}, got {len(features)} maps'
            )

        shared = self.num_box_frames == 1
        if shared:
            features = [resample_frames(x, self.temporal_points) for x in features]
        table = level_table(features, self.featmap_strides, self.n_groups, shared)

        # every query starts as the whole image
        batch_size = features[0].shape[0]
        boxes = whole_images(clip_sizes(whwh, batch_size)).to(features[0])[:, None, None]
        xyzr = boxes.expand(-1, len(self.init_spatial.weight), self.num_box_frames, -1)
        check_frames(table.num_frames, self.temporal_points, xyzr)  # (B, N, T', 4)
        spatial = self.input_norm(self.init_spatial.weight).expand(batch_size, -1, -1)
        temporal = self.input_norm(self.init_temporal.weight).expand(batch_size, -1, -1)

        outputs = []
        for stage in self.stages:
            outputs.append(stage(table, spatial, temporal, xyzr))
            spatial, temporal, xyzr = outputs[-1].spatial, outputs[-1].temporal, outputs[-1].xyzr
        return outputs


def resample_frames(maps: Tensor, num_frames: int) -> Tensor:
    """Maps (B, C, T, h, w) at ``num_frames`` moments evenly spread over the clip.

    Example:
        >>> resample_frames(torch.arange(4.0).reshape(1, 1, 4, 1, 1), 2).flatten()
        tensor([0.5000, 2.5000])
    """
    if maps.shape[2] == num_frames:
        return maps
    rows = maps.flatten(3).permute(0, 1, 3, 2).flatten(1, 2)  # (B, C·h·w, T)
    rows = F.interpolate(rows, size=num_frames, mode='linear', align_corners=False)
    rows = rows.unflatten(1, (maps.shape[1], -1)).transpose(2, 3)
    return rows.unflatten(3, tuple(maps.shape[3:]))


def num_parameters(module: nn.Module) -> int:
    """Numbers in all parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def detections(
    output: StageOutput, score_thr: float = 0.6, at_least: int = 3
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Per clip boxes (K, T', 4) as x, y, z, r, scores (K,) and action probabilities (K, actions).

    As STMixer chooses persons: all that are sure, and where none is, the best few.

    Args:
        output: of a stage.
        score_thr: least probability of not being background.
        at_least: boxes of a clip without any that is sure.
    """
    scores = 1 - output.cls_logits.softmax(-1)[..., -1]  # (B, N)
    actions = output.action_logits.sigmoid()
    keep = scores >= score_thr
    best = scores.topk(min(at_least, scores.shape[1]), dim=1).indices
    few = torch.zeros_like(keep).scatter(1, best, True)
    keep = torch.where(keep.any(1, keepdim=True), keep, few)
    return [
        (xyzr[k], score[k], action[k])
        for xyzr, score, action, k in zip(output.xyzr, scores, actions, keep)
    ]
