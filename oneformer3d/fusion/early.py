"""Early fusion: what the views show of the points enters the first convolution, beside colour.

Enters: ``LiftedViews`` (sum N, 128). Leaves: (sum N, E) side features of the points, exactly zero
where no view sees one. The 3D encoder averages them over the points of a voxel and reads them by
weights that begin at zero (``VoxelEncoder``), so the first step equals the 3D network's.
"""

import torch
from torch import Tensor, nn

from .image_branch import LiftedViews


class EarlyFusion(nn.Module):
    """valid · GELU(LN(W f2d)), as many channels as a first convolution can bear.

    Args:
        in_channels: of the lifted features.
        channels: E; SegDINO3D's 256 beside 6 are cut to 32…64 here.
    """

    def __init__(self, in_channels: int, channels: int = 48) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f'early_channels must be positive, got {channels}')
        self.reduce = nn.Sequential(
            nn.Linear(in_channels, channels), nn.LayerNorm(channels), nn.GELU()
        )

    def forward(self, lifted: LiftedViews) -> Tensor:
        """(sum N, E)."""
        return torch.where(lifted.valid[:, None], self.reduce(lifted.features), 0.0)
