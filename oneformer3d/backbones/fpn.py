"""Images → feature maps of several strides, brought to one width and summed.

Enters: images (V, 3, H, W), uint8 or 0–1. Leaves: ``ImageMaps``. Letters as in ``structures``.

    image → backbone ─ res2 (1/4) ─ 1×1 ┐
                     ─ res3 (1/8) ─ 1×1 ┤ enlarged and summed → norm, ReLU → map (1/4)
                     ─ res4 (1/16)─ 1×1 ┤                                     └ 1×1 → classes
                     ─ res5 (1/32)─ 1×1 ┘

Convolutions of one cell commute with reading a map between its cells, so they run on the maps,
which are far smaller than the points that read them. Without projectors ('concat') the points read
all four maps as they are.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.files.checkpoints import load_checkpoint_file
from oneformer3d.files.devices import multiplies_bfloat16
from oneformer3d.lifting.lift import extract_multiscale_features
from oneformer3d.lifting.shapes import expect_shape, size_of
from oneformer3d.registry import MODELS

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
STAGES = ('res2', 'res3', 'res4', 'res5')
_RESNET_NODES = {'layer1': 'res2', 'layer2': 'res3', 'layer3': 'res4', 'layer4': 'res5'}
_PROBE = 64  # pixels of the image that tells a backbone's channels


def build_fpn_backbone(
    backbone: str | Mapping[str, Any] = 'resnet50', weights: str | None = None
) -> 'MultiScaleBackbone':
    """A backbone that returns ``{'res2': …, 'res5': …}`` at strides 4 to 32.

    Args:
        backbone: a torchvision ResNet by name; or ``{'type': 'torchvision', 'name', 'nodes'}``
            with the graph nodes of other models (node → stage); or ``{'type': 'timm', 'name'}``;
            or the settings of a registered backbone that returns four maps, e.g.
            ``{'type': 'mmdet.ResNet', 'depth': 50}``.
        weights: None for random ones; a file of a state dict; else the name of weights that
            torchvision or timm ('default') fetches.

    Raises:
        ValueError: an unknown model, or one that does not give four maps.
        FileNotFoundError: no such file of weights.
    """
    settings = {'type': 'torchvision', 'name': backbone} if isinstance(backbone, str) else backbone
    settings = dict(settings)
    kind = settings.get('type')
    if weights is not None and Path(weights).suffix and not Path(weights).is_file():
        raise FileNotFoundError(f'{weights}: no such file of backbone weights')

    # weights are a file, or a name that torchvision or timm knows
    file = weights if weights is not None and Path(weights).is_file() else None
    named = weights if file is None else None
    if kind == 'torchvision':
        network = _torchvision(settings, named, file)
    elif kind == 'timm':
        network = _timm(settings, named, file)
    else:
        if named is not None:
            raise ValueError(f'{kind}: weights by name are of torchvision and timm, got {named!r}')

        network = MODELS.build(settings)
        if file is not None:
            network.load_state_dict(_read_state(file))
    return MultiScaleBackbone(network)


class MultiScaleBackbone(nn.Module):
    """A network that returns four maps, by name.

    Args:
        network: (B, 3, H, W) → four maps, as a sequence or by the names of ``STAGES``.

    Attributes:
        channels: of the four maps.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.channels = self._probe()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Maps ``res2`` … ``res5``."""
        maps = self.network(image)
        if not isinstance(maps, Mapping):
            maps = dict(zip(STAGES, maps))
        return {stage: maps[stage] for stage in STAGES}

    def __deepcopy__(self, memo: dict) -> 'MultiScaleBackbone':
        """A copy in the same mode; torchvision's graphs come back from copying as training."""
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        twin.network.train(self.network.training)
        return twin

    @torch.no_grad()
    def _probe(self) -> tuple[int, ...]:
        training = self.network.training
        self.network.eval()
        maps = self.network(torch.zeros(1, 3, _PROBE, _PROBE))
        self.network.train(training)
        maps = list(maps.values()) if isinstance(maps, Mapping) else list(maps)
        strides = [_PROBE // max(1, x.shape[-1]) for x in maps]
        if strides != [4, 8, 16, 32]:
            raise ValueError(f'expected maps of strides 4, 8, 16 and 32, got {strides}')
        return tuple(x.shape[1] for x in maps)


@dataclass(frozen=True)
class ImageMaps:
    """Maps of V images.

    Attributes:
        maps: one or four (V, C, h, w); all cover the same pixels.
        covered: (H', W') pixels that they cover, from the top left; images whose sides the
            strides do not divide are padded.
    """

    maps: tuple[Tensor, ...]
    covered: tuple[int, int]

    @property
    def num_channels(self) -> int:
        """Channels of a point that reads them all."""
        return sum(x.shape[1] for x in self.maps)


def padded_size(images: Tensor) -> tuple[int, int]:
    """(H', W'): the sides of images (..., H, W) grown to multiples of the coarsest stride."""
    height, width = size_of(images)
    return height + -height % 32, width + -width % 32


class FeaturePyramid(nn.Module):
    """Backbone, projectors and, for training on pictures, a classifier of pixels.

    Args:
        backbone: see ``build_fpn_backbone``.
        weights: see there.
        channels: of the summed map.
        fuse: 'sum' of the projected maps, or 'concat' of the maps as they are.
        num_classes: of the pixel classifier; None has none.
        frozen: nothing here trains, and norms keep their statistics.
        use_amp: bfloat16 up to the summed map, which is float32, where the device multiplies it;
            about three times faster then, on a CPU too.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str | Mapping[str, Any] = 'resnet50',
        weights: str | None = None,
        channels: int = 256,
        fuse: str = 'sum',
        num_classes: int | None = None,
        frozen: bool = False,
        use_amp: bool = False,
    ) -> None:
        super().__init__()
        if fuse not in ('sum', 'concat'):
            raise ValueError(f"fuse: expected 'sum' or 'concat', got {fuse!r}")
        if fuse == 'concat' and num_classes is not None:
            raise ValueError("the pixel classifier reads the summed map: fuse='sum'")

        self.fuse = fuse
        self.frozen = frozen
        self.use_amp = use_amp

        self.backbone_2d = build_fpn_backbone(backbone, weights)
        dims = self.backbone_2d.channels
        self.projectors = None
        self.norm = None
        if fuse == 'sum':
            self.projectors = nn.ModuleList([nn.Conv2d(dim, channels, 1) for dim in dims])
            self.norm = nn.BatchNorm2d(channels)
        self.classifier_2d = None if num_classes is None else nn.Conv2d(channels, num_classes, 1)
        self.out_channels = channels if fuse == 'sum' else sum(dims)

        self.register_buffer('mean', torch.tensor(IMAGE_MEAN)[:, None, None], persistent=False)
        self.register_buffer('std', torch.tensor(IMAGE_STD)[:, None, None], persistent=False)
        # torch's declarations of Module.to leave memory_format out
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if frozen:
            self.requires_grad_(False)
            self.eval()

    def train(self, mode: bool = True) -> 'FeaturePyramid':
        """Frozen networks stay in evaluation mode."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Tensor) -> ImageMaps:
        """Maps of images (V, 3, H, W), uint8 or 0–1.

        Raises:
            ValueError: not images, or pixels that are not finite.
        """
        pixels = self.prepare(images)
        covered = size_of(pixels)
        if len(images) == 0:
            return self._no_maps(covered)

        device = pixels.device
        use_amp = self.use_amp and multiplies_bfloat16(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=use_amp):
            maps = list(extract_multiscale_features(pixels, self.backbone_2d).values())
            if self.fuse == 'sum':
                maps = [self.merge(maps)]  # (V, channels, H'/4, W'/4)
        return ImageMaps(tuple(x.float() for x in maps), covered)

    def _no_maps(self, covered: tuple[int, int]) -> ImageMaps:
        channels = (self.out_channels,) if self.fuse == 'sum' else self.backbone_2d.channels
        strides = (4, 8, 16, 32)[: len(channels)]
        shapes = [(0, c, *(side // s for side in covered)) for c, s in zip(channels, strides)]
        return ImageMaps(tuple(self.mean.new_zeros(shape) for shape in shapes), covered)

    def merge(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps → their sum (V, channels, h, w) at the finest stride."""
        if self.projectors is None or self.norm is None:
            raise RuntimeError("maps are only added up with fuse='sum'")
        maps = [projector(x) for projector, x in zip(self.projectors, maps)]
        merged = maps[-1]
        for finer in reversed(maps[:-1]):
            merged = finer + F.interpolate(
                merged, size=finer.shape[-2:], mode='bilinear', align_corners=False
            )
        return F.relu(self.norm(merged))

    def prepare(self, images: Tensor) -> Tensor:
        """Normalised pixels, padded at the bottom and right to multiples of 32."""
        expect_shape('images', images, 'V 3 H W')
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        bad = ~torch.isfinite(pixels).flatten(1).all(1)
        if bool(bad.any()):
            raise ValueError(
                f'image {int(bad.nonzero()[0, 0])} of {len(images)} has pixels that are not finite'
            )

        pixels = (pixels - self.mean) / self.std
        down, right = (-side % 32 for side in pixels.shape[-2:])
        if len(pixels) == 0:
            return pixels.new_zeros(0, 3, pixels.shape[2] + down, pixels.shape[3] + right)
        if down or right:
            pixels = F.pad(pixels, (0, right, 0, down), mode='replicate')
        return pixels.contiguous(memory_format=torch.channels_last)

    def classify(self, maps: ImageMaps) -> Tensor:
        """Class logits (V, num_classes, h, w).

        Raises:
            ValueError: there is no classifier.
        """
        if self.classifier_2d is None:
            raise ValueError('this network has no pixel classifier: num_classes')
        return self.classifier_2d(maps.maps[0])


def _torchvision(settings: dict, weights: str | None, file: str | None) -> nn.Module:
    from torchvision.models import get_model, list_models
    from torchvision.models.feature_extraction import create_feature_extractor

    name = settings.get('name')
    _check_keys(settings, {'type', 'name', 'nodes'})
    if name not in list_models():
        raise ValueError(f'torchvision has no model {name!r}')
    nodes = settings.get('nodes')
    if nodes is None:
        if not name.startswith(('resnet', 'resnext', 'wide_resnet')):
            raise ValueError(f'{name}: name the nodes of its four stages, as {_RESNET_NODES}')
        nodes = _RESNET_NODES
    network = get_model(name, weights=weights)
    if file is not None:
        network.load_state_dict(_read_state(file))
    return create_feature_extractor(network, dict(nodes))


def _timm(settings: dict, weights: str | None, file: str | None) -> nn.Module:
    import timm
    from timm.models import FeatureInfo

    name = settings.get('name')
    _check_keys(settings, {'type', 'name'})
    if name is None or not timm.is_model(name):
        raise ValueError(f'timm has no model {name!r}')
    stages = timm.create_model(name, features_only=True).feature_info
    if not isinstance(stages, FeatureInfo):
        raise ValueError(f'{name}: timm does not tell the strides of its stages')
    reductions = stages.reduction()
    if not {4, 8, 16, 32} <= set(reductions):
        raise ValueError(f'{name}: expected strides 4 to 32, got {reductions}')
    return timm.create_model(
        name,
        pretrained=weights is not None,
        features_only=True,
        out_indices=[reductions.index(stride) for stride in (4, 8, 16, 32)],
        pretrained_cfg_overlay=None if file is None else {'file': file},
    )


def _read_state(path: str) -> dict[str, Tensor]:
    return load_checkpoint_file(path)


def _check_keys(settings: dict, known: set[str]) -> None:
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(f'backbone: unknown settings {unknown}')
