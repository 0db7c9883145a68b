"""What a field says at a position besides its density: one small network per head.

Enters: hidden values (…, H) of the field's trunk, unit-box positions (…, 3), and where a head
needs them unit directions (…, 3) or patch sizes (…) in metres. Leaves: the head's values (…, K).

A head also states how its values become a ray's: ``sample`` gives what is composited and
``activate`` turns the composite into the result. So class probabilities are taken per sample, and
a wide last layer, being linear, is applied once per ray instead of once per sample.

Letters: H hidden width, C classes, D feature width, K values of a head, S instance slots.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encodings import PositionalEncoding, SphericalHarmonics, unit_cube
from .hash_grid import HashGrid
from .layers import full_precision, linear_of_composite, mlp, unit, weighted_mean

# How far a head's gradients reach: the density too, the trunk's hidden values but not the
# density (its weights are detached), or the head's own parameters alone.
GRADIENT_REACHES = ('density', 'trunk', 'head')
# What a language head reads when no patch size is given, metres.
DEFAULT_PATCH_SIZE = 0.5
# Least temperature of an instance softmax; smaller ones overflow its gradient.
_MIN_TEMPERATURE = 0.01


class Head(nn.Module):
    """A head: ``forward`` at positions, ``sample`` and ``activate`` along rays.

    Attributes:
        gradient: how far its gradients reach, of ``GRADIENT_REACHES``.
        output_dim: K.
        needs_directions: whether it can only be queried together with directions.
        feature_type: what is distilled, of heads of features.
        num_slots, unit_length: of heads of instances.
    """

    output_dim: int
    net: nn.Sequential
    needs_directions: bool = False
    feature_type: str = 'CLIP'
    num_slots: int = 0
    unit_length: bool = True

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
        return self.activate(values, values.new_ones(values.shape[:-1]))

    def sample(
        self,
        hidden: Tensor,
        positions: Tensor,
        directions: Tensor | None = None,
        patch_size: Tensor | None = None,
    ) -> Tensor:
        """What is composited along a ray, (…, K')."""
        raise NotImplementedError

    def activate(self, composite: Tensor, accumulation: Tensor) -> Tensor:
        """Values (…, K) of rays from their composites (…, K') and summed weights (…)."""
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
        view_encoder: PositionalEncoding | SphericalHarmonics,
        width: int = 64,
        num_layers: int = 1,
        gradient: str = 'density',
    ) -> None:
        super().__init__(gradient)
        self.output_dim = 3
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
        self.output_dim = num_classes
        self.net = mlp(hidden_dim, num_classes, width, num_layers)

    def forward(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        """Logits (…, C), in either mode."""
        return self.net(hidden)

    def sample(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        """Probabilities (…, C), or logits."""
        logits = self.net(hidden)
        return logits if self.mode == 'logits' else full_precision(logits).softmax(-1)

    def activate(self, composite: Tensor, accumulation: Tensor) -> Tensor:
        """Probabilities that sum to 1 where a ray met anything, or logits as they are."""
        return composite if self.mode == 'logits' else weighted_mean(composite, accumulation)


class InstanceHead(Head):
    """A vector per position; vectors of one instance shall be alike.

    Args:
        hidden_dim: H.
        feature_dim: D.
        num_slots: S vectors that instances are told apart by; 0 for none.
        unit_length: whether vectors lie on the sphere, or anywhere.
    """

    def __init__(
        self,
        hidden_dim: int,
        feature_dim: int,
        width: int = 128,
        num_layers: int = 1,
        gradient: str = 'trunk',
        *,
        num_slots: int = 0,
        unit_length: bool = True,
    ) -> None:
        super().__init__(gradient)
        self.output_dim = feature_dim
        self.unit_length = unit_length
        self.net = mlp(hidden_dim, feature_dim, width, num_layers)
        self.num_slots = num_slots
        if num_slots:
            self.slots = nn.Embedding(num_slots, feature_dim)
            self.temperature = nn.Parameter(torch.tensor(0.07))

    def sample(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        """Vectors (…, D)."""
        values = self.net(hidden)
        return unit(values) if self.unit_length else full_precision(values)

    def activate(self, composite: Tensor, accumulation: Tensor) -> Tensor:
        """Unit vectors again, or the mean; 0 where a ray met nothing."""
        return unit(composite) if self.unit_length else weighted_mean(composite, accumulation)

    def slot_logits(self, vectors: Tensor) -> Tensor:
        """Vectors (…, D) → slots (…, S): cosine to each slot's vector over temperature."""
        slots = unit(self.slots.weight)  # (S, D)
        return unit(vectors) @ slots.t() / self.temperature.clamp(min=_MIN_TEMPERATURE)


class LanguageHead(Head):
    """Unit language vectors that also depend on the size of the queried patch (LERF).

    Args:
        hidden_dim: H.
        feature_dim: D of the text space.
        grids: (start_res, max_res) of hash grids of its own, 12 levels × 8 values each; with none
            the trunk's hidden values are read.
    """

    def __init__(
        self,
        hidden_dim: int,
        feature_dim: int = 512,
        width: int = 256,
        num_layers: int = 1,
        # its own grids
        grids: tuple[tuple[int, int], ...] = (),
        log2_hashmap_size: int = 19,
        contracted: bool = False,
        # how it is taught and read
        gradient: str = 'trunk',
        implementation: str = 'torch',
    ) -> None:
        super().__init__(gradient)
        self.output_dim = feature_dim
        self.contracted = contracted

        own = [
            HashGrid(12, 8, log2_hashmap_size, low, high, implementation=implementation)
            for low, high in grids
        ]
        self.grids = nn.ModuleList(own)
        if own:
            hidden_dim = sum(grid.output_dim for grid in own)
        self.encoding_dim = hidden_dim
        self.net = mlp(hidden_dim + 1, feature_dim, width, num_layers)

    def encode(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """What the network reads beside the patch's size: grids (…, G), else hidden values."""
        if not len(self.grids):
            return hidden
        cube = unit_cube(positions, self.contracted)
        return torch.cat([grid(cube) for grid in self.grids], dim=-1)

    def sample(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        """Unit vectors (…, D)."""
        hidden = self.encode(hidden, positions)
        if patch_size is None:
            patch_size = hidden.new_tensor(DEFAULT_PATCH_SIZE)
        size = patch_size.to(hidden.dtype).expand(hidden.shape[:-1])
        return unit(self.net(torch.cat((hidden, size[..., None]), dim=-1)))

    def sample_sizes(
        self, hidden: Tensor, positions: Tensor, sizes: Iterable[float]
    ) -> Iterator[Tensor]:
        """``sample`` at one patch size after the other, (…, D) each.

        Grids, and the first layer but for its column of the size, are computed once for all.
        """
        first, rest = self.net[0], self.net[1:]
        assert isinstance(first, nn.Linear)
        of_place, of_size = first.weight[:, :-1], first.weight[:, -1]  # (W, G), (W,)
        before = F.linear(self.encode(hidden, positions), of_place, first.bias)  # (…, W)
        for size in sizes:
            yield unit(rest(before + size * of_size))

    def activate(self, composite: Tensor, accumulation: Tensor) -> Tensor:
        """Unit vectors again, 0 where a ray met nothing."""
        return unit(composite)


class SharedFeatures(Head):
    """Features from what a language head reads, so that they shape it too (LERF, section 3.3).

    DINO's features have sharp edges and CLIP's embeddings of crops have not; a small network that
    reads the same grids gives the grids those edges.

    Args:
        language: whose grids are read; its parameters stay its own.
        feature_dim: D.
        feature_type: name of what is distilled.
    """

    def __init__(
        self, language: LanguageHead, feature_dim: int, feature_type: str = 'DINO', width: int = 256
    ) -> None:
        super().__init__(language.gradient)
        self.output_dim = feature_dim
        self.feature_type = feature_type
        self._language = (language,)  # in a tuple: it is not a part of this head
        self.net = mlp(language.encoding_dim, feature_dim, width, 1)

    def sample(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        """Values before the last layer, (…, width)."""
        return self.net[:-1](self._language[0].encode(hidden, positions))

    def activate(self, composite: Tensor, accumulation: Tensor) -> Tensor:
        """Σ w f (…, D)."""
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        return linear_of_composite(last, composite, accumulation)
