"""The volume rendering integral: densities of intervals to weights, weights times values to sums.

Enters: density (…, S) and edges (…, S + 1), values (…, S, K). Leaves: weights (…, S), sums (…, K).
Letters: S samples (intervals) per ray, K values.
"""

import torch
from torch import Tensor

from oneformer3d.lifting.shapes import expect_shape


def weights_from_density(density: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Share of the light that each interval stops: ``w_i = T_i (1 − exp(−σ_i δ_i))``.

    The light that reaches an interval is ``T_i = exp(−Σ_{j<i} σ_j δ_j)``, so that ``T_end + Σ w =
    1``; the intervals δ are the true ones between edges, the last included (NeRF, ECCV 2020,
    eq. 3, with Max's digest).

    Args:
        density: (…, S) per unit length of the edges.
        edges: (…, S + 1) ascending.

    Returns:
        Weights (…, S) and the light left at the end (…), in float32 (float64 for float64).

    Example:
        >>> weights, left = weights_from_density(torch.tensor([0.8, 0.1, 0.8]), torch.arange(4.0))
        >>> weights, left
        (tensor([0.5507, 0.0428, 0.2239]), tensor(0.1827))
    """
    expect_shape('edges', edges, '... E', E=density.shape[-1] + 1)
    density = density if density.dtype == torch.float64 else density.float()

    optical = density * (edges[..., 1:] - edges[..., :-1]).to(density.dtype)  # σ_i δ_i
    total = optical.cumsum(-1)
    before = torch.cat((torch.zeros_like(total[..., :1]), total[..., :-1]), dim=-1)

    # w_i = T_i (1 − exp(−σ_i δ_i)), T_i = exp(−Σ_{j<i} σ_j δ_j)
    weights = torch.exp(-before) * -torch.expm1(-optical)
    return weights, torch.exp(-total[..., -1])


def composite(weights: Tensor, values: Tensor) -> Tensor:
    """Σ w v over the samples: (…, S) and (…, S, K) → (…, K).

    Example:
        >>> composite(torch.tensor([0.5, 0.25]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([0.5000, 0.2500])
    """
    return (weights[..., None] * values).sum(-2)


def midpoints(edges: Tensor) -> Tensor:
    """Middles (…, S) of the intervals between edges (…, S + 1).

    Example:
        >>> midpoints(torch.tensor([0.0, 1.0, 3.0]))
        tensor([0.5000, 2.0000])
    """
    return (edges[..., 1:] + edges[..., :-1]) / 2
