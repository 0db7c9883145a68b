"""A field on hash grids: fast to fit, with heads for colour, semantics, instances and language.

Enters: unit-box positions (…, 3). Leaves: as every field, see ``field``. Letters: see ``field``.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .encodings import SphericalHarmonics, unit_cube
from .feature_field import FeatureField, feature_heads
from .field import Field, trunc_exp
from .hash_grid import HashGrid
from .heads import ColorHead, InstanceHead, LanguageHead, SemanticHead
from .layers import mlp
from .scene_box import SceneBox

# Density before training, per unit length, is e to this: nearly empty, as nerfacto begins.
_LOG_DENSITY_BIAS = -1.0


class HashGridField(Field):
    """Density and hidden values from a hash grid and a small network (Instant NGP, nerfacto).

    Args:
        num_classes: C; 0 leaves semantics out.
        instance_dim: D of instance vectors; 0 leaves them out.
        features: feature widths by type, such as {'CLIP': 768}; None = the known width. Each
            type gets a ``FeatureField`` named 'features', or 'features_<type>' when there are
            several; {'DINOCLIP': None} is CLIP and DINO.
        feature_options: settings of those feature fields.
        language_dim: D of language vectors; 0 leaves them out.
        language_grids: (start_res, max_res) of their own grids, with tables of log2_hashmap_size.
        max_instances: slots that instances are told apart by; 0 for none.
        unit_instances: whether the vectors of instances lie on the sphere.
        num_levels, features_per_level, log2_hashmap_size, base_resolution, max_resolution:
            the trunk's grid.
        hidden_dim: width of the networks.
        geo_dim: H.
        contracted: all of space, contracted; else density is 0 outside the scene's box.
        semantic_mode: 'probabilities' or 'logits'.
        implementation: of the grids.
        scene_box: similarity into the unit box.
    """

    def __init__(
        self,
        # heads
        num_classes: int = 20,
        instance_dim: int = 0,
        features: Mapping[str, int | None | tuple[int, int]] | None = None,
        feature_options: Mapping[str, Any] | None = None,
        language_dim: int = 0,
        language_grids: tuple[tuple[int, int], ...] = ((16, 128), (128, 512)),
        max_instances: int = 0,
        unit_instances: bool = True,
        # trunk
        num_levels: int = 16,
        features_per_level: int = 2,
        log2_hashmap_size: int = 19,
        base_resolution: int = 16,
        max_resolution: int = 2048,
        hidden_dim: int = 64,
        geo_dim: int = 15,
        # all of them
        contracted: bool = False,
        semantic_mode: str = 'probabilities',
        implementation: str = 'torch',
        scene_box: SceneBox | None = None,
    ) -> None:
        super().__init__(scene_box)
        self.contracted = contracted
        self.grid = HashGrid(
            num_levels, features_per_level, log2_hashmap_size, base_resolution, max_resolution,
            implementation=implementation,
        )  # fmt: skip
        self.density_net = mlp(self.grid.output_dim, 1 + geo_dim, hidden_dim, 1)

        self.head_nets['rgb'] = ColorHead(geo_dim, SphericalHarmonics(4), hidden_dim, 2)
        if num_classes:
            self.head_nets['semantics'] = SemanticHead(
                geo_dim, num_classes, hidden_dim, mode=semantic_mode
            )
        if instance_dim:
            self.head_nets['instances'] = InstanceHead(
                geo_dim,
                instance_dim,
                hidden_dim,
                num_slots=max_instances,
                unit_length=unit_instances,
            )

        # features and language have grids of their own, over the same space
        for name, (feature_type, width) in feature_heads(features or {}).items():
            self.head_nets[name] = FeatureField(
                width,
                feature_type=feature_type,
                contracted=contracted,
                implementation=implementation,
                **(feature_options or {}),
            )
        if language_dim:
            self.head_nets['language'] = LanguageHead(
                geo_dim,
                language_dim,
                256,
                4,
                language_grids,
                log2_hashmap_size,
                contracted=contracted,
                implementation=implementation,
            )

    def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Truncated-exponential density (…) in float32, and hidden values (…, geo_dim)."""
        cube = unit_cube(positions, self.contracted)
        values = self.density_net(self.grid(cube))  # (…, 1 + H)
        density = trunc_exp(values[..., 0] + _LOG_DENSITY_BIAS)
        if not self.contracted:
            density = torch.where(self.scene_box.contains(positions), density, 0)
        return density, values[..., 1:]

    @torch.no_grad()
    def init_density(self, density: float) -> None:
        """Set the density that the field begins with, exact where it is queried now: the origin."""
        now = float(self.density(self.unit_from_world.new_zeros(1, 3))[0])
        # σ = e^{x + b}: a ratio of densities is a difference of biases
        last = self.density_net[-1]
        assert isinstance(last, nn.Linear)
        last.bias[0] += math.log(density / now)
