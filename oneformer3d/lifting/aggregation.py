"""Many views of a point → one feature: every way to combine them behind one interface.

Enters: features (N, V, C), confidence (N, V) not negative, perhaps a mask (N, V). Leaves: (N, C).
N points, V views, C channels; which views count, see ``view_aggregator``.

    aggregator(features, confidence=None, mask=None, points_3d=None, view_ids=None)

Permuting the views of a point (with their ``view_ids``) changes nothing, except for
``LearnableFusion``, whose slots have weights of their own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .view_aggregator import ViewAggregator, confidence_mean


def build_aggregator(settings: str | Mapping[str, Any], feature_dim: int) -> ViewAggregator:
    """An aggregator by name, or by ``{'type': name, …}`` with further settings.

    Args:
        settings: a name of ``AGGREGATORS``, or a mapping.
        feature_dim: C.

    Raises:
        ValueError: no such name.

    Example:
        >>> aggregator = build_aggregator('mean', 2)
        >>> features = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])  # one point, two views
        >>> aggregator(features), aggregator(features, mask=torch.tensor([[False, True]]))
        (tensor([[2., 4.]]), tensor([[3., 6.]]))
    """
    settings = {'type': settings} if isinstance(settings, str) else dict(settings)
    name = settings.pop('type', None)
    if name not in AGGREGATORS:
        raise ValueError(f'aggregator: expected one of {sorted(AGGREGATORS)}, got {name!r}')
    return AGGREGATORS[name](feature_dim=feature_dim, **settings)


class MeanAggregator(ViewAggregator):
    """Mean of the views."""

    def aggregate(self, features, confidence, valid, points, view_ids) -> Tensor:
        """See ``ViewAggregator``."""
        return features.sum(1) / valid.sum(1, keepdim=True)


class MaxAggregator(ViewAggregator):
    """Largest value of each channel."""

    def aggregate(self, features, confidence, valid, points, view_ids) -> Tensor:
        """See ``ViewAggregator``."""
        return features.masked_fill(~valid[..., None], -torch.inf).amax(1)


class ConfidenceAggregator(ViewAggregator):
    """Mean weighted by the confidence."""

    def aggregate(self, features, confidence, valid, points, view_ids) -> Tensor:
        """See ``ViewAggregator``."""
        return confidence_mean(features, confidence)


class MultiViewAggregator(ViewAggregator):
    """Self-attention among the views of a point, then the mean weighted by the confidence.

    Each view carries an embedding of its number: sinusoids through a linear layer, so that
    there is one for every number.

    Args:
        feature_dim: C.
        num_views: numbers below it are told apart best; larger ones are allowed.
        num_heads: of the attention.

    Example:
        >>> MultiViewAggregator(feature_dim=16, num_views=4)(torch.randn(5, 4, 16)).shape
        torch.Size([5, 16])
    """

    def __init__(self, feature_dim: int, num_views: int = 32, num_heads: int = 8) -> None:
        super().__init__(feature_dim)
        self.view_embedding = ViewEmbedding(feature_dim, num_views)
        self.attention = nn.MultiheadAttention(feature_dim, num_heads, batch_first=True)

    def aggregate(self, features, confidence, valid, points, view_ids) -> Tensor:
        """See ``ViewAggregator``."""
        features = (features + self.view_embedding(view_ids)) * confidence[..., None]
        padding = None if bool(valid.all()) else ~valid
        attended, _ = self.attention(
            features, features, features, key_padding_mask=padding, need_weights=False
        )
        return confidence_mean(attended, confidence)


class LearnableFusion(ViewAggregator):
    """Views weighted by their slot, side by side, through an MLP.

    The views fill ``num_views`` slots in the order given, absent ones are zero. The slots have
    weights of their own: at most ``num_views`` views, and their order matters.

    Args:
        feature_dim: C.
        num_views: slots.

    Example:
        >>> LearnableFusion(feature_dim=16, num_views=4)([torch.randn(5, 16)] * 4).shape
        torch.Size([5, 16])
    """

    def __init__(self, feature_dim: int, num_views: int) -> None:
        super().__init__(feature_dim)
        if num_views < 1:
            raise ValueError(f'num_views must be positive, got {num_views}')
        self.num_views = num_views
        self.fusion_weights = nn.Parameter(torch.ones(num_views) / num_views)
        self.feature_transform = _fusion_mlp(feature_dim * num_views, feature_dim)

    def aggregate(self, features, confidence, valid, points, view_ids) -> Tensor:
        """See ``ViewAggregator``.

        Raises:
            ValueError: more views than slots.
        """
        num_views = features.shape[1]
        if num_views > self.num_views:
            raise ValueError(f'{num_views} views for {self.num_views} slots of LearnableFusion')
        weights = self.fusion_weights.softmax(0)[:num_views]
        weighted = F.pad(features * weights[:, None], (0, 0, 0, self.num_views - num_views))
        return self.feature_transform(weighted.flatten(1))


class PooledFusion(ViewAggregator):
    """As ``LearnableFusion``, but the weight of a view comes from what it shows, and the weighted
    mean goes through the MLP: any number of views in any order.

    Args:
        feature_dim: C.
    """

    def __init__(self, feature_dim: int) -> None:
        super().__init__(feature_dim)
        self.score = nn.Linear(feature_dim, 1)
        self.feature_transform = _fusion_mlp(feature_dim, feature_dim)

    def aggregate(self, features, confidence, valid, points, view_ids) -> Tensor:
        """See ``ViewAggregator``."""
        weights = self.score(features)[..., 0].sigmoid() * confidence
        return self.feature_transform(confidence_mean(features, weights))


class GatedAggregator(ViewAggregator):
    """Views compete by what they and their mean show; a gate falls back on the token.

    A small MLP scores each view from its feature, the mean and its confidence; groups of channels
    have scores of their own. ``gate · Σ softmax(score) f + (1 − gate) · token``, the gate from
    the best score (after DeepViewAgg, Robert et al., CVPR 2022).

    Args:
        feature_dim: C.
        num_groups: of channels; a divisor of C.
        hidden: of the MLP.
    """

    def __init__(self, feature_dim: int, num_groups: int = 4, hidden: int = 32) -> None:
        super().__init__(feature_dim)
        if feature_dim % num_groups:
            raise ValueError(f'num_groups {num_groups} does not divide {feature_dim} channels')
        self.num_groups = num_groups
        self.scores = nn.Sequential(
            nn.Linear(2 * feature_dim + 1, hidden), nn.ReLU(), nn.Linear(hidden, num_groups)
        )
        self.gate = nn.Linear(num_groups, num_groups)
        nn.init.constant_(self.gate.bias, 2.0)

    def aggregate(self, features, confidence, valid, points, view_ids) -> Tensor:
        """See ``ViewAggregator``."""
        num_points, num_views, _ = features.shape

        # each view is scored beside what all of them show: (N, V, G)
        mean = confidence_mean(features, confidence)[:, None].expand_as(features)
        log_confidence = confidence.clamp(min=1e-6).log()[..., None]
        scores = self.scores(torch.cat((features, mean, log_confidence), dim=-1))
        scores = scores.masked_fill(~valid[..., None], -torch.inf)
        weights = scores.softmax(1)
        gate = self.gate(scores.amax(1)).sigmoid()[..., None]  # (N, G, 1)

        # gate · Σ softmax(score) f + (1 − gate) · token
        groups = features.reshape(num_points, num_views, self.num_groups, -1)
        combined = (groups * weights[..., None]).sum(1)
        token = self.no_view.to(combined).reshape(self.num_groups, -1)
        return (gate * combined + (1 - gate) * token).flatten(1)


class TransformerFeatureAggregator(ViewAggregator):
    """A transformer over the views of a point, whose position is added to each of them.

    Args:
        d_model: width.
        nhead: attention heads.
        num_layers: encoder layers.
        dim_feedforward: hidden width of a layer.
        dropout: of a layer.
        feature_dim: C; None is the width of the transformer. Another width is reached by linear
            layers before and after.

    Example:
        >>> aggregator = TransformerFeatureAggregator(16, 2, 1)
        >>> aggregator(torch.randn(5, 4, 16), torch.randn(5, 3)).shape
        torch.Size([5, 16])
    """

    def __init__(
        self,
        d_model: int = 256,
        nhead: int = 8,
        num_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        feature_dim: int | None = None,
    ) -> None:
        feature_dim = d_model if feature_dim is None else feature_dim
        super().__init__(feature_dim)
        self.positional_encoding = PositionalEncoding3D(d_model)
        same = feature_dim == d_model
        self.to_model = nn.Identity() if same else nn.Linear(feature_dim, d_model)
        self.from_model = nn.Identity() if same else nn.Linear(d_model, feature_dim)
        layer = nn.TransformerEncoderLayer(
            d_model, nhead, dim_feedforward, dropout, batch_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)

    def forward(
        self,
        multi_view_features: Tensor | Sequence[Tensor],
        points_3d: Tensor | None = None,
        confidence: Tensor | None = None,
        mask: Tensor | None = None,
        view_ids: Tensor | None = None,
    ) -> Tensor:
        """``ViewAggregator.forward`` with the points (N, 3), which are needed here, second."""
        return super().forward(multi_view_features, confidence, mask, points_3d, view_ids)

    def aggregate(self, features, confidence, valid, points, view_ids) -> Tensor:
        """See ``ViewAggregator``.

        Raises:
            ValueError: no points.
        """
        if points is None:
            raise ValueError('TransformerFeatureAggregator needs points_3d (N, 3)')
        position = self.positional_encoding(points.to(features))
        padding = None if bool(valid.all()) else ~valid
        tokens = self.to_model(features) + position[:, None]  # (N, V, d_model)
        tokens = self.transformer(tokens, src_key_padding_mask=padding)
        tokens = tokens.masked_fill(~valid[..., None], 0.0)
        return self.from_model(tokens.sum(1) / valid.sum(1, keepdim=True))


AGGREGATORS = {
    'mean': MeanAggregator,
    'max': MaxAggregator,
    'confidence': ConfidenceAggregator,
    'attention': MultiViewAggregator,
    'learnable': LearnableFusion,
    'pooled': PooledFusion,
    'gated': GatedAggregator,
    'transformer': TransformerFeatureAggregator,
}


def _fusion_mlp(in_channels: int, feature_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_channels, feature_dim * 2), nn.ReLU(), nn.Linear(feature_dim * 2, feature_dim)
    )


class PositionalEncoding3D(nn.Module):
    """Sinusoids of x, y and z, wavelengths from 10 cm to 100 m; has no parameters.

    Args:
        channels: of the encoding; where 6 does not divide it, the last ones are zero.
    """

    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 6:
            raise ValueError(f'expected at least 6 channels, got {channels}')
        self.channels = channels
        wavelengths = torch.logspace(-1, 2, channels // 6)
        self.register_buffer('frequencies', 2 * math.pi / wavelengths, persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        """(..., 3) metres → (..., channels)."""
        angles = points[..., None] * self.frequencies.to(points.dtype)
        encoded = torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(-2)
        return F.pad(encoded, (0, self.channels - encoded.shape[-1]))


class ViewEmbedding(nn.Module):
    """An embedding of every view number: sinusoids through a linear layer.

    Args:
        channels: of the embedding.
        num_views: the longest wavelength covers so many numbers.
    """

    frequencies: Tensor

    def __init__(self, channels: int, num_views: int = 32, num_waves: int = 8) -> None:
        super().__init__()
        wavelengths = torch.logspace(math.log10(2.5), math.log10(2 * max(2, num_views)), num_waves)
        self.register_buffer('frequencies', 2 * math.pi / wavelengths, persistent=False)
        self.linear = nn.Linear(2 * num_waves, channels)

    def forward(self, view_ids: Tensor) -> Tensor:
        """(...) int64 → (..., channels)."""
        angles = view_ids[..., None].to(self.frequencies) * self.frequencies
        return self.linear(torch.cat((angles.sin(), angles.cos()), dim=-1))
