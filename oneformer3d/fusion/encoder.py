"""Bi-Fusion encoder: 3D features of points, fused with CLIP features that the views lift to them.

Enters: the points of a batch and ``PosedViews`` of each sample. Leaves: ``FusedPoints``, the
segmentor's ``PointFeatures`` with all that fusion found out. Letters as in ``structures``.

    points → 3D encoder ─┬──────────────────────────────(residual)─ + ── features
                         └ TinySA ×2 → Linear (128) ─┐              │
    views  → CLIP map → Conv, Linear → lift (128) ───┤ gate (96) ─ Linear, zero at first
    points, cameras → Geo-PE (32) ───────────────────┘     └──(concat, gate)─── features

In mode 'residual' the 3D feature stays as it is and the fused one is added through a layer that
starts at zero: with the same weights the first step equals the 3D network's, and 3D weights load
with only the layers of the fusion missing. In mode 'concat' this holds too: the fused feature of
what some view sees stands beside the 3D one, and what starts at zero are the weights by which the
decoder reads it (``side_channels`` = 96). It is not squeezed into the width of the backbone, and
without views the network stays the 3D network even after training. In mode 'gate' the decoder sees
the 96 fused channels alone.

``fuse`` says where the image features enter: 'late' as drawn; 'early' in the first convolution of
the 3D encoder, reduced to E channels beside colour, by weights that start at zero (``early.py``);
'both' in both places. With 'early' alone nothing else is fused, and the decoder reads the 3D
features.

Points and not voxels are fused, so each point keeps what it alone shows; a room at 5 cm has about
as many of one as of the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn

from oneformer3d.registry import MODELS
from oneformer3d.store import token_channels
from oneformer3d.structures import (
    PointEncoder,
    PosedViews,
    ViewBatch,
    hide_prefix,
    point_labels,
    views_of,
)

from .consistency import consistency_inputs
from .early import EarlyFusion
from .fused_points import FusedPoints, fusion_statistics
from .gate import FusionGate, GeoPE, nearest_views
from .image_branch import ImageBranch, LiftedViews
from .online_clip import OnlineClip
from .point_classes import PointSemanticCriterion
from .standalone import accepts_plain_tensors
from .tiny_sa import TinySANeck

WIDTH = 128  # of the image feature and of the 3D feature where they meet
HEAD_CHANNELS = 256
MODES = ('residual', 'concat', 'gate')
FUSE = ('early', 'late', 'both')


@dataclass(frozen=True)
class LateFusion:
    """What fusion behind the 3D encoder gives; the last four as in ``FusedPoints``.

    Attributes:
        features: (sum N, D') what the decoder reads.
        shape: (sum N, D) 3D features among their neighbours.
    """

    features: Tensor
    shape: Tensor
    fused: Tensor
    gate: Tensor
    geo: Tensor
    view_of_point: Tensor


@MODELS.register_module()
class BiFusionEncoder(PointEncoder):
    """Encoder of points and views; takes an encoder's place in a segmentor.

    In state dicts the parameters of the 3D encoder have no prefix, as when it stands alone.

    Args:
        encoder_3d: settings of the 3D encoder.
        point_channels: its width.
        fuse: 'early', 'late' or 'both', where image features enter.
        mode: 'residual', 'concat' or 'gate', how the late ones do.
        fused_channels: of the gated feature, late.
        early_channels: E of what enters the first convolution, early.
        clip_channels: C of the frozen tokens; with a store (or online CLIP) that is there its
            header decides, and this is for building a model without it.
        clip_store: folder of the feature store. Offline the header is read here, and the maps by
            the data pipeline or, of a call with plain tensors, by names; online it is filled on
            first use.
        offline_clip_feat: views carry maps; else they carry images, and CLIP is part of the model.
        clip: online, settings of ``ClipEncoder``.
        freeze_blocks: online, how many of CLIP's last blocks train; 0 freezes all of it.
        memory_budget: online, bytes; on GPUs with less memory CLIP waits on the CPU.
        sub_pixel: factor of the learnt enlargement of the tokens, see ``SubPixelConv``.
        upsample: factor of the bilinear one behind it; with both 1 the patches are read directly.
        use_amp: half precision on CUDA in the image branch, whose linear layer stays float32, and
            online in CLIP.
        use_tiny_sa_2d: attention within each map.
        use_tiny_sa_3d: attention in neighbourhoods of points, late.
        tiny_sa: settings of ``TinySANeck``.
        clip_cons: settings of ``ClipConsCriterion``, or None.
        point_semantic: settings of ``PointSemanticCriterion``, or None.
        train_without_views: training decodes every sample a second time as it is without views,
            so that scans without images lose nothing; the 3D encoder, which is nearly all of a
            step, runs once for both where fusion is late only.
    """

    def __init__(
        self,
        # points
        encoder_3d: dict,
        point_channels: int,
        # fusion
        fuse: str = 'late',
        mode: str = 'residual',
        fused_channels: int = 96,
        early_channels: int = 48,
        # stored maps, or CLIP as a part of the model
        clip_channels: int | None = None,
        clip_store: str | None = None,
        offline_clip_feat: bool = True,
        clip: dict | None = None,
        freeze_blocks: int = 0,
        memory_budget: int = 8 << 30,
        # image branch and attention
        sub_pixel: int = 2,
        upsample: int = 2,
        use_amp: bool = True,
        use_tiny_sa_2d: bool = False,
        use_tiny_sa_3d: bool = True,
        tiny_sa: dict | None = None,
        # training
        clip_cons: dict | None = None,
        point_semantic: dict | None = None,
        train_without_views: bool = False,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f'mode: expected one of {MODES}, got {mode!r}')
        if fuse not in FUSE:
            raise ValueError(f'fuse: expected one of {FUSE}, got {fuse!r}')
        if offline_clip_feat and (clip is not None or freeze_blocks):
            raise ValueError('clip and freeze_blocks are of online features: offline_clip_feat')
        self.mode = mode
        self.fused_channels = fused_channels
        self.clip_store = clip_store
        self.train_without_views = train_without_views

        # points and maps
        side = {} if fuse == 'late' else {'side_channels': early_channels}
        self.points_3d = MODELS.build({**encoder_3d, **side})
        self.online_clip = None
        if not offline_clip_feat:
            self.online_clip = OnlineClip(
                clip, freeze_blocks, clip_store, memory_budget=memory_budget, use_amp=use_amp
            )
            self.clip_channels = self.online_clip.clip_channels
        else:
            self.clip_channels = token_channels(clip_store, clip_channels)

        # what is fused, and how much of each
        self.image_branch = ImageBranch(
            self.clip_channels, HEAD_CHANNELS, WIDTH, upsample, use_tiny_sa_2d, use_amp, sub_pixel
        )
        self.early = EarlyFusion(WIDTH, early_channels) if fuse != 'late' else None
        self.late = fuse != 'early'
        if self.late:
            self.tiny_sa = TinySANeck(point_channels, **(tiny_sa or {})) if use_tiny_sa_3d else None
            self.point_linear = nn.Linear(point_channels, WIDTH)
            self.geo_pe = GeoPE()
            self.fusion_gate = FusionGate(WIDTH, channels=fused_channels)
            self.out = _zero_linear(fused_channels, point_channels) if mode == 'residual' else None
        else:
            self.fused_channels = fused_channels = early_channels

        # further losses
        self.clip_cons = self.point_semantic = None
        if clip_cons is not None:
            widths = {'in_channels': fused_channels, 'target_channels': self.clip_channels}
            self.clip_cons = MODELS.build({**widths, **clip_cons})
        if point_semantic is not None:
            settings = {'type': PointSemanticCriterion, 'in_channels': fused_channels}
            self.point_semantic = MODELS.build({**settings, **point_semantic})

        hide_prefix(self, 'points_3d')

    @accepts_plain_tensors
    def forward(
        self, inputs: Mapping, data_samples: Sequence[Det3DDataSample] | None = None
    ) -> FusedPoints:
        """Fused features; plain tensors are taken too, see ``accepts_plain_tensors``.

        Args:
            inputs: ``points`` [(N, 6)], ``views`` [``PosedViews`` or None] or absent, and what
                the 3D encoder reads besides.
            data_samples: hold the names of scenes without views.
        """
        points = inputs['points']
        views = self._with_maps(views_of(inputs))

        # what the views show of each point
        num_points = tuple(map(len, points))
        batch = ViewBatch.of_maps(views, self.clip_channels, points[0].device, num_points)
        lifted = self.image_branch(batch)  # (sum N, 128)
        early = None if self.early is None else self.early(lifted)  # (sum N, E)

        # what each point is, with that beside its colour or without, and what is fused then
        seen = inputs if early is None else {**inputs, 'side_features': early}
        base = self.points_3d(seen, data_samples)  # (sum N, D)
        if early is not None and not self.late:
            late = _nothing_late(base.features, early, lifted, points, views)
        else:
            late = self._late(base.features, lifted, points, views)

        without_views = None
        if self.training and self.train_without_views:
            if early is None:
                without_views = self._without_views(base.features, late.shape, points)
            else:  # the 3D features change with the views
                blind = self.points_3d(inputs, data_samples).features  # (sum N, D)
                without_views = self._without_views(blind, None, points)

        return FusedPoints(
            features=late.features,
            voxel_of_point=base.voxel_of_point,
            num_points=base.num_points,
            fused=late.fused,
            gate=late.gate,
            geo=late.geo,
            lifted=lifted,
            view_of_point=late.view_of_point,
            views=views,
            scene_ids=_scene_ids(views, data_samples),
            without_views=without_views,
        )

    def _late(
        self,
        base: Tensor,
        lifted: LiftedViews,
        points: Sequence[Tensor],
        views: Sequence[PosedViews | None],
    ) -> LateFusion:
        """3D features (sum N, D) with what the views show beside, behind or in place of them."""
        geo, view_of_point = self.geo_pe(points, views)  # (sum N, 32), where each point is
        shape = self._among_neighbours(base, points)  # (sum N, D)

        # how much of the image it takes
        fused, gate = self.fusion_gate(
            lifted.features, self.point_linear(shape), geo, lifted.conf, lifted.valid
        )  # (sum N, 96)
        features = self._features(base, fused, lifted.valid)
        return LateFusion(features, shape, fused, gate, geo, view_of_point)

    def _among_neighbours(self, base: Tensor, points: Sequence[Tensor]) -> Tensor:
        """(sum N, D) 3D features after TinySA."""
        if self.tiny_sa is None:
            return base
        xyz = torch.cat([cloud[:, :3] for cloud in points])  # (sum N, 3)
        return self.tiny_sa(base, xyz, tuple(map(len, points)))

    def _with_maps(self, views: Sequence[PosedViews | None]) -> tuple[PosedViews | None, ...]:
        """The views; with CLIP as a part of the model, those without maps get theirs."""
        if self.online_clip is None:
            return tuple(views)
        return tuple(
            self.online_clip(sample) if sample is not None and sample.feat is None else sample
            for sample in views
        )

    def _features(self, base: Tensor, fused: Tensor, valid: Tensor) -> Tensor:
        """What the decoder reads, of 3D features, fused ones and whether a view sees the point."""
        if self.mode == 'gate':
            return fused  # (sum N, 96)
        if self.mode == 'concat' or self.out is None:
            return torch.cat((base, fused * valid[:, None]), dim=1)  # (sum N, D + 96)
        return base + self.out(fused)  # (sum N, D)

    def _without_views(
        self, base: Tensor, shape: Tensor | None, points: Sequence[Tensor]
    ) -> Tensor:
        """The features that points without views get, of 3D features before and after TinySA."""
        if not self.late:
            return base
        valid = torch.zeros_like(base[:, 0], dtype=torch.bool)  # (sum N,)
        if self.mode == 'concat':  # here the fused feature of a point without views is not read
            return self._features(base, base.new_zeros(len(base), self.fused_channels), valid)

        geo, _ = self.geo_pe(points, [None] * len(points))
        refined = self._among_neighbours(base, points) if shape is None else shape
        shown = self.point_linear(refined)  # (sum N, 128)
        fused, _ = self.fusion_gate(torch.zeros_like(shown), shown, geo, valid.to(shown), valid)
        return self._features(base, fused, valid)

    def auxiliary_losses(
        self,
        points: FusedPoints,
        data_samples: Sequence[Det3DDataSample] | None = None,
        iteration: int | None = None,
    ) -> dict[str, Tensor]:
        """Losses of the criteria that there are, and ``fusion_statistics``.

        Raises:
            ValueError: ``PointSemanticCriterion`` without labels, or a warm-up without iteration.
        """
        losses = {}
        if self.clip_cons is not None:
            compared = consistency_inputs(points, self.clip_cons.max_points)
            losses |= self.clip_cons(**compared, iteration=iteration)

        if self.point_semantic is not None:
            valid = points.lifted.valid
            labels = point_labels(data_samples, 'pts_semantic_mask', points.fused.device)
            losses |= self.point_semantic(points.fused[valid], torch.cat(labels)[valid])
        return {**losses, **fusion_statistics(points)}


def _nothing_late(
    base: Tensor,
    early: Tensor,
    lifted: LiftedViews,
    points: Sequence[Tensor],
    views: Sequence[PosedViews | None],
) -> LateFusion:
    """With early fusion alone: the fused features are the early ones, the gate their confidence."""
    view_of_point = torch.cat(nearest_views(points, views))  # (sum N,)
    geo = base.new_zeros(len(base), 0)
    return LateFusion(base, base, early, lifted.conf[:, None], geo, view_of_point)


def _zero_linear(in_channels: int, out_channels: int) -> nn.Linear:
    linear = nn.Linear(in_channels, out_channels)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _scene_ids(
    views: Sequence[PosedViews | None], data_samples: Sequence[Det3DDataSample] | None
) -> tuple[str, ...]:
    """Name of each scene, '' where unknown."""
    names = [''] * len(views)
    for i, sample in enumerate(views):
        if sample is not None:
            names[i] = sample.scene_id
        elif data_samples is not None:
            names[i] = data_samples[i].metainfo.get('scene_id', '')
    return tuple(names)
