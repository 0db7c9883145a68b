"""Distilled features of any width from a hash grid of their own, as a head of any field.

Enters: unit-box positions (…, 3). Leaves: features (…, D); and for a field, which feature heads it
has and how wide they are.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .encodings import FrequencyEncoding, contract, unit_cube
from .hash_grid import HashGrid
from .heads import Head
from .layers import linear_of_composite, mlp

# Widths that feature types are known by; others are given with a number.
FEATURE_DIMS = {'CLIP': 768, 'DINO': 384, 'ROBOPOINT': None}


class FeatureField(Head):
    """Features from a hash grid of their own beside raw frequencies (F3RM, CoRL 2023).

    Grid and frequencies are joined explicitly, 96 + 36 = 132 values by default. It depends on
    positions only, so it can be trained by itself or added to any field as a head.

    Args:
        feature_dim: D; None takes the width the feature type is known by.
        num_levels, features_per_level, log2_hashmap_size, start_res, max_res: the grid's.
        hidden_dim, num_layers: the network's.
        use_pe, pe_n_freq: whether frequencies are joined, and how many.
        feature_type: name of what is distilled, 'CLIP', 'DINO', 'ROBOPOINT' or any other.
        contracted: whether positions reach beyond the unit box.
        spatial_distortion: F3RM's way to say the same: ``contract``, or None for no distortion.
        gradient: how far gradients reach.
        implementation: the grid's.
    """

    def __init__(
        self,
        feature_dim: int | None = None,
        # its grid
        num_levels: int = 12,
        features_per_level: int = 8,
        log2_hashmap_size: int = 19,
        start_res: int = 16,
        max_res: int = 128,
        # its network and what it reads beside the grid
        hidden_dim: int = 64,
        num_layers: int = 2,
        use_pe: bool = True,
        pe_n_freq: int = 6,
        # how it is taught and read
        feature_type: str = 'CLIP',
        contracted: bool = False,
        gradient: str = 'trunk',
        implementation: str = 'torch',
        *,
        spatial_distortion: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(gradient)
        if spatial_distortion not in (None, contract):
            raise ValueError('spatial_distortion: expected None or oneformer3d.fields.contract')
        self.feature_type = feature_type
        self.feature_dim = self.output_dim = feature_width(feature_type, feature_dim)
        self.contracted = contracted or spatial_distortion is contract

        self.grid = HashGrid(
            num_levels, features_per_level, log2_hashmap_size, start_res, max_res,
            implementation=implementation,
        )  # fmt: skip
        # joined explicitly: tiny-cuda-nn's composite of both would drop the grid
        self.frequencies = FrequencyEncoding(3, pe_n_freq) if use_pe else None
        self.encoding_dim = self.grid.output_dim
        if self.frequencies is not None:
            self.encoding_dim += self.frequencies.output_dim
        self.net = mlp(self.encoding_dim, self.feature_dim, hidden_dim, num_layers)

    def encode(self, positions: Tensor) -> Tensor:
        """Unit-box positions (…, 3) → grid and frequencies (…, encoding_dim)."""
        cube = unit_cube(positions, self.contracted)
        encoded = self.grid(cube)
        if self.frequencies is None:
            return encoded
        return torch.cat((encoded, self.frequencies(cube)), dim=-1)

    def forward(self, hidden, positions=None, directions=None, patch_size=None) -> Tensor:
        """Features (…, D): of ``(hidden, positions)`` as a head, or of positions alone."""
        return self.net(self.encode(hidden if positions is None else positions))

    def sample(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        """Values before the last layer, (…, width)."""
        return self.net[:-1](self.encode(positions))

    def activate(self, composite: Tensor, accumulation: Tensor) -> Tensor:
        """Σ w f (…, D)."""
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        return linear_of_composite(last, composite, accumulation)


def feature_heads(
    features: Mapping[str, int | None | tuple[int, int]],
) -> dict[str, tuple[str, int]]:
    """Head names with the type and width of each.

    One type is named 'features', several 'features_<type>'. DINOCLIP is the two types CLIP and
    DINO, its width None or a pair.
    """
    widths: dict[str, int | None] = {}
    for feature_type, width in features.items():
        if feature_type == 'DINOCLIP':
            pair = width or (None, None)
            if isinstance(pair, int) or len(pair) != 2:
                raise ValueError(f'DINOCLIP: expected the widths of CLIP and DINO, got {width}')
            widths['CLIP'], widths['DINO'] = pair
        elif width is None or isinstance(width, int):
            widths[feature_type] = width
        else:
            raise ValueError(f'{feature_type}: expected one width, got {width}')

    heads = {}
    for feature_type, width in widths.items():
        name = 'features' if len(widths) == 1 else f'features_{feature_type.lower()}'
        heads[name] = (feature_type, feature_width(feature_type, width))
    return heads


def feature_width(feature_type: str, feature_dim: int | None) -> int:
    """The given width, or the one a feature type is known by.

    Raises:
        ValueError: none given and none known, or two types in one.
    """
    if feature_type == 'DINOCLIP':
        raise ValueError(
            "DINOCLIP is two fields, CLIP's and DINO's: HashGridField(features={'DINOCLIP': None})"
        )
    width = feature_dim if feature_dim is not None else FEATURE_DIMS.get(feature_type)
    if width is None or width < 1:
        raise ValueError(f'features of type {feature_type!r} need a feature_dim, got {feature_dim}')
    return width
