"""Maps of the views of a batch → a pyramid that queries sample.

Enters: the ``PosedViews`` of each sample. Leaves: ``ViewPyramid``: all views of the batch as one
table. Letters: V views of the batch, C channels of a map, D channels of the pyramid, h × w a
grid, f the factor of the sub-pixel convolution.

Coordinates are on a canvas that every image of the batch is squashed to, so that maps need not have
the stride of any particular image. Levels differ by a factor of two, by convolutions of side two:
their cells lie over each other exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.backbones.sub_pixel import SubPixelConv, group_norm_of_cells
from oneformer3d.registry import MODELS
from oneformer3d.store import token_channels
from oneformer3d.structures import PosedViews, ViewBatch

from .sampling import LevelTable, level_table


@dataclass(frozen=True)
class ViewPyramid:
    """The views of a batch.

    Attributes:
        table: of V images, points of each on their own.
        canvas: (H', W') that its strides refer to.
        first_image: row of the first view of each sample.
        mapping_stride: log2 of the scale of boxes that are read on the finest level.
    """

    table: LevelTable
    canvas: tuple[int, int]
    first_image: tuple[int, ...]
    mapping_stride: float


class PyramidBase(nn.Module):
    """Base of pyramids: subclasses define ``stack`` and ``levels``.

    Args:
        channels: D.
        num_groups: that sample it; divides D.
    """

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        if channels % num_groups:
            raise ValueError(f'{num_groups} groups do not divide {channels} channels')
        self.channels = channels
        self.num_groups = num_groups

    def forward(
        self, views: Sequence[PosedViews | None], device: torch.device | str | None = None
    ) -> ViewPyramid:
        """The pyramid of a batch, on the device of the weights by default."""
        batch = self.stack(views, device or next(self.parameters()).device)
        levels, strides, canvas = self.levels(batch)
        table = level_table(
            [level.float()[:, :, None] for level in levels], strides, self.num_groups, shared=False
        )
        return ViewPyramid(table, canvas, batch.first_view, math.log2(min(strides)) + 1)

    def stack(self, views: Sequence[PosedViews | None], device: torch.device | str) -> ViewBatch:
        """The maps or images that the levels are made of."""
        raise NotImplementedError

    def levels(self, batch: ViewBatch) -> tuple[list[Tensor], list[float], tuple[int, int]]:
        """Maps (V, D, h, w), finest first, their strides, and the canvas (H', W')."""
        raise NotImplementedError


@MODELS.register_module()
class MapPyramid(PyramidBase):
    """Learned convolutions over the frozen tokens: their sub-pixels, a finer level, coarser ones.

    Args:
        clip_channels: C of the tokens; the header of a store that is there decides.
        channels: D.
        num_groups: that sample it.
        num_levels: L; the second level has the grid of the sub-pixels.
        clip_store: folder of the feature store, of which only the header is read here.
        stride: pixels of the canvas per sub-pixel.
        sub_pixel: factor of the learnt enlargement of the tokens, see ``SubPixelConv``.
    """

    def __init__(
        self,
        clip_channels: int | None = None,
        channels: int = 64,
        num_groups: int = 4,
        num_levels: int = 3,
        clip_store: str | None = None,
        stride: int = 16,
        sub_pixel: int = 2,
    ) -> None:
        super().__init__(channels, num_groups)
        if num_levels < 1:
            raise ValueError(f'num_levels must be at least 1, got {num_levels}')

        self.clip_channels = token_channels(clip_store, clip_channels)
        self.stride = stride

        # the tokens to D channels, its neighbourhood, then finer and coarser levels
        self.lateral = SubPixelConv(self.clip_channels, channels, sub_pixel)
        self.context = nn.Conv2d(channels, channels, 3, padding=1)
        self.finer = nn.ConvTranspose2d(channels, channels, 2, stride=2) if num_levels > 1 else None
        self.coarser = nn.ModuleList(
            nn.Conv2d(channels, channels, 2, stride=2) for _ in range(num_levels - 2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(num_levels))

    def stack(self, views: Sequence[PosedViews | None], device: torch.device | str) -> ViewBatch:
        """See the base class."""
        return ViewBatch.of_maps(views, self.clip_channels, device)

    def levels(self, batch: ViewBatch) -> tuple[list[Tensor], list[float], tuple[int, int]]:
        """See the base class."""
        maps = batch.visible_maps()  # (V, C, h, w)
        maps = group_norm_of_cells(maps, self.lateral.factor)
        base = self.lateral(maps)  # (V, D, f·h, f·w)
        base = base + F.gelu(self.context(F.gelu(base)))

        levels, strides = [base], [float(self.stride)]
        if self.finer is not None:
            levels.insert(0, self.finer(base))  # (V, D, 2f·h, 2f·w)
            strides.insert(0, self.stride / 2)
        for conv in self.coarser:
            levels.append(conv(pad_even(levels[-1])))  # (V, D, f·h/2, f·w/2), …
            strides.append(strides[-1] * 2)

        levels = [channel_norm(norm, level) for norm, level in zip(self.norms, levels)]
        height, width = base.shape[-2:]
        return levels, strides, (height * self.stride, width * self.stride)


def pad_even(x: Tensor) -> Tensor:
    """Repeat the last row and column where their number is odd."""
    return F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2), mode='replicate')


def channel_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Layer norm over the channels of a map (V, D, h, w)."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
