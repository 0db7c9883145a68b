"""Where a point is, and how much of its image feature it takes.

Enters: per point a 3D feature, a lifted image feature, its confidence and whether any view sees
it. Leaves: the positional encoding (N, 32), the gated feature (N, 96) and the gate itself.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oneformer3d.lifting.pairs import nearest_view
from oneformer3d.structures import PosedViews

from .geo_pe import GEO_PE_CHANNELS, build_geo_pe

GEO_CHANNELS = 32


class GeoPE(nn.Module):
    """The 64 geometric numbers of ``build_geo_pe`` through an MLP.

    Args:
        channels: of the encoding.
    """

    def __init__(self, channels: int = GEO_CHANNELS) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(GEO_PE_CHANNELS, GEO_PE_CHANNELS),
            nn.GELU(),
            nn.Linear(GEO_PE_CHANNELS, channels),
        )

    def forward(
        self, points: Sequence[Tensor], views: Sequence[PosedViews | None]
    ) -> tuple[Tensor, Tensor]:
        """Encoding of the points of a batch.

        Args:
            points: per sample (N, ≥ 3), xyz in metres, as augmented.
            views: per sample, or None.

        Returns:
            (sum N, channels), and (sum N,) int64 the view that sees each point from nearest, −1
            for none.
        """
        numbers, nearest = [], nearest_views(points, views)
        for cloud, sample, view_of_point in zip(points, views, nearest):
            cameras = None if sample is None else sample.augmented_from_cam
            numbers.append(build_geo_pe(cloud[:, :3].float(), cameras, view_of_point))
        return self.mlp(torch.cat(numbers)), torch.cat(nearest)


def nearest_views(points: Sequence[Tensor], views: Sequence[PosedViews | None]) -> list[Tensor]:
    """Per sample (N,) int64 the view that sees each point from nearest, −1 for none."""
    return [
        torch.full_like(cloud[:, 0], -1, dtype=torch.int64)
        if sample is None
        else nearest_view(sample.pairs, len(cloud))
        for cloud, sample in zip(points, views)
    ]


class FusionGate(nn.Module):
    """A convex, channel-wise mixture of both features, exactly the 3D one where no view sees.

        a = act(LN(W_a [f2d, pe])),  b = act(LN(W_b [f3d, pe]))
        g = valid · sigmoid(MLP [a, b, conf]),  fused = g · a + (1 − g) · b

    Args:
        in_channels: of the 3D and of the image feature.
        geo_channels: of the positional encoding.
        channels: of the result.
    """

    def __init__(
        self, in_channels: int = 128, geo_channels: int = GEO_CHANNELS, channels: int = 96
    ) -> None:
        super().__init__()
        self.image = _projection(in_channels + geo_channels, channels)
        self.shape = _projection(in_channels + geo_channels, channels)
        width = channels // 2
        self.gate = nn.Sequential(
            nn.Linear(2 * channels + 1, width), nn.GELU(), nn.Linear(width, channels)
        )

    def forward(
        self, image: Tensor, shape: Tensor, geo: Tensor, conf: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fused feature and gate.

        Args:
            image: (N, in_channels) lifted image feature; not read where not valid.
            shape: (N, in_channels) 3D feature.
            geo: (N, geo_channels).
            conf: (N,) confidence of the image feature, 0…1.
            valid: (N,) bool, visible in some view.

        Returns:
            fused (N, channels) and gate (N, channels), 0 where not valid.
        """
        image = self.image(torch.cat((image, geo), dim=1))  # a, (N, channels)
        shape = self.shape(torch.cat((shape, geo), dim=1))  # b, (N, channels)

        # g = valid · sigmoid(MLP [a, b, conf])
        gate = torch.sigmoid(self.gate(torch.cat((image, shape, conf[:, None]), dim=1)))
        gate = torch.where(valid[:, None], gate, 0.0)

        # g · a + (1 − g) · b
        return shape + gate * (image - shape), gate


def _projection(in_channels: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.Linear(in_channels, channels), nn.LayerNorm(channels), nn.GELU())
