"""Tiny self-attention necks: over neighbourhoods of points, and over feature maps.

Enters: point features (sum N, C) with their coordinates, or maps (V, C, h, w). Leaves: the same
shape, the input plus what attention adds. M centres, K neighbours, C channels.

In 3D the centre of every occupied cell of a coarse grid attends to at most K points in a ball
around it; what it learns goes back to the points by inverse-distance interpolation. The grid
stands in for farthest point sampling, which costs seconds for a scan. In 2D every cell of a
map attends to the map averaged over a few windows.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.backbones.neighbourhoods import Neighbourhood, find_neighbourhood
from oneformer3d.backbones.voxelize import scatter_mean
from oneformer3d.registry import MODELS


@MODELS.register_module()
class TinySANeck(nn.Module):
    """Layers of ``TinySAModule`` that share one neighbourhood.

    Args:
        channels: C.
        num_layers: how many.
        num_heads: of the attention; divides C.
        radius: of the balls in metres.
        max_neighbours: K.
        cell_size: edge of the grid cells whose centres attend, in metres.
    """

    def __init__(
        self,
        channels: int,
        num_layers: int = 2,
        num_heads: int = 4,
        radius: float = 0.3,
        max_neighbours: int = 32,
        cell_size: float = 0.3,
    ) -> None:
        super().__init__()
        self.radius, self.max_neighbours, self.cell_size = radius, max_neighbours, cell_size
        self.layers = nn.ModuleList(TinySAModule(channels, num_heads) for _ in range(num_layers))

    def forward(self, features: Tensor, xyz: Tensor, num_points: Sequence[int]) -> Tensor:
        """Refined features.

        Args:
            features: (sum N, C).
            xyz: (sum N, 3) metres.
            num_points: N of each sample; samples do not see each other.

        Returns:
            (sum N, C).
        """
        if len(features) == 0:
            return features
        neighbourhood = find_neighbourhood(
            xyz, num_points, self.radius, self.max_neighbours, self.cell_size
        )
        for layer in self.layers:
            features = layer(features, neighbourhood)
        return features


@MODELS.register_module()
class TinySAModule(nn.Module):
    """One layer: centres attend to the points of their ball, points take from centres near them.

        q_c = W_q LN(mean of the cell),  k_i, v_i = W_kv LN(x_i) + W_p (p_i − p_c) / r
        x_i ← x_i + Σ_c w_ic W_o softmax(q_c · k / √d) v

    Args:
        channels: C.
        num_heads: divides C.
    """

    def __init__(self, channels: int, num_heads: int = 4) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f'{channels} channels cannot be shared by {num_heads} heads')
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.position = nn.Linear(3, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, features: Tensor, neighbourhood: Neighbourhood) -> Tensor:
        """(sum N, C) → (sum N, C)."""
        hood = neighbourhood
        x = self.norm(features)  # (sum N, C)

        # every centre attends to its ball
        means = scatter_mean(x, hood.centre_of_point, len(hood.neighbour))  # (M, C)
        learnt = self.out(self._attend(self.query(means), self.key_value(x), hood))  # (M, C)

        # interpolated back to the points: Σ_c w_ic learnt_c
        spread = F.embedding_bag(
            hood.nearby, learnt, per_sample_weights=hood.nearby_weight.to(learnt.dtype), mode='sum'
        )
        return features + spread

    def _attend(self, query: Tensor, key_value: Tensor, hood: Neighbourhood) -> Tensor:
        """(M, C) queries and (sum N, 2C) keys and values → (M, C)."""
        num_centres, num_neighbours = hood.neighbour.shape
        gathered = key_value[hood.neighbour] + self.position(hood.offset.to(key_value.dtype))
        gathered = gathered.reshape(num_centres, num_neighbours, 2, self.num_heads, -1)
        key, value = gathered.permute(2, 0, 3, 1, 4)  # (M, heads, K, d) each
        query = query.reshape(num_centres, self.num_heads, 1, -1)  # (M, heads, 1, d)

        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=hood.is_neighbour[:, None, None]
        )
        return attended.reshape(num_centres, -1)


@MODELS.register_module()
class TinySA2D(nn.Module):
    """Every cell of a map attends to the map's averages over windows, in a narrow width.

    What attention adds is zero at first: the map comes through unchanged until it has learnt.

    Args:
        channels: C.
        num_layers: how many layers.
        hidden: width of the attention.
        num_heads: divides ``hidden``.
        num_windows: windows along each axis; cost grows with cells × windows².
    """

    def __init__(
        self,
        channels: int,
        num_layers: int = 2,
        hidden: int = 64,
        num_heads: int = 4,
        num_windows: int = 7,
    ) -> None:
        super().__init__()
        if hidden % num_heads:
            raise ValueError(f'{hidden} channels cannot be shared by {num_heads} heads')
        self.layers = nn.ModuleList(
            _WindowAttention(channels, hidden, num_heads, num_windows) for _ in range(num_layers)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(V, C, h, w) → (V, C, h, w), in channels-last memory."""
        x = maps.permute(0, 2, 3, 1)
        for layer in self.layers:
            x = layer(x)
        return x.permute(0, 3, 1, 2)


class _WindowAttention(nn.Module):
    def __init__(self, channels: int, hidden: int, num_heads: int, num_windows: int) -> None:
        super().__init__()
        self.num_heads, self.num_windows = num_heads, num_windows
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, hidden)
        self.key_value = nn.Linear(channels, 2 * hidden)
        self.out = nn.Linear(hidden, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(V, h, w, C) → (V, h, w, C)."""
        num_views, height, width, _ = x.shape
        if num_views == 0:
            return x

        # keys and values are averages over windows of the map
        normed = self.norm(x)
        windows = F.adaptive_avg_pool2d(
            normed.permute(0, 3, 1, 2),
            (min(self.num_windows, height), min(self.num_windows, width)),
        )  # (V, C, windows, windows)
        query = self._heads(self.query(normed).flatten(1, 2))  # (V, heads, h·w, d)
        key, value = self.key_value(windows.permute(0, 2, 3, 1)).flatten(1, 2).chunk(2, dim=-1)

        attended = F.scaled_dot_product_attention(query, self._heads(key), self._heads(value))
        attended = attended.transpose(1, 2).reshape(num_views, height, width, -1)
        return x + self.out(attended)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
