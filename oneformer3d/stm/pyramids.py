"""Maps of the views of a batch → a pyramid that queries sample.

Enters: the ``PosedViews`` of each sample. Leaves: ``ViewPyramid``: all views of the batch as one
table. Letters: I views of the batch, C channels of a map, D channels of the pyramid, h × w a grid.

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

from oneformer3d.registry import MODELS
from oneformer3d.store.manifest import read_manifest
from oneformer3d.structures import PosedViews

from .sampling import LevelTable, level_table


@dataclass(frozen=True)
class ViewPyramid:
    """The views of a batch.

    Attributes:
        table: of I images, points of each on their own.
        canvas: (H', W') that its strides refer to.
        first_image: of each sample.
        mapping_stride: log2 of the scale of boxes that are read on the finest level.
    """

    table: LevelTable
    canvas: tuple[int, int]
    first_image: tuple[int, ...]
    mapping_stride: float


class PyramidBase(nn.Module):
    """Base of pyramids: subclasses define ``levels``.

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
        self, views: Sequence[PosedViews | None], device: torch.device | None = None
    ) -> ViewPyramid:
        """The pyramid of a batch; without any view that of one empty image.

        The empty image gives every parameter a gradient in every batch, as distributed training
        asks.
        """
        seen = [v for v in views if v is not None and v.num_views]
        levels, strides, canvas = self.levels(seen, device)
        table = level_table(
            [level.float()[:, :, None] for level in levels], strides, self.num_groups, shared=False
        )
        first_image, count = [], 0
        for v in views:
            first_image.append(count)
            count += 0 if v is None else v.num_views
        return ViewPyramid(table, canvas, tuple(first_image), math.log2(min(strides)) + 1)

    def levels(
        self, views: Sequence[PosedViews], device: torch.device | None
    ) -> tuple[list[Tensor], list[float], tuple[int, int]]:
        """Maps (I, D, h, w), finest first, their strides, and the canvas (H', W')."""
        raise NotImplementedError


@MODELS.register_module()
class MapPyramid(PyramidBase):
    """Learned convolutions over the one stored map: a finer level, its own, coarser ones.

    Args:
        clip_channels: C; the header of a store that is there decides.
        channels: D.
        num_groups: that sample it.
        num_levels: L; the second level has the grid of the stored map.
        clip_store: folder of the feature store, of which only the header is read here.
        stride: pixels of the canvas per cell of the stored map.
    """

    def __init__(
        self,
        clip_channels: int | None = None,
        channels: int = 64,
        num_groups: int = 4,
        num_levels: int = 3,
        clip_store: str | None = None,
        stride: int = 16,
    ) -> None:
        super().__init__(channels, num_groups)
        if num_levels < 1:
            raise ValueError(f'num_levels must be at least 1, got {num_levels}')
        self.clip_channels = stored_channels(clip_store, clip_channels)
        self.stride = stride
        self.lateral = nn.Conv2d(self.clip_channels, channels, 1)
        self.context = nn.Conv2d(channels, channels, 3, padding=1)
        self.finer = nn.ConvTranspose2d(channels, channels, 2, stride=2) if num_levels > 1 else None
        self.coarser = nn.ModuleList(
            nn.Conv2d(channels, channels, 2, stride=2) for _ in range(num_levels - 2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(num_levels))

    def levels(
        self, views: Sequence[PosedViews], device: torch.device | None
    ) -> tuple[list[Tensor], list[float], tuple[int, int]]:
        """See the base class."""
        maps = stack_maps(views, self.clip_channels, device or self.lateral.weight.device)
        maps = F.layer_norm(maps.permute(0, 2, 3, 1), maps.shape[1:2]).permute(0, 3, 1, 2)
        base = self.lateral(maps)
        base = base + F.gelu(self.context(F.gelu(base)))
        levels = [base]
        if self.finer is not None:
            levels.insert(0, self.finer(base))
        for conv in self.coarser:
            levels.append(conv(pad_even(levels[-1])))
        strides = [self.stride * 2.0**k for k in range(-1, len(self.coarser) + 1)]
        if self.finer is None:
            strides = [float(self.stride)]
        levels = [channel_norm(norm, level) for norm, level in zip(self.norms, levels)]
        height, width = base.shape[-2:]
        return levels, strides, (height * self.stride, width * self.stride)


def stack_maps(
    views: Sequence[PosedViews], clip_channels: int, device: torch.device | str
) -> Tensor:
    """(I, C, h, w) float32 maps of all views, zeros where the pixels are hidden.

    Raises:
        ValueError: views without maps, of other channels, or of grids that differ.
    """
    maps = []
    for seen in views:
        name = seen.scene_id or 'sample'
        if seen.feat is None:
            raise ValueError(f'{name}: its {seen.num_views} views have no feature maps')
        if seen.feat.ndim != 4 or seen.feat.shape[1] != clip_channels:
            raise ValueError(
                f'{name}: expected maps (V, {clip_channels}, h, w), got {tuple(seen.feat.shape)}'
            )
        if maps and maps[0].shape[-2:] != seen.feat.shape[-2:]:
            raise ValueError(
                f'{name}: the maps of a batch share one grid, got {tuple(seen.feat.shape[-2:])} '
                f'and {tuple(maps[0].shape[-2:])}'
            )
        # Stored maps are float16, and under autocast may not be stacked with others.
        feat = seen.feat.to(device).float()
        maps.append(torch.zeros_like(feat) if seen.pixels_hidden else feat)
    return torch.cat(maps) if maps else torch.zeros(1, clip_channels, 4, 4, device=device)


def stored_channels(clip_store: str | None, clip_channels: int | None) -> int:
    """C as a store's header says, or as given where there is no store yet.

    Raises:
        ValueError: neither is there.
    """
    if clip_store is not None:
        try:
            return read_manifest(clip_store).stamp.channels
        except FileNotFoundError:
            pass  # a model can be built before its features are made
    if clip_channels is None:
        raise ValueError(f'clip_channels is not given and there is no feature store {clip_store}')
    return clip_channels


def pad_even(x: Tensor) -> Tensor:
    """Repeat the last row and column where their number is odd."""
    return F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2), mode='replicate')


def channel_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer norm over the channels of a map (I, D, h, w)."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
