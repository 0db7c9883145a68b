"""What a field says at a position besides its density: one small network per head.

Enters: hidden values (…, H) of the field's trunk, unit-box positions (…, 3), and where a head asks
for them unit directions (…, 3) or patch sizes (…) in metres. Leaves: the head's values (…, K).

A head also states how its values become a ray's: ``sample`` gives what is composited and
``finish`` turns the composite into the result. So class probabilities are taken per sample, and a
wide last layer, being linear, is applied once per ray instead of once per sample.

Letters: H hidden width, C classes, D feature width, K values of a head.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encodings import FrequencyEncoding, unit_cube
from .hash_grid import HashGrid

# How far a head's gradients reach: the density too, the trunk's hidden values but not the
# density (its weights are detached), or the head's own parameters alone.
GRADIENT_REACHES = ('density', 'trunk', 'head')
# Widths that feature types are known by; others are given with a number.
FEATURE_DIMS = {'CLIP': 768, 'DINO': 384, 'ROBOPOINT': None}
# Rays that gathered less weight than this saw nothing that a mean could be taken of.
MIN_ACCUMULATION = 1e-2
# What a language head reads when no patch size is given, metres.
DEFAULT_PATCH_SIZE = 0.5


class Head(nn.Module):
    """A head: ``forward`` at positions, ``sample`` and ``finish`` along rays.

    Attributes:
        gradient: how far its gradients reach, of ``GRADIENT_REACHES``.
        needs_directions: whether it can only be asked together with directions.
        uses_patch_size: whether it reads ``patch_size``.
    """

    needs_directions = False
    uses_patch_size = False

    def __init__(self, gradient: str = 'density') -> None:
        super().__init__()
        if gradient not in GRADIENT_REACHES:
            raise ValueError(f'gradient must be of {GRADIENT_REACHES}, got {gradient!r}')
        self.gradient = gradient

    def forward(
        self,
        hidden: Tensor,
        positions: Tensor,
        directions: Tensor | None = None,
        patch_size: Tensor | None = None,
    ) -> Tensor:
        """Values (…, K) at positions."""
        values = self.sample(hidden, positions, directions, patch_size)
        return self.finish(values, values.new_ones(values.shape[:-1]))

    def sample(
        self,
        hidden: Tensor,
        positions: Tensor,
        directions: Tensor | None = None,
        patch_size: Tensor | None = None,
    ) -> Tensor:
        """What is composited along a ray."""
        raise NotImplementedError

    def finish(self, composite: Tensor, accumulation: Tensor) -> Tensor:
        """A ray's value from its composite (…, K') and its summed weight (…)."""
        return composite


class ColorHead(Head):
    """View-dependent colour in 0–1.

    Args:
        hidden_dim: H.
        view_encoder: encoding of directions with an ``output_dim``.
        width: neurons of the hidden layers.
        num_layers: hidden layers.
    """

    needs_directions = True

    def __init__(
        self,
        hidden_dim: int,
        view_encoder: nn.Module,
        width: int = 64,
        num_layers: int = 1,
        gradient: str = 'density',
    ) -> None:
        super().__init__(gradient)
        self.view_encoder = view_encoder
        self.net = mlp(hidden_dim + view_encoder.output_dim, 3, width, num_layers)
        self.net.append(nn.Sigmoid())

    def sample(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        """(…, 3)."""
        if directions is None:
            raise ValueError('colour depends on the view: give directions')
        return self.net(torch.cat((hidden, self.view_encoder(directions)), dim=-1))


class SemanticHead(Head):
    """Class logits; along rays the mean of the samples' probabilities, or of their logits.

    Args:
        mode: 'probabilities' (Panoptic Lifting) or 'logits' (Semantic-NeRF).
    """

    def __init__(
        self,
        hidden_dim: int,
        num_classes: int,
        width: int = 64,
        num_layers: int = 1,
        mode: str = 'probabilities',
        gradient: str = 'density',
    ) -> None:
        super().__init__(gradient)
        if mode not in ('probabilities', 'logits'):
            raise ValueError(f"mode must be 'probabilities' or 'logits', got {mode!r}")
        self.mode = mode
        self.net = mlp(hidden_dim, num_classes, width, num_layers)

    def forward(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        """Logits (…, C), in either mode."""
        return self.net(hidden)

    def sample(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        """Probabilities (…, C), or logits."""
        logits = self.net(hidden)
        return logits if self.mode == 'logits' else full_precision(logits).softmax(-1)

    def finish(self, composite: Tensor, accumulation: Tensor) -> Tensor:
        """Probabilities that sum to 1 where a ray met anything, or logits as they are."""
        return composite if self.mode == 'logits' else weighted_mean(composite, accumulation)


class InstanceHead(Head):
    """A unit vector per position; vectors of one instance shall be alike."""

    def __init__(
        self,
        hidden_dim: int,
        feature_dim: int,
        width: int = 128,
        num_layers: int = 1,
        gradient: str = 'trunk',
    ) -> None:
        super().__init__(gradient)
        self.net = mlp(hidden_dim, feature_dim, width, num_layers)

    def sample(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        """Unit vectors (…, D)."""
        return unit(self.net(hidden))

    def finish(self, composite: Tensor, accumulation: Tensor) -> Tensor:
        """Unit vectors again, 0 where a ray met nothing."""
        return unit(composite)


class FeatureHead(Head):
    """Features of any width, read from the trunk's hidden values; composited as they are."""

    def __init__(
        self,
        hidden_dim: int,
        feature_dim: int,
        width: int = 64,
        num_layers: int = 1,
        gradient: str = 'trunk',
    ) -> None:
        super().__init__(gradient)
        self.net = mlp(hidden_dim, feature_dim, width, num_layers)

    def sample(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        """Values before the last layer, (…, width)."""
        return self.net[:-1](hidden)

    def finish(self, composite: Tensor, accumulation: Tensor) -> Tensor:
        """Σ w f (…, D): the last layer, its bias times the summed weight."""
        return linear_of_composite(self.net[-1], composite, accumulation)


class FeatureField(Head):
    """Features from a hash grid of their own beside raw frequencies (F3RM, CoRL 2023).

    Grid and frequencies are joined explicitly, 96 + 36 = 132 values by default. It depends on
    positions only, so it can be trained by itself or added to any field as a head.

    Args:
        feature_dim: D; None takes the width the feature type is known by.
        num_levels, features_per_level, log2_hashmap_size, start_res, max_res: the grid's.
        hidden_dim, num_layers: the network's.
        use_pe, pe_n_freq: whether and how many frequencies are joined.
        feature_type: name of what is distilled, 'CLIP', 'DINO', 'ROBOPOINT' or any other.
        contracted: whether positions reach beyond the unit box.
        gradient: how far gradients reach.
        implementation: the grid's.
    """

    def __init__(
        self,
        feature_dim: int | None = None,
        num_levels: int = 12,
        features_per_level: int = 8,
        log2_hashmap_size: int = 19,
        start_res: int = 16,
        max_res: int = 128,
        hidden_dim: int = 64,
        num_layers: int = 2,
        use_pe: bool = True,
        pe_n_freq: int = 6,
        feature_type: str = 'CLIP',
        contracted: bool = False,
        gradient: str = 'trunk',
        implementation: str = 'torch',
    ) -> None:
        super().__init__(gradient)
        self.feature_type = feature_type
        self.feature_dim = feature_width(feature_type, feature_dim)
        self.contracted = contracted
        self.grid = HashGrid(
            num_levels, features_per_level, log2_hashmap_size, start_res, max_res,
            implementation=implementation,
        )  # fmt: skip
        self.frequencies = FrequencyEncoding(3, pe_n_freq) if use_pe else None
        width = self.grid.output_dim + (self.frequencies.output_dim if use_pe else 0)
        self.encoding_dim = width
        self.net = mlp(width, self.feature_dim, hidden_dim, num_layers)

    def encode(self, positions: Tensor) -> Tensor:
        """Unit-box positions (…, 3) → grid and frequencies (…, encoding_dim)."""
        cube = unit_cube(positions, self.contracted)
        parts = [self.grid(cube)]
        if self.frequencies is not None:
            parts.append(self.frequencies(cube))
        encoded = torch.cat(parts, dim=-1)
        assert encoded.shape[-1] == self.encoding_dim
        return encoded

    def forward(self, hidden, positions=None, directions=None, patch_size=None) -> Tensor:
        """Features (…, D): of ``(hidden, positions)`` as a head, or of positions alone."""
        return self.net(self.encode(hidden if positions is None else positions))

    def sample(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        """Values before the last layer, (…, width)."""
        return self.net[:-1](self.encode(positions))

    def finish(self, composite: Tensor, accumulation: Tensor) -> Tensor:
        """Σ w f (…, D)."""
        return linear_of_composite(self.net[-1], composite, accumulation)


class LanguageHead(Head):
    """Unit language vectors that also depend on the size of the patch asked about (LERF).

    Args:
        hidden_dim: H.
        feature_dim: D of the text space.
        grids: (start_res, max_res) of own hash grids, 12 levels × 8 values each; with none the
            trunk's hidden values are read.
    """

    uses_patch_size = True

    def __init__(
        self,
        hidden_dim: int,
        feature_dim: int = 512,
        width: int = 256,
        num_layers: int = 1,
        grids: tuple[tuple[int, int], ...] = (),
        log2_hashmap_size: int = 19,
        contracted: bool = False,
        gradient: str = 'trunk',
        implementation: str = 'torch',
    ) -> None:
        super().__init__(gradient)
        self.contracted = contracted
        self.grids = nn.ModuleList(
            HashGrid(12, 8, log2_hashmap_size, low, high, implementation=implementation)
            for low, high in grids
        )
        if grids:
            hidden_dim = sum(grid.output_dim for grid in self.grids)
        self.net = mlp(hidden_dim + 1, feature_dim, width, num_layers)

    def sample(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        """Unit vectors (…, D)."""
        if len(self.grids):
            cube = unit_cube(positions, self.contracted)
            hidden = torch.cat([grid(cube) for grid in self.grids], dim=-1)
        if patch_size is None:
            patch_size = hidden.new_tensor(DEFAULT_PATCH_SIZE)
        size = patch_size.to(hidden.dtype).expand(hidden.shape[:-1])
        return unit(self.net(torch.cat((hidden, size[..., None]), dim=-1)))

    def finish(self, composite: Tensor, accumulation: Tensor) -> Tensor:
        """Unit vectors again, 0 where a ray met nothing."""
        return unit(composite)


def mlp(in_dim: int, out_dim: int, width: int, num_layers: int) -> nn.Sequential:
    """A perceptron with ``num_layers`` hidden layers of ReLU and a linear last one."""
    dims = [in_dim] + [width] * num_layers
    layers = [layer for a, b in pairwise(dims) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(dims[-1], out_dim))


def feature_heads(
    features: Mapping[str, int | None | tuple[int, int]],
) -> dict[str, tuple[str, int]]:
    """Head names with the type and width of each.

    One type is named 'features', several 'features_<type>'. DINOCLIP is the two types CLIP and
    DINO, its width None or a pair.
    """
    parts: dict[str, int | None] = {}
    for feature_type, width in features.items():
        if feature_type == 'DINOCLIP':
            parts.update(zip(('CLIP', 'DINO'), width or (None, None), strict=True))
        else:
            parts[feature_type] = width
    return {
        'features' if len(parts) == 1 else f'features_{feature_type.lower()}': (
            feature_type,
            feature_width(feature_type, width),
        )
        for feature_type, width in parts.items()
    }


def feature_width(feature_type: str, feature_dim: int | None) -> int:
    """The given width, or the one a feature type is known by.

    Raises:
        ValueError: none given and none known.
    """
    width = feature_dim if feature_dim is not None else FEATURE_DIMS.get(feature_type)
    if width is None or width < 1:
        raise ValueError(f'features of type {feature_type!r} need a feature_dim, got {feature_dim}')
    return width


def full_precision(values: Tensor) -> Tensor:
    """float32, or float64 where it is that already."""
    return values if values.dtype == torch.float64 else values.float()


def unit(values: Tensor) -> Tensor:
    """Vectors of length 1 in full precision, 0 where they are 0; the gradient is finite there."""
    return F.normalize(full_precision(values), dim=-1)


def weighted_mean(composite: Tensor, accumulation: Tensor) -> Tensor:
    """Σ w v / Σ w, fading to 0 below ``MIN_ACCUMULATION`` so that gradients stay bounded."""
    return composite / accumulation.clamp(min=MIN_ACCUMULATION)[..., None]


def linear_of_composite(layer: nn.Linear, composite: Tensor, accumulation: Tensor) -> Tensor:
    """Σ w (W x + b) = W Σ w x + b Σ w."""
    values = F.linear(composite.to(layer.weight.dtype), layer.weight)
    return values if layer.bias is None else values + accumulation[..., None] * layer.bias
