"""The image branch: CLIP maps of the views of a batch → one feature and confidence per point.

Enters: a ``ViewBatch`` of maps. Leaves: ``LiftedViews``: features (sum N, 128) and
confidences (sum N,), with the maps and pairs they came from. V views of all samples, P pairs of
all samples, C channels of a frozen token, h × w their grid, f the factor of the sub-pixel
convolution.

    tokens → norm → Conv1×1 (f²·256) → shuffle ×f → [TinySA2D] → Linear (128) → bilinear ×2 → mean
    over the views of each point, weighted by a confidence that the map itself gives

Written order is sample, then Linear (256 → 128). Both are linear and the weights of a point add up
to 1, so the linear layer runs first, on V·h·w cells instead of P pairs: the same values, cheaper.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.backbones.sub_pixel import SubPixelConv, group_norm_of_cells
from oneformer3d.lifting.sampling import gather_pairs
from oneformer3d.lifting.shapes import expect_shape
from oneformer3d.structures import ViewBatch

from .tiny_sa import TinySA2D

LEAST_CONFIDENCE = 1e-3  # so that a visible point always has a weighted mean


@dataclass(frozen=True)
class LiftedViews:
    """What the views show of the points.

    Attributes:
        features: (sum N, D), 0 where not valid.
        conf: (sum N,) 0…1, grows with the confidence and the number of views, 0 where not valid.
        valid: (sum N,) bool, visible in a view.
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
        sub_pixel: f, factor of the learnt enlargement; f² divides C.
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
        sub_pixel: int = 2,
    ) -> None:
        super().__init__()
        neck = TinySA2D(head_channels) if use_tiny_sa else None
        # enlarged here, after the linear layer, not in the head
        self.head = ImageHead(clip_channels, head_channels, sub_pixel, upsample=1, neck=neck)
        self.linear = nn.Linear(head_channels, out_channels)
        self.confidence = nn.Linear(head_channels, 1)
        self.upsample = upsample
        self.use_amp = use_amp

    def forward(self, batch: ViewBatch) -> LiftedViews:
        """Lift the views of a batch."""
        weighted_maps = self.weighted_maps(batch.visible_maps())  # (V, D + 1, h', w')
        sums, _ = gather_pairs(
            weighted_maps, batch.pairs, batch.grid, num_points=sum(batch.num_points), reduce='sum'
        )  # (sum N, D + 1)

        # feature of a point = Σ_views conf · f / Σ_views conf
        weight = sums[:, -1:]  # (sum N, 1)
        valid = torch.zeros(len(sums), dtype=torch.bool, device=sums.device)
        valid[batch.pairs.point] = True
        features = sums[:, :-1] / torch.where(valid[:, None], weight, 1.0)

        return LiftedViews(features, 1 - torch.exp(-weight[:, 0]), valid, weighted_maps, batch)

    def weighted_maps(self, maps: Tensor) -> Tensor:
        """(V, C, h, w) → (V, D + 1, h', w') in channels-last memory."""
        maps = group_norm_of_cells(maps, self.head.sub_pixel)
        with torch.autocast(maps.device.type, enabled=self.use_amp and maps.is_cuda):
            cells = self.head(maps).permute(0, 2, 3, 1)  # (V, f·h, f·w, 256)

        with torch.autocast(maps.device.type, enabled=False):
            cells = cells.float()
            confidence = self.confidence(cells).sigmoid().clamp(min=LEAST_CONFIDENCE)
            cells = torch.cat((self.linear(cells) * confidence, confidence), dim=-1)
            weighted = cells.permute(0, 3, 1, 2)  # (V, D + 1, f·h, f·w)
            if self.upsample == 1:
                return weighted
            return F.interpolate(
                weighted, scale_factor=self.upsample, mode='bilinear', align_corners=False
            )


class ImageHead(nn.Module):
    """The part of the image branch that stays trainable: sub-pixel convolution → neck → bilinear.

    Tokens (768, 14, 14), which a store holds as (192, 28, 28), become (256, 28, 28) and
    (256, 56, 56).

    Args:
        in_channels: C of the frozen tokens; ``store.token_channels`` reads it from the store.
        out_channels: after the convolution.
        sub_pixel: f, factor of the learnt enlargement; f² divides C.
        upsample: factor of the bilinear enlargement.
        neck: a module (V, out_channels, h, w) → same shape between the two, e.g. TinySA2D.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        sub_pixel: int = 2,
        upsample: int = 2,
        neck: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if upsample < 1:
            raise ValueError(f'upsample must be positive, got {upsample}')
        self.in_channels, self.out_channels = in_channels, out_channels
        self.sub_pixel, self.upsample = sub_pixel, upsample
        self.proj = SubPixelConv(in_channels, out_channels, sub_pixel)
        self.neck = nn.Identity() if neck is None else neck

    def forward(self, feat: Tensor) -> Tensor:
        """Enlarged map.

        Args:
            feat: (V, in_channels, h, w), any float type; V may be 0.

        Returns:
            (V, out_channels, upsample·f·h, upsample·f·w) in the weights' type (or autocast's).

        Raises:
            ValueError: other channels than the head was made for.
        """
        expect_shape('map', feat, 'V C h w', C=self.in_channels)
        x = self.proj(feat.to(self.proj.weight.dtype))  # (V, out_channels, f·h, f·w)
        if not len(x):
            height, width = x.shape[-2:]
            return x.new_zeros(0, self.out_channels, height * self.upsample, width * self.upsample)
        x = self.neck(x)
        if self.upsample == 1:
            return x
        return F.interpolate(x, scale_factor=self.upsample, mode='bilinear', align_corners=False)
