"""Dense features of a frozen CLIP image tower.

Enters: images (B, 3, H, W), whole, of any size. Leaves: ``ClipFeatures``: a map (B, C, h, w) over
the whole image and the image's embedding (B, D). The image is squashed to the input size, not
cropped, so a pixel (u, v) of the image lies at the same relative position in the map, and sampling
needs the image's own size only.

Letters: B images, C channels of the map, h × w its grid, D width of the text space.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from oneformer3d.files.devices import warn_of_emulated_bfloat16
from oneformer3d.lifting.shapes import expect_shape
from oneformer3d.store import StoreStamp

from .attention import ATTN_MODES
from .text import encode_text
from .towers import (
    RESNET_LAYERS,
    RESNET_STRIDES,
    Tower,
    position_table,
    resize_positions,
    tower_features,
)
from .weights import load_clip

MODES = ('tokens', 'clip')
_STORED = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.float16}
_COMPUTED = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
_FLOAT16_MAX = 65504.0
_DEFAULT_RESNET_LAYER = RESNET_LAYERS.index('layer3')


class ClipFeatures(NamedTuple):
    """Features of B images.

    Attributes:
        feat: (B, C, h, w) dense map, float32 or float16.
        clip_global: (B, D) float32, what CLIP's ``encode_image`` returns.
    """

    feat: Tensor
    clip_global: Tensor


class ClipEncoder(nn.Module):
    """Frozen CLIP as a dense feature extractor; stays in evaluation mode.

    Settings left None are the checkpoint's own recommendation, else the default in brackets.

    Args:
        model: open_clip model, or a model config; a checkpoint that has its own config wins.
        weights: open_clip tag, path of a file, or 'none' (random). Nothing is downloaded.
        mode: 'tokens' (the tower's width) or 'clip' (text space, unit vectors) ['tokens'].
        attn_mode: of the last attention, see ``attention.py`` ['vanilla', for a ResNet 'maskclip';
            a ResNet has attention in mode 'clip' only].
        input_size: (H, W) or side of what the tower sees [the model's own].
        layers: block indices of a ViT, names ('layer3') or indices of a ResNet; several are
            joined along C [the last block; 'layer3', in mode 'clip' 'layer4'].
        dtype: of computation and map, 'fp32', 'fp16' or 'bf16'. The map of 'bf16' is float16,
            which holds every bfloat16 in its range and can be stored. On a CPU 'fp16' is only
            the map's type and the computation is float32.
        compute_dtype: overrides the type computed in, e.g. dtype 'fp16' with 'bf16' on a CPU.
        device: where the model is put.
        allow_download: fetch missing weights of a tag.
        quick_gelu: overrides what model and weights call for.

    Raises:
        FileNotFoundError: the weights are not on this machine.
        ValueError: an unknown or impossible setting.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: str | Mapping[str, Any] = 'ViT-B-16',
        weights: str | Path = 'laion2b_s34b_b88k',
        mode: str | None = None,
        attn_mode: str | None = None,
        input_size: int | Sequence[int] | None = None,
        layers: int | str | Sequence[int | str] | None = None,
        dtype: str = 'fp32',
        compute_dtype: str | None = None,
        device: str | torch.device = 'cpu',
        allow_download: bool = False,
        quick_gelu: bool | None = None,
    ) -> None:
        super().__init__()
        for name, value in (('dtype', dtype), ('compute_dtype', compute_dtype or 'fp32')):
            if value not in _STORED:
                raise ValueError(f'{name}: expected one of {tuple(_STORED)}, got {value!r}')

        loaded = load_clip(model, weights, allow_download, quick_gelu)
        advice = loaded.extraction
        self.clip = loaded.model
        self.name = loaded.name
        self.weights_digest = loaded.digest
        self.is_vit = isinstance(self.visual, VisionTransformer)

        # what is not given: the checkpoint's own advice, else what is usual for the tower
        self.mode = mode or advice.get('mode', 'tokens')
        usual = 'vanilla' if self.is_vit else 'maskclip'
        self.attn_mode = attn_mode or advice.get('attn_mode', usual)
        if layers is None and self.mode == advice.get('mode', 'tokens'):
            layers = advice.get('layers')
        self.layers = self.resolve_layers(layers)
        size = (
            advice.get('input_size', self.visual.image_size) if input_size is None else input_size
        )
        self.input_size = self._resolve_size(size)
        self._check_modes()

        self.map_dtype = _STORED[dtype]
        on_cpu = torch.device(device).type == 'cpu'
        computed = compute_dtype or ('fp32' if dtype == 'fp16' and on_cpu else dtype)
        self.compute_dtype = _COMPUTED[computed]
        if self.compute_dtype == torch.bfloat16:
            warn_of_emulated_bfloat16(device, 'bf16 features')

        self.register_buffer('mean', torch.tensor(loaded.mean).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(loaded.std).view(3, 1, 1), persistent=False)
        self.visual.to(self.compute_dtype)
        if not self.is_vit:
            # torch's declarations of Module.to leave memory_format out
            self.visual.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

        self._tables: dict[tuple, Tensor] = {}
        self.to(device)
        self.train(False)

    @property
    def visual(self) -> Tower:
        """The image tower."""
        visual = self.clip.visual
        assert isinstance(visual, Tower)  # build_clip makes no other
        return visual

    @property
    def stride(self) -> int:
        """Pixels of the input per cell of the map."""
        if isinstance(self.visual, VisionTransformer):
            return self.visual.conv1.stride[0]
        return RESNET_STRIDES[min(self.layers)]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the map."""
        return self.input_size[0] // self.stride, self.input_size[1] // self.stride

    @property
    def embed_dim(self) -> int:
        """D, width of the text space."""
        return self.visual.output_dim

    @property
    def num_channels(self) -> int:
        """C of the map."""
        if self.mode == 'clip':
            return self.embed_dim
        return sum(self.layer_width(layer) for layer in self.layers)

    def train(self, mode: bool = True) -> 'ClipEncoder':
        """Evaluation mode is kept whatever is asked: the tower is frozen."""
        return super().train(False)

    def forward(self, images: Tensor) -> ClipFeatures:
        """Features of whole images.

        Args:
            images: (B, 3, H, W) RGB, uint8 0–255 or float 0–1, any size.

        Returns:
            The map in ``map_dtype`` and the embedding in float32, both on the images' device.

        Raises:
            ValueError: not images of the stated shape and range.
        """
        learns = any(parameter.requires_grad for parameter in self.visual.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            pixels = prepare_images(images, self.input_size, self.mean, self.std)  # (B, 3, H', W')
            pixels = pixels.to(self.compute_dtype)
            if not self.is_vit:
                pixels = pixels.contiguous(memory_format=torch.channels_last)

            feat, embedding = tower_features(
                self.visual, pixels, self.layers, self.mode, self.attn_mode, self.positions
            )  # (B, C, h, w), (B, D)
            if self.map_dtype == torch.float16:
                feat = feat.clamp(-_FLOAT16_MAX, _FLOAT16_MAX)
            feat = feat.to(self.map_dtype).contiguous(memory_format=torch.contiguous_format)
            return ClipFeatures(feat, embedding.float())

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position table (1 + h·w, E) of a grid; resized ones are kept while nothing is trained."""
        table, source = position_table(self.visual)
        if tuple(grid) == source or table.requires_grad:
            return resize_positions(table, source, grid)
        key = (tuple(grid), table.device, table.dtype, table._version)
        if key not in self._tables:
            self._tables[key] = resize_positions(table, source, grid)
        return self._tables[key]

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Prompts → (T, D) unit vectors, see ``text.encode_text``."""
        return encode_text(self.clip, prompts)

    def stamp(self, pixel_shuffle: int = 1, computed_in: torch.dtype | None = None) -> StoreStamp:
        """What made these features, for a feature store.

        Args:
            pixel_shuffle: factor of ``lifting.pixel_shuffle`` that the stored map went
                through, 1 for none.
            computed_in: by autocast, instead of ``compute_dtype``.
        """
        mean, std = (self._numbers(name) for name in ('mean', 'std'))
        computed = str(computed_in or self.compute_dtype).removeprefix('torch.')

        return StoreStamp(
            encoder=self.name,
            weights_digest=self.weights_digest,
            layer='+'.join(self._layer_name(layer) for layer in self.layers),
            mode=self.mode,
            attn_mode=self.attn_mode,
            input_size=self.input_size,
            dtype=str(self.map_dtype).removeprefix('torch.'),
            preprocessing=f'squash bicubic; mean {mean}; std {std}; computed in {computed}',
            postprocessing=f'pixel_shuffle{pixel_shuffle}' if pixel_shuffle > 1 else 'none',
            channels=self.num_channels // pixel_shuffle**2,
            grid=(self.grid[0] * pixel_shuffle, self.grid[1] * pixel_shuffle),
        )

    def _numbers(self, name: str) -> str:
        return ', '.join(f'{value:.6g}' for value in getattr(self, name).flatten().tolist())

    def _layer_name(self, layer: int) -> str:
        return f'block{layer}' if self.is_vit else RESNET_LAYERS[layer]

    def layer_width(self, layer: int) -> int:
        """Channels of one layer's map."""
        visual = self.visual
        if isinstance(visual, VisionTransformer):
            return visual.conv1.out_channels
        if layer == 0:
            return visual.conv3.out_channels
        return getattr(visual, RESNET_LAYERS[layer])[-1].conv3.out_channels

    def resolve_layers(self, layers: int | str | Sequence[int | str] | None) -> tuple[int, ...]:
        """Indices of the layers that the settings name; the default where they name none.

        Raises:
            ValueError: a layer that the tower lacks, or one given twice.
        """
        count = self.num_layers
        if layers is None:
            last = self.is_vit or self.mode == 'clip'
            return (count - 1 if last else _DEFAULT_RESNET_LAYER,)

        layers = [layers] if isinstance(layers, int | str) else list(layers)
        resolved = []
        for layer in layers:
            index = layer
            if isinstance(layer, str) and not self.is_vit and layer in RESNET_LAYERS:
                index = RESNET_LAYERS.index(layer)
            if not isinstance(index, int) or not -count <= index < count:
                known = f'0…{count - 1}' if self.is_vit else f'{RESNET_LAYERS}'
                raise ValueError(f'layers: {layer!r} is not of {self.name} ({known})')
            resolved.append(index % count)

        if len(set(resolved)) != len(resolved) or not resolved:
            raise ValueError(f'layers: expected different layers, got {layers}')
        return tuple(resolved)

    @property
    def num_layers(self) -> int:
        """Blocks of a ViT; stem and layers of a ResNet."""
        if isinstance(self.visual, VisionTransformer):
            return len(self.visual.transformer.resblocks)
        return len(RESNET_LAYERS)

    def _resolve_size(self, size: int | Sequence[int]) -> tuple[int, int]:
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        if isinstance(self.visual, VisionTransformer):
            steps = tuple(self.visual.patch_size)
        else:  # a map that ends before the image does would be sampled at the wrong places
            steps = (RESNET_STRIDES[max(self.layers)],) * 2
        if height < 32 or width < 32 or height % steps[0] or width % steps[1]:
            raise ValueError(
                f'input_size: expected multiples of {steps[0]} × {steps[1]}, at least 32, '
                f'got {height} × {width}'
            )
        return height, width

    def _check_modes(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f'mode: expected one of {MODES}, got {self.mode!r}')
        if self.attn_mode not in ATTN_MODES:
            raise ValueError(f'attn_mode: expected one of {ATTN_MODES}, got {self.attn_mode!r}')
        last = self.num_layers - 1
        if self.mode == 'clip' and self.layers != (last,):
            raise ValueError('mode "clip" projects the last layer only; leave layers out')
        if self.is_vit and self.attn_mode != 'vanilla' and last not in self.layers:
            print_log(
                f'attn_mode {self.attn_mode!r} changes the last block, which is not taken',
                logger='current',
                level=logging.WARNING,
            )


def prepare_images(images: Tensor, size: tuple[int, int], mean: Tensor, std: Tensor) -> Tensor:
    """Squash images to a size and normalise their colours.

    Args:
        images: (B, 3, H, W) RGB, uint8 0–255 or float 0–1.
        size: (H', W') of the result; bicubic with antialiasing where it differs.
        mean, std: (3, 1, 1) of colours in 0–1.

    Returns:
        (B, 3, H', W') float32.

    Raises:
        ValueError: another shape, type or range.
    """
    expect_shape('images', images, 'B 3 H W')

    if images.dtype == torch.uint8:
        pixels = images.float() / 255
    elif images.is_floating_point():
        pixels = images.float()
        if pixels.numel() and not -0.01 <= pixels.min() <= pixels.max() <= 1.01:
            raise ValueError(
                f'images: floats should be in 0–1, got {pixels.min():.3g} to {pixels.max():.3g}'
            )
    else:
        raise ValueError(f'images: expected uint8 or floats, got {images.dtype}')

    if pixels.shape[-2:] != torch.Size(size):
        pixels = F.interpolate(pixels, size=size, mode='bicubic', antialias=True).clamp(0, 1)
    return (pixels - mean) / std
