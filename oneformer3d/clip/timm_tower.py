"""Any image network of timm as a frozen tower: DINOv2 and other features without texts.

Enters: images (B, 3, H, W). Leaves: what ``ClipEncoder`` leaves, a dense map and an embedding of
the image, so that extraction, store and networks do not know the difference. It knows no texts; a
store for questions in words is made by CLIP.

Letters: B images, C channels of the map, D of the embedding, h × w grid of the finest layer taken.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from oneformer3d.files.checkpoints import load_checkpoint_file
from oneformer3d.lifting.shapes import expect_shape, size_of
from oneformer3d.store import StoreStamp

from .encoder import ClipFeatures, prepare_images
from .weights import RANDOM_WEIGHTS, weights_digest

PREFIX = 'timm/'
_UNUSUAL_SEED = 2_147_483_629
_FLOAT16_MAX = torch.finfo(torch.float16).max


class _TimmNetwork(Protocol):
    """What the image networks of timm have in common; they share no base."""

    feature_info: Sequence[Mapping[str, Any]]

    def forward_intermediates(
        self, x: Tensor, *, indices: list[int], norm: bool, output_fmt: str
    ) -> tuple[Tensor, list[Tensor]]:
        """Images (B, 3, H, W) → the last layer, and the maps (B, C, h, w) of some layers."""
        ...

    def forward_head(self, x: Tensor, *, pre_logits: bool) -> Tensor:
        """The last layer → (B, D)."""
        ...


class TimmEncoder(nn.Module):
    """A frozen timm network as a dense feature extractor; stays in evaluation mode.

    Args:
        model: ``timm/`` and a name, such as ``timm/vit_small_patch14_dinov2``.
        weights: file of a state dict, which timm adapts to the input size, or 'none' (random).
        input_size: (H, W) or side of what the network sees; the model's own by default.
        layers: indices of its blocks or stages; several are joined along C at the resolution of
            the finest. The last one by default.
        dtype: of the map, 'fp32' or 'fp16'; the computation is float32.
        device: where the network is put.

    Raises:
        FileNotFoundError: no such file of weights.
        ValueError: an unknown model, a size or layers that it does not take.
    """

    mode = 'tokens'

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: str,
        weights: str | Path,
        input_size: int | Sequence[int] | None = None,
        layers: int | str | Sequence[int | str] | None = None,
        dtype: str = 'fp32',
        device: str | torch.device = 'cpu',
    ) -> None:
        super().__init__()
        if dtype not in ('fp32', 'fp16'):
            raise ValueError(f"dtype: maps of timm are 'fp32' or 'fp16', got {dtype!r}")
        self.name = model
        self.map_dtype = torch.float16 if dtype == 'fp16' else torch.float32
        self.network, config = _network(model.removeprefix(PREFIX), str(weights), input_size)
        self.input_size = _size(config['input_size'][1:] if input_size is None else input_size)
        self.weights_digest = weights_digest(self.network)

        for name in ('mean', 'std'):
            numbers = torch.tensor(config[name]).view(3, 1, 1)
            self.register_buffer(name, numbers, persistent=False)
        self.requires_grad_(False)
        self.train(False)

        # a picture of zeros tells the grid and how wide the layers are
        count = len(self._timm.feature_info)
        asked = [count - 1] if layers is None else [layers] if isinstance(layers, int) else layers
        indices = [n for n in asked if isinstance(n, int) and -count <= n < count]
        if not indices or len(indices) < len(asked):
            raise ValueError(f'layers: expected some of 0…{count - 1} of {model}, got {layers}')
        self.layers = tuple(index % count for index in indices)
        with torch.no_grad():
            maps, embedding = self._features(torch.zeros(1, 3, *self.input_size))
        self.num_channels = maps.shape[1]
        self.grid = size_of(maps)
        self.embed_dim = embedding.shape[1]
        self.to(device)

    @property
    def _timm(self) -> '_TimmNetwork':
        return cast(_TimmNetwork, self.network)

    def train(self, mode: bool = True) -> 'TimmEncoder':
        """Evaluation mode is kept whatever is asked: the network is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> ClipFeatures:
        """Features of whole images, see ``ClipEncoder.forward``."""
        expect_shape('images', images, 'B 3 H W')
        pixels = prepare_images(images, self.input_size, self.mean, self.std)  # (B, 3, H', W')
        feat, embedding = self._features(pixels)  # (B, C, h, w), (B, D)
        if self.map_dtype == torch.float16:
            feat = feat.clamp(-_FLOAT16_MAX, _FLOAT16_MAX)
        return ClipFeatures(feat.to(self.map_dtype).contiguous(), embedding)

    def stamp(self, pixel_shuffle: int = 1) -> StoreStamp:
        """What made these features, see ``ClipEncoder.stamp``."""
        mean, std = (
            ', '.join(f'{value:.6g}' for value in numbers.flatten().tolist())
            for numbers in (self.mean, self.std)
        )
        return StoreStamp(
            encoder=self.name,
            weights_digest=self.weights_digest,
            layer='+'.join(f'block{index}' for index in self.layers),
            mode=self.mode,
            attn_mode='vanilla',
            input_size=self.input_size,
            dtype=str(self.map_dtype).removeprefix('torch.'),
            preprocessing=f'squash bicubic; mean {mean}; std {std}; computed in float32',
            postprocessing=f'pixel_shuffle{pixel_shuffle}' if pixel_shuffle > 1 else 'none',
            channels=self.num_channels // pixel_shuffle**2,
            grid=(self.grid[0] * pixel_shuffle, self.grid[1] * pixel_shuffle),
        )

    def _features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        final, maps = self._timm.forward_intermediates(
            pixels, indices=list(self.layers), norm=True, output_fmt='NCHW'
        )
        embedding = self._timm.forward_head(final, pre_logits=True)  # (B, D)

        # coarser maps are enlarged to the finest
        size = max((x.shape[-2:] for x in maps), key=lambda side: side[0] * side[1])
        enlarged = [
            x
            if x.shape[-2:] == size
            else F.interpolate(x, size=size, mode='bilinear', align_corners=False)
            for x in maps
        ]
        return torch.cat(enlarged, dim=1), embedding


def _network(
    name: str, weights: str, input_size: int | Sequence[int] | None
) -> tuple[nn.Module, dict]:
    """The network with its weights, and what timm knows of its input."""
    import timm  # only where such a network is wanted

    if not timm.is_model(name):
        raise ValueError(f'timm has no model {name!r}')
    if weights != RANDOM_WEIGHTS and not Path(weights).is_file():
        raise FileNotFoundError(
            f'{weights}: no such file of weights of {name}; timm/ models take a file, or none '
            'for random ones'
        )

    # a network with a table of positions is made for the size that it will see
    described = timm.get_pretrained_cfg(name)
    if described is None:
        raise ValueError(f'timm does not describe the input of {name!r}')
    config = described.to_dict()
    settings: dict = {'num_classes': 0}
    if input_size is not None and config.get('fixed_input_size'):
        settings['img_size'] = _size(input_size)
    if weights == RANDOM_WEIGHTS:
        print_log(
            f'{name}: RANDOM weights (weights="none"); its features mean nothing',
            logger='current',
            level=logging.WARNING,
        )
    state = {} if weights == RANDOM_WEIGHTS else load_checkpoint_file(weights)
    loaded = {'pretrained': True, 'pretrained_cfg_overlay': {'state_dict': state}} if state else {}
    try:
        network = timm.create_model(name, **settings, **loaded)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'{weights}: does not fit {name} at {input_size}: {error}') from error
    if state:
        _check_all_loaded(lambda more: timm.create_model(name, **settings, **more), loaded, weights)
    return network, config


def _check_all_loaded(build: Callable[[dict], nn.Module], loaded: dict, weights: str) -> None:
    """ValueError if a drawn weight is as it was drawn: timm passes over what a file lacks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_UNUSUAL_SEED)
        drawn = build({}).state_dict()
        torch.manual_seed(_UNUSUAL_SEED)
        state = build(loaded).state_dict()
    missing = [
        name
        for name, value in state.items()
        if value.numel() > 1 and value.float().std() > 0 and torch.equal(value, drawn[name])
    ]
    if missing:
        raise ValueError(
            f'{weights}: does not fit: it lacks {", ".join(missing[:3])}, in all '
            f'{len(missing)} of {len(state)} weights'
        )


def _size(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
