"""The image branch: CLIP maps of the views of a batch → one feature and confidence per point.

Enters: the ``PosedViews`` of each sample. Leaves: ``LiftedViews``: features (sum N, 128) and
confidences (sum N,), with the maps and pairs they came from. V views of all samples, P pairs of
all samples, C channels of the stored map, h × w its grid.

    map → LN → Conv1×1 (256) → [TinySA2D] → Linear (128) → bilinear ×2 → mean over the views of
    each point, weighted by a confidence that the map itself gives

Written order is sample, then Linear (256 → 128). Both are linear and the weights of a point add up
to 1, so the linear layer runs first, on V·h·w cells instead of P pairs: the same values, cheaper.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.lifting.camera import Camera
from oneformer3d.lifting.pairs import PixelPairs, project_pairs
from oneformer3d.lifting.sampling import gather_pairs
from oneformer3d.structures import PosedViews

from .tiny_sa import TinySA2D

LEAST_CONFIDENCE = 1e-3  # a seen point always has a weighted mean


@dataclass(frozen=True)
class ViewBatch:
    """The views of a batch, one after another.

    Attributes:
        maps: (V, C, h, w) frozen maps.
        hidden: (V,) bool, views that the network sees as zeros.
        pairs: point (rows of the stacked points) and view (rows of ``maps``); ``uv`` in cells of
            the grid, since images of different samples may differ in size.
        num_points: N of each sample.
        num_views: V of each sample.
    """

    maps: Tensor
    hidden: Tensor
    pairs: PixelPairs
    num_points: tuple[int, ...]
    num_views: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return tuple(self.maps.shape[-2:])


@dataclass(frozen=True)
class LiftedViews:
    """What points see.

    Attributes:
        features: (sum N, D), 0 where not valid.
        conf: (sum N,) 0…1, grows with the confidence and the number of views, 0 where not valid.
        valid: (sum N,) bool, seen by a view.
        weighted_maps: (V, D + 1, h', w') confidence times feature, and the confidence, of each
            cell.
        batch: the views.
    """

    features: Tensor
    conf: Tensor
    valid: Tensor
    weighted_maps: Tensor
    batch: ViewBatch


class ImageBranch(nn.Module):
    """Trainable layers on frozen maps, and lifting to points.

    Args:
        clip_channels: C.
        head_channels: after the convolution.
        out_channels: D, of a point.
        upsample: factor of the bilinear enlargement.
        use_tiny_sa: attention within each map.
        use_amp: half precision on CUDA up to the linear layer, which is float32.
    """

    def __init__(
        self,
        clip_channels: int,
        head_channels: int = 256,
        out_channels: int = 128,
        upsample: int = 2,
        use_tiny_sa: bool = False,
        use_amp: bool = True,
    ) -> None:
        super().__init__()
        neck = TinySA2D(head_channels) if use_tiny_sa else None
        # Enlarged here, after the linear layer, not in the head.
        self.head = FeatureHead(clip_channels, head_channels, upsample=1, neck=neck)
        self.linear = nn.Linear(head_channels, out_channels)
        self.confidence = nn.Linear(head_channels, 1)
        self.upsample = upsample
        self.use_amp = use_amp

    def forward(self, batch: ViewBatch) -> LiftedViews:
        """Lift the views of a batch."""
        weighted_maps = self.weighted_maps(batch)
        sums, _ = gather_pairs(
            weighted_maps, batch.pairs, batch.grid, num_points=sum(batch.num_points), reduce='sum'
        )
        weight = sums[:, -1:]
        valid = torch.zeros(len(sums), dtype=torch.bool, device=sums.device)
        valid[batch.pairs.point] = True
        features = sums[:, :-1] / torch.where(valid[:, None], weight, 1.0)
        return LiftedViews(features, 1 - torch.exp(-weight[:, 0]), valid, weighted_maps, batch)

    def weighted_maps(self, batch: ViewBatch) -> Tensor:
        """(V, D + 1, h', w') in channels-last memory."""
        maps = torch.where(batch.hidden[:, None, None, None], 0.0, batch.maps.float())
        if len(maps) == 0:
            # One map that nobody looks at: every parameter has a gradient in every batch, as
            # distributed training asks.
            maps = maps.new_zeros(1, *maps.shape[1:])
        maps = F.layer_norm(maps.permute(0, 2, 3, 1), maps.shape[1:2]).permute(0, 3, 1, 2)
        with torch.autocast(maps.device.type, enabled=self.use_amp and maps.is_cuda):
            cells = self.head(maps).permute(0, 2, 3, 1)
        with torch.autocast(maps.device.type, enabled=False):
            cells = cells.float()
            confidence = self.confidence(cells).sigmoid().clamp(min=LEAST_CONFIDENCE)
            cells = torch.cat((self.linear(cells) * confidence, confidence), dim=-1)
            weighted = cells.permute(0, 3, 1, 2)
            if self.upsample == 1:
                return weighted
            return F.interpolate(
                weighted, scale_factor=self.upsample, mode='bilinear', align_corners=False
            )


def batch_views(
    views: Sequence[PosedViews | None],
    num_points: Sequence[int],
    clip_channels: int,
    device: torch.device,
) -> ViewBatch:
    """Stack the views of the samples of a batch.

    Args:
        views: per sample, or None; those with views have their maps.
        num_points: N of each sample.
        clip_channels: C that the network expects.
        device: where to put views that were not moved.

    Raises:
        ValueError: views of other points, maps of other channels, or grids that differ.
    """
    maps, hidden, columns, num_views = [], [], [], []
    point_offset = 0
    for i, (seen, count) in enumerate(zip(views, num_points)):
        num_views.append(0 if seen is None else seen.num_views)
        if num_views[-1]:
            _check_views(i, seen, count, clip_channels, maps)
            height, width = seen.feat.shape[-2:]
            scale = seen.pairs.uv.new_tensor(
                [width / seen.image_size[1], height / seen.image_size[0]]
            )
            columns.append(
                (
                    seen.pairs.point + point_offset,
                    seen.pairs.view + sum(num_views[:-1]),
                    (seen.pairs.uv + 0.5) * scale - 0.5,
                    seen.pairs.depth_z,
                )
            )
            maps.append(seen.feat)
            hidden += [seen.pixels_hidden] * num_views[-1]
        point_offset += count
    if not maps:
        none = torch.zeros(0, dtype=torch.int64, device=device)
        numbers = torch.zeros(0, 2, device=device)
        columns = [(none, none, numbers, numbers[:, 0])]
        maps = [torch.zeros(0, clip_channels, 1, 1, device=device)]
    return ViewBatch(
        maps=torch.cat(maps),
        hidden=torch.tensor(hidden, dtype=torch.bool, device=device),
        pairs=PixelPairs(*(torch.cat(column) for column in zip(*columns))),
        num_points=tuple(num_points),
        num_views=tuple(num_views),
    )


def views_of_images(
    points: Sequence[Tensor],
    images: Tensor | Sequence[Tensor] | None,
    intrinsics: Tensor | Sequence[Tensor] | None,
    extrinsics: Tensor | Sequence[Tensor] | None,
    depth: Tensor | Sequence[Tensor] | None = None,
    image_size: Sequence[int] | None = None,
    scene_ids: Sequence[str] | None = None,
    frame_ids: Sequence[Sequence[str]] | None = None,
    as_maps: bool = False,
) -> list[PosedViews | None]:
    """Views of plain tensors; arguments as of ``BiFusionEncoder.forward``."""
    num_samples = len(points)
    if images is None:
        return [None] * num_samples
    if intrinsics is None or extrinsics is None:
        raise ValueError('images need intrinsics and extrinsics')
    if as_maps and image_size is None:
        raise ValueError('maps need the image_size that their intrinsics belong to')
    if torch.is_tensor(intrinsics) and intrinsics.ndim == 2:
        intrinsics = [intrinsics] * num_samples
    for name, value in (('images', images), ('intrinsics', intrinsics), ('extrinsics', extrinsics)):
        if len(value) != num_samples:
            raise ValueError(f'{num_samples} point clouds but {len(value)} {name}')
    views = []
    for i in range(num_samples):
        content = images[i] if images[i].ndim == 4 else images[i][None]
        maps = None if depth is None else depth[i].reshape(-1, *depth[i].shape[-2:])
        size = tuple(content.shape[-2:] if image_size is None else image_size)
        poses = extrinsics[i].reshape(-1, 4, 4).to(points[i])
        if len(poses) != len(content):
            raise ValueError(f'sample {i}: {len(content)} images but {len(poses)} poses')
        frames = () if frame_ids is None else tuple(frame_ids[i])
        if frames and len(frames) != len(content):
            raise ValueError(f'sample {i}: {len(content)} images but {len(frames)} frame_ids')
        camera = Camera(intrinsics[i].to(points[i]), poses, size)
        views.append(
            PosedViews(
                pairs=project_pairs(points[i][:, :3], camera, maps),
                world_from_cam=poses,
                image_size=size,
                num_points=len(points[i]),
                scene_id='' if scene_ids is None else scene_ids[i],
                frames=frames,
                **{'feat' if as_maps else 'images': content},
            )
        )
    return views


def _check_views(
    i: int, views: PosedViews, num_points: int, clip_channels: int, maps: list[Tensor]
) -> None:
    if views.num_points != num_points:
        raise ValueError(f'sample {i}: views of {views.num_points} points, got {num_points}')
    if views.feat is None:
        raise ValueError(f'sample {i}: its {views.num_views} views have no feature maps')
    if views.feat.ndim != 4 or views.feat.shape[1] != clip_channels:
        raise ValueError(
            f'sample {i}: expected maps (V, {clip_channels}, h, w), got {tuple(views.feat.shape)}'
        )
    if maps and maps[0].shape[-2:] != views.feat.shape[-2:]:
        raise ValueError(
            f'sample {i}: the maps of a batch share one grid, got '
            f'{tuple(maps[0].shape[-2:])} and {tuple(views.feat.shape[-2:])}'
        )


def pixel_shuffle_features(feat: Tensor, factor: int = 2) -> Tensor:
    """Trade channels for resolution; nothing is learnt or lost.

    Args:
        feat: (…, C, h, w) with C a multiple of factor².
        factor: of the resolution.

    Returns:
        (…, C / factor², factor·h, factor·w).

    Raises:
        ValueError: the channels cannot be divided.
    """
    if factor < 1 or feat.shape[-3] % factor**2:
        raise ValueError(
            f'pixel shuffle ×{factor} needs a multiple of {factor**2} channels, '
            f'got {feat.shape[-3]}'
        )
    return F.pixel_shuffle(feat, factor)


class FeatureHead(nn.Module):
    """The part of the image branch that stays trainable: Conv1×1 → neck → bilinear.

    Args:
        in_channels: of the stored map; read it from the store.
        out_channels: after the convolution.
        upsample: factor of the bilinear enlargement.
        neck: a module (V, out_channels, h, w) → same shape between the two, e.g. TinySA2D.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        upsample: int = 2,
        neck: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1 or upsample < 1:
            raise ValueError(
                f'expected positive channels and factor, got {in_channels}, {out_channels}, '
                f'{upsample}'
            )
        self.in_channels, self.out_channels, self.upsample = in_channels, out_channels, upsample
        self.proj = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.neck = nn.Identity() if neck is None else neck

    def forward(self, feat: Tensor) -> Tensor:
        """Enlarged map.

        Args:
            feat: (V, in_channels, h, w), any float type; V may be 0.

        Returns:
            (V, out_channels, upsample·h, upsample·w) in the type of the weights (or autocast's).

        Raises:
            ValueError: other channels than the head was made for.
        """
        if feat.ndim != 4 or feat.shape[1] != self.in_channels:
            raise ValueError(
                f'expected a map (V, {self.in_channels}, h, w), got {tuple(feat.shape)}'
            )
        x = self.proj(feat.to(self.proj.weight.dtype))
        if not len(x):
            height, width = x.shape[-2:]
            return x.new_zeros(0, self.out_channels, height * self.upsample, width * self.upsample)
        x = self.neck(x)
        if self.upsample == 1:
            return x
        return F.interpolate(x, scale_factor=self.upsample, mode='bilinear', align_corners=False)
