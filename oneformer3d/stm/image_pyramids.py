"""Images of a batch → a pyramid that queries sample: CLIP's intermediate maps, or an FPN.

Enters: ``PosedViews`` with images (``LoadPosedViews`` without a store loads them). Leaves: a
``ViewPyramid``. Letters as in ``pyramids``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.backbones.fpn import FeaturePyramid
from oneformer3d.clip.encoder import ClipEncoder, prepare_images
from oneformer3d.clip.towers import RESNET_LAYERS, RESNET_STRIDES
from oneformer3d.registry import MODELS
from oneformer3d.structures import PosedViews, ViewBatch

from .pyramids import PyramidBase, channel_norm, pad_even

RESNET_LEVELS = ('layer1', 'layer2', 'layer3', 'layer4')


@MODELS.register_module()
class ClipPyramid(PyramidBase):
    """Intermediate maps of a frozen CLIP tower, computed online.

    A ResNet has a map at every stride. The blocks of a ViT share one grid: four of them, evenly
    spread, are brought to half, once, twice and four times its stride (as in ViTDet, Li et al.,
    ECCV 2022).

    Args:
        clip: settings of ``ClipEncoder``; ``layers`` are the blocks of the levels, finest first.
        channels: D.
        num_groups: that sample it.
        batch_size: images at a time.

    Raises:
        ValueError: mode 'clip', or a number of layers that is not four.
    """

    def __init__(
        self,
        clip: Mapping[str, Any] | None = None,
        channels: int = 64,
        num_groups: int = 4,
        batch_size: int = 16,
    ) -> None:
        super().__init__(channels, num_groups)
        settings = dict(clip or {})
        layers = settings.pop('layers', None)
        if settings.get('mode', 'tokens') != 'tokens':
            raise ValueError('ClipPyramid takes maps of the tower itself: mode tokens')
        encoder = ClipEncoder(**settings, mode='tokens')

        # one layer for each level
        if layers is None and encoder.is_vit:
            count = encoder.num_layers
            layers = [max(0, count * k // 4 - 1) for k in (1, 2, 3, 4)]
        layers = RESNET_LEVELS if layers is None else tuple(layers)
        if len(layers) != 4:
            raise ValueError(f'ClipPyramid: expected four layers, got {layers}')
        encoder.layers = encoder.resolve_layers(layers)
        self.encoder = encoder.requires_grad_(False)
        self.batch_size = batch_size

        # their widths to D channels, and the one grid of a ViT to four
        widths = [encoder.layer_width(layer) for layer in encoder.layers]
        self.norms_in = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.rescale = nn.ModuleList(_rescale(k, channels, encoder.is_vit) for k in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(4))

    def stack(self, views: Sequence[PosedViews | None], device: torch.device | str) -> ViewBatch:
        """See the base class."""
        return ViewBatch.of_images(views, device)

    def levels(self, batch: ViewBatch) -> tuple[list[Tensor], list[float], tuple[int, int]]:
        """See the base class."""
        with torch.no_grad():
            chunks = [self.tower_maps(chunk) for chunk in batch.maps.split(self.batch_size)]

        levels = []
        for k, maps in enumerate(zip(*chunks)):
            x = torch.cat(maps).float() * ~batch.masked[:, None, None, None]  # (V, C, h, w)
            x = self.laterals[k](channel_norm(self.norms_in[k], x))  # (V, D, h, w)
            levels.append(channel_norm(self.norms[k], self.rescale[k](x)))

        if self.encoder.is_vit:
            strides = [self.encoder.stride * 2.0**k for k in (-1, 0, 1, 2)]
        else:
            strides = [float(RESNET_STRIDES[layer]) for layer in self.encoder.layers]
        return levels, strides, self.encoder.input_size

    def tower_maps(self, images: Tensor) -> list[Tensor]:
        """The four maps of images (B, 3, H, W), as the tower has them."""
        encoder = self.encoder
        if encoder.is_vit:
            return list(encoder(images).feat.chunk(4, dim=1))

        x = prepare_images(images, encoder.input_size, encoder.mean, encoder.std)
        x = x.to(encoder.compute_dtype).contiguous(memory_format=torch.channels_last)
        maps = []
        for index, name in enumerate(RESNET_LAYERS):
            x = getattr(encoder.visual, name)(x)
            if index in encoder.layers:
                maps.append(x)
        return maps


@MODELS.register_module()
class FPNPyramid(PyramidBase):
    """A convolutional backbone with a top-down path (Lin et al., FPN, CVPR 2017).

    Args:
        backbone, weights, frozen, use_amp: see ``FeaturePyramid``.
        channels: D.
        num_groups: that sample it.
    """

    def __init__(
        self,
        backbone: str | Mapping[str, Any] = 'resnet50',
        weights: str | None = None,
        channels: int = 64,
        num_groups: int = 4,
        frozen: bool = False,
        use_amp: bool = False,
    ) -> None:
        super().__init__(channels, num_groups)
        self.image_net = FeaturePyramid(
            backbone, weights, fuse='concat', frozen=frozen, use_amp=use_amp
        )
        widths = self.image_net.backbone_2d.channels
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in widths)

    def stack(self, views: Sequence[PosedViews | None], device: torch.device | str) -> ViewBatch:
        """See the base class."""
        return ViewBatch.of_images(views, device)

    def levels(self, batch: ViewBatch) -> tuple[list[Tensor], list[float], tuple[int, int]]:
        """See the base class."""
        maps = self.image_net(batch.maps).maps
        visible = ~batch.masked[:, None, None, None]
        laterals = [lateral(x * visible) for lateral, x in zip(self.laterals, maps)]

        # from the coarsest level down, each enlarged and added to the next finer one
        levels = [laterals[-1]]
        for lateral in reversed(laterals[:-1]):
            enlarged = F.interpolate(
                levels[0], size=lateral.shape[-2:], mode='bilinear', align_corners=False
            )
            levels.insert(0, lateral + enlarged)

        levels = [channel_norm(norm, level) for norm, level in zip(self.norms, levels)]
        # maps may reach beyond the image, which is padded to whole cells; the canvas does not
        return levels, [4.0, 8.0, 16.0, 32.0], batch.grid


class _Halve(nn.Module):
    """Convolutions of side two and stride two, each after padding to even sides."""

    def __init__(self, channels: int, times: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 2, stride=2) for _ in range(times))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(pad_even(x))
        return x


def _rescale(level: int, channels: int, is_vit: bool) -> nn.Module:
    """From the one grid of a ViT to that of a level; nothing for a ResNet."""
    if not is_vit or level == 1:
        return nn.Identity()
    if level == 0:
        return nn.ConvTranspose2d(channels, channels, 2, stride=2)
    return _Halve(channels, level - 1)
