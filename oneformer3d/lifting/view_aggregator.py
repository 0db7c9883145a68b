"""What every way to combine the views of a point shares: checks, masks, points without views.

Enters: features (N, V, C), confidence (N, V) not negative, perhaps a mask (N, V). Leaves: (N, C).
N points, V views (any number, also 0, and another one than in training), C channels.

A view counts for a point when the mask holds, its confidence is above 0 and its values are finite;
what stands elsewhere is never read. Points without any view get a learned token. Points do not
influence each other, so working in chunks changes nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .shapes import expect_shape


class ViewAggregator(nn.Module):
    """Base: checks, points without views, what is masked. Subclasses define ``aggregate``.

    Args:
        feature_dim: C.

    Example:
        >>> class First(ViewAggregator):
        ...     def aggregate(self, features, confidence, valid, points, view_ids):
        ...         return features[:, 0]
        >>> First(2)(torch.tensor([[[1.0, 2.0], [3.0, 6.0]]]))
        tensor([[1., 2.]])
    """

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        if feature_dim < 1:
            raise ValueError(f'feature_dim must be positive, got {feature_dim}')
        self.feature_dim = feature_dim
        self.no_view = nn.Parameter(torch.randn(feature_dim) * 0.02)

    def forward(
        self,
        features: Tensor | Sequence[Tensor],
        confidence: Tensor | None = None,
        mask: Tensor | None = None,
        points_3d: Tensor | None = None,
        view_ids: Tensor | None = None,
    ) -> Tensor:
        """Combine the views of each point.

        Args:
            features: (N, V, C), or V tensors (N, C).
            confidence: (N, V) not negative, 0 for a view that does not count; None is 1.
            mask: (N, V) bool, which views see the point; None is all of them.
            points_3d: (N, 3) metres, for aggregators that look at positions.
            view_ids: (V,) or (N, V) int64 numbers of the views, for those that tell views
                apart; None is 0…V−1.

        Returns:
            (N, C), finite.

        Raises:
            ValueError: shapes that do not fit.
        """
        if not torch.is_tensor(features):
            features = _stacked(features)
        num_points, num_views = self._check(features, confidence, mask, points_3d)
        view_ids = _view_ids(view_ids, num_points, num_views, features.device)

        # which views of a point count
        valid = torch.isfinite(features).all(-1)  # (N, V)
        if mask is not None:
            valid = valid & mask
        if confidence is None:
            confidence = features.new_ones(num_points, num_views)
        valid = valid & (confidence > 0) & (confidence < torch.inf)

        # points without any get the token, the others are combined
        rows = valid.any(1).nonzero()[:, 0]
        result = self.no_view.to(features.dtype).expand(num_points, -1)
        if len(rows) == 0:
            return result.clone()
        if len(rows) < num_points:
            features, confidence, valid, view_ids = (
                x[rows] for x in (features, confidence, valid, view_ids)
            )
            points_3d = None if points_3d is None else points_3d[rows]

        # what does not count is never read, not even as 0 · nan
        if not bool(valid.all()):
            features = features.masked_fill(~valid[..., None], 0.0)
            confidence = confidence.masked_fill(~valid, 0.0)
        combined = self.aggregate(features, confidence.to(features), valid, points_3d, view_ids)
        if len(rows) == num_points:
            return combined
        return result.to(combined.dtype).index_copy(0, rows, combined)

    def aggregate(
        self,
        features: Tensor,
        confidence: Tensor,
        valid: Tensor,
        points: Tensor | None,
        view_ids: Tensor,
    ) -> Tensor:
        """(N, C) of points that have a view; features and confidence are 0 where not valid."""
        raise NotImplementedError

    def _check(
        self,
        features: Tensor,
        confidence: Tensor | None,
        mask: Tensor | None,
        points: Tensor | None,
    ) -> tuple[int, int]:
        num_points, num_views, _ = expect_shape('features', features, 'N V C', C=self.feature_dim)
        for name, value in (('confidence', confidence), ('mask', mask)):
            if value is not None:
                expect_shape(name, value, 'N V', N=num_points, V=num_views)
        if points is not None:
            expect_shape('points_3d', points, 'N 3', N=num_points)
        return num_points, num_views


def confidence_mean(features: Tensor, weights: Tensor) -> Tensor:
    """``Σ w f / Σ w`` over the views: (N, V, C) and (N, V) with a positive sum → (N, C)."""
    shares = weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return (features * shares[..., None]).sum(1)


def _stacked(features: Sequence[Tensor]) -> Tensor:
    if len(features) == 0:
        raise ValueError('features: no views; give a tensor (N, 0, C)')
    shapes = {tuple(x.shape) for x in features}
    if len(shapes) > 1:
        raise ValueError(f'features: views of the same points differ in shape, got {shapes}')
    return torch.stack(list(features), dim=1)


def _view_ids(
    view_ids: Tensor | None, num_points: int, num_views: int, device: torch.device
) -> Tensor:
    if view_ids is None:
        view_ids = torch.arange(num_views, device=device)
    # one number for each view, or one for each view of each point
    if tuple(view_ids.shape) not in ((num_views,), (num_points, num_views)):
        raise ValueError(
            f'view_ids must be ({num_views},) or ({num_points}, {num_views}), '
            f'got {tuple(view_ids.shape)}'
        )
    return view_ids.expand(num_points, num_views)
