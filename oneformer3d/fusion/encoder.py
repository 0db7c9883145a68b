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
Points and not voxels are fused, so what one point sees stays its own; a room at 5 cm has about
as many of one as of the other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from oneformer3d.registry import MODELS
from oneformer3d.store.manifest import read_manifest
from oneformer3d.structures import PointFeatures

from .consistency import consistency_inputs
from .fused_points import FusedPoints, fusion_statistics
from .gate import FusionGate, GeoPE
from .image_branch import ImageBranch, batch_views, views_of_images
from .online_clip import OnlineClip
from .point_classes import semantic_labels
from .tiny_sa import TinySANeck

POINT_ENCODER = 'points_3d.'
WIDTH = 128
MODES = ('residual', 'concat', 'gate')


@MODELS.register_module()
class BiFusionEncoder(nn.Module):
    """Encoder of points and views; takes an encoder's place in a segmentor.

    In state dicts the parameters of the 3D encoder have no prefix, as when it stands alone.

    Args:
        encoder_3d: settings of the 3D encoder.
        point_channels: its width.
        mode: 'residual', 'concat' or 'gate'.
        fused_channels: of the gated feature.
        clip_channels: C of the maps; with a store (or online CLIP) that is there its header
            decides, and this is for building a model without it.
        clip_store: folder of the feature store. Offline only its header is read here, the
            data pipeline reads the maps; online it is filled on first use.
        offline_clip_feat: views carry maps; else they carry images, and CLIP is part of the model.
        clip: online, settings of ``ClipEncoder``.
        freeze_blocks: online, how many of CLIP's last blocks train; 0 freezes all of it.
        memory_budget: online, bytes; on GPUs with less memory CLIP waits on the CPU.
        upsample: of the maps before lifting; 1 samples the stored grid directly.
        use_amp: half precision on CUDA in the image branch; its linear layer stays float32.
        use_tiny_sa_2d: attention within each map.
        use_tiny_sa_3d: attention in neighbourhoods of points.
        tiny_sa: settings of ``TinySANeck``.
        clip_cons: settings of ``ClipConsCriterion``, or None.
        point_semantic: settings of ``PointSemanticCriterion``, or None.
        train_without_views: training decodes every sample a second time as it is without views,
            so that scans without images lose nothing; the 3D encoder, which is nearly all of a
            step, runs once for both.
    """

    def __init__(
        self,
        encoder_3d: dict,
        point_channels: int,
        mode: str = 'residual',
        fused_channels: int = 96,
        clip_channels: int | None = None,
        clip_store: str | None = None,
        offline_clip_feat: bool = True,
        clip: dict | None = None,
        freeze_blocks: int = 0,
        memory_budget: int = 8 << 30,
        upsample: int = 2,
        use_amp: bool = True,
        use_tiny_sa_2d: bool = False,
        use_tiny_sa_3d: bool = True,
        tiny_sa: dict | None = None,
        clip_cons: dict | None = None,
        point_semantic: dict | None = None,
        train_without_views: bool = False,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f'mode: expected one of {MODES}, got {mode!r}')
        if offline_clip_feat and (clip is not None or freeze_blocks):
            raise ValueError('clip and freeze_blocks are of online features: offline_clip_feat')
        self.mode = mode
        self.train_without_views = train_without_views
        self.points_3d = MODELS.build(encoder_3d)
        self.online_clip = None
        if not offline_clip_feat:
            self.online_clip = OnlineClip(
                clip, freeze_blocks, clip_store, memory_budget=memory_budget
            )
            clip_channels = self.online_clip.clip_channels
        else:
            clip_channels = _stored_channels(clip_store, clip_channels)
        self.clip_channels = clip_channels
        self.image_branch = ImageBranch(
            clip_channels, 256, WIDTH, upsample, use_tiny_sa_2d, use_amp
        )
        self.tiny_sa = TinySANeck(point_channels, **(tiny_sa or {})) if use_tiny_sa_3d else None
        self.point_linear = nn.Linear(point_channels, WIDTH)
        self.geo_pe = GeoPE()
        self.fused_channels = fused_channels
        self.fusion_gate = FusionGate(WIDTH, channels=fused_channels)
        self.out = None
        if mode == 'residual':
            self.out = nn.Linear(fused_channels, point_channels)
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)
        self.clip_cons = None
        if clip_cons is not None:
            self.clip_cons = MODELS.build(
                {'in_channels': fused_channels, 'target_channels': clip_channels, **clip_cons}
            )
        self.point_semantic = None
        if point_semantic is not None:
            self.point_semantic = MODELS.build(
                {
                    'type': 'PointSemanticCriterion',
                    'in_channels': fused_channels,
                    **point_semantic,
                }
            )
        taken = dict(self.named_children()).keys() & dict(self.points_3d.named_children()).keys()
        if taken:
            raise ValueError(
                f'{type(self.points_3d).__name__}: a part has one of the names {taken}'
            )
        self._register_state_dict_hook(_unnest)
        self.register_load_state_dict_pre_hook(_nest)

    def forward(
        self,
        inputs: Mapping | Tensor | Sequence[Tensor],
        data_samples: Sequence | Tensor | None = None,
        intrinsics: Tensor | Sequence[Tensor] | None = None,
        extrinsics: Tensor | Sequence[Tensor] | None = None,
        depth: Tensor | Sequence[Tensor] | None = None,
        image_size: Sequence[int] | None = None,
        scene_ids: Sequence[str] | None = None,
        frame_ids: Sequence[Sequence[str]] | None = None,
    ) -> FusedPoints | list[dict[str, Any]]:
        """As the segmentor's encoder, or on plain tensors.

        ``encoder(inputs, data_samples)`` with the segmentor's dictionary returns ``FusedPoints``.
        ``encoder(points, images, intrinsics, extrinsics)`` returns ``FusedPoints.samples()``:

        Args:
            inputs: (B, N, 6) points or a list of (N, 6).
            data_samples: images (B, 3, H, W), or per sample (3, H, W) or (V, 3, H, W), uint8
                or 0–1; offline in their place maps of ``clip_channels`` channels. None for none.
            intrinsics: (3, 3), (B, 3, 3), or per sample (3, 3) or (V, 3, 3).
            extrinsics: (B, 4, 4), or per sample (4, 4) or (V, 4, 4) camera to world.
            depth: (B, h, w), or per sample (h, w) or (V, h, w), metres; None tests the frustum.
            image_size: (H, W) that the intrinsics belong to; the images' own by default, needed
                offline.
            scene_ids: name of each sample.
            frame_ids: names of the views of each sample.

        Raises:
            ValueError: arguments of which the samples differ in number, or of wrong shapes.
        """
        if isinstance(inputs, Mapping):
            return self.encode(inputs, data_samples)
        points = list(inputs)
        views = views_of_images(
            points,
            data_samples,
            intrinsics,
            extrinsics,
            depth,
            image_size,
            scene_ids,
            frame_ids,
            as_maps=self.online_clip is None,
        )
        return self.encode({'points': points, 'views': views}).samples()

    def encode(self, inputs: Mapping, data_samples: Sequence | None = None) -> FusedPoints:
        """Fused features.

        Args:
            inputs: ``points`` [(N, 6)], ``views`` [``PosedViews`` or None] or absent, and what
                the 3D encoder reads besides.
            data_samples: may tell the names of scenes without views.
        """
        points = inputs['points']
        base: PointFeatures = self.points_3d(inputs, data_samples)
        views = tuple(inputs.get('views') or [None] * len(points))
        if self.online_clip is not None:
            views = tuple(
                self.online_clip(seen) if seen is not None and seen.feat is None else seen
                for seen in views
            )
        device = points[0].device
        # Stored maps are float16, which CPU autocast cannot stack.
        with torch.autocast(device.type, enabled=False):
            batch = batch_views(views, base.num_points, self.clip_channels, device)
        lifted = self.image_branch(batch)
        geo, view_of_point = self.geo_pe(points, views)
        shape = base.features
        if self.tiny_sa is not None:
            xyz = torch.cat([sample[:, :3] for sample in points])
            shape = self.tiny_sa(shape, xyz, base.num_points)
        fused, gate = self.fusion_gate(
            lifted.features, self.point_linear(shape), geo, lifted.conf, lifted.valid
        )
        return FusedPoints(
            features=self._features(base.features, fused, lifted.valid),
            voxel_of_point=base.voxel_of_point,
            num_points=base.num_points,
            fused=fused,
            gate=gate,
            geo=geo,
            lifted=lifted,
            view_of_point=view_of_point,
            views=views,
            scene_ids=tuple(
                seen.scene_id if seen is not None else _scene_id(data_samples, i)
                for i, seen in enumerate(views)
            ),
            without_views=(
                self._without_views(base.features, shape, points)
                if self.training and self.train_without_views
                else None
            ),
        )

    def _without_views(self, base: Tensor, shape: Tensor, points: Sequence[Tensor]) -> Tensor:
        """The features that points without views get, of 3D features before and after TinySA."""
        unseen = torch.zeros_like(base[:, 0], dtype=torch.bool)
        if self.mode == 'concat':  # whatever the fusion says of unseen points is not read
            return self._features(base, base.new_zeros(len(base), self.fused_channels), unseen)
        geo, _ = self.geo_pe(points, [None] * len(points))
        shape = self.point_linear(shape)
        fused, _ = self.fusion_gate(
            torch.zeros_like(shape), shape, geo, unseen.to(shape.dtype), unseen
        )
        return self._features(base, fused, unseen)

    def _features(self, base: Tensor, fused: Tensor, valid: Tensor) -> Tensor:
        """What the decoder reads, of 3D features, fused ones and whether a view sees the point."""
        if self.mode == 'gate':
            return fused
        if self.mode == 'concat':
            return torch.cat((base, fused * valid[:, None]), dim=1)
        return base + self.out(fused)

    def auxiliary_losses(
        self, points: FusedPoints, data_samples: Sequence | None = None
    ) -> dict[str, Tensor]:
        """Losses of the criteria that there are, and ``fusion_statistics``.

        Raises:
            ValueError: ``PointSemanticCriterion`` without labels.
        """
        losses = {}
        if self.clip_cons is not None:
            losses |= self.clip_cons(**consistency_inputs(points, self.clip_cons.max_points))
        if self.point_semantic is not None:
            seen = points.lifted.valid
            labels = semantic_labels(data_samples, points.fused.device)
            losses |= self.point_semantic(points.fused[seen], labels[seen])
        return {**losses, **fusion_statistics(points)}


def _stored_channels(clip_store: str | None, clip_channels: int | None) -> int:
    """C as a store's header says, or as given where there is no store yet."""
    try:
        stored = None if clip_store is None else read_manifest(clip_store).stamp.channels
    except FileNotFoundError:
        stored = None
    if stored is None:
        if clip_channels is None:
            raise ValueError(
                f'clip_channels is not given and there is no feature store {clip_store}'
            )
        return clip_channels
    if clip_channels not in (None, stored):
        print_log(
            f'{clip_store}: its maps have {stored} channels, not {clip_channels}', logger='current'
        )
    return stored


def _scene_id(data_samples: Sequence | None, i: int) -> str:
    return '' if data_samples is None else data_samples[i].metainfo.get('scene_id', '')


def _unnest(module: nn.Module, state_dict: dict, prefix: str, metadata: dict) -> None:
    """State dict hook: ``points_3d.unet.…`` is saved as ``unet.…``."""
    long = prefix + POINT_ENCODER
    for key in [key for key in state_dict if key.startswith(long)]:
        state_dict[prefix + key.removeprefix(long)] = state_dict.pop(key)


def _nest(module: nn.Module, state_dict: dict, prefix: str, *_) -> None:
    """Load hook: the inverse of ``_unnest``."""
    for name in module.points_3d.state_dict():
        if prefix + name in state_dict:
            state_dict[prefix + POINT_ENCODER + name] = state_dict.pop(prefix + name)
