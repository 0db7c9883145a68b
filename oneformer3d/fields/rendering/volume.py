"""The volume rendering integral: densities of intervals to weights, weights times values to sums.

Enters: density (…, S) and edges (…, S + 1), values (…, S, K). Leaves: weights (…, S), sums (…, K).
"""

import torch
from torch import Tensor


def weights_from_density(density: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Share of the light that each interval returns: ``w = T (1 − e^{−σδ})``.

    ``T`` is e to minus the *exclusive* sum of σδ, so that ``T_end + Σ w = 1``; the intervals are
    the true ones between edges, the last included (NeRF, eq. 3, with Max's digest).

    Args:
        density: (…, S) per unit length of the edges.
        edges: (…, S + 1) ascending.

    Returns:
        Weights (…, S) and the light left at the end (…), in float32 (float64 for float64).

    Raises:
        ValueError: another number of edges than of densities and one.
    """
    if edges.shape[-1] != density.shape[-1] + 1:
        raise ValueError(f'{density.shape[-1]} densities need one edge more, got {edges.shape[-1]}')
    density = density if density.dtype == torch.float64 else density.float()
    optical = density * (edges[..., 1:] - edges[..., :-1]).to(density.dtype)
    total = optical.cumsum(-1)
    before = torch.cat((torch.zeros_like(total[..., :1]), total[..., :-1]), dim=-1)
    weights = torch.exp(-before) * -torch.expm1(-optical)
    return weights, torch.exp(-total[..., -1])


def composite(weights: Tensor, values: Tensor) -> Tensor:
    """Σ w v over the samples: (…, S) and (…, S, K) → (…, K)."""
    return (weights[..., None] * values).sum(-2)


def midpoints(edges: Tensor) -> Tensor:
    """Middles (…, S) of the intervals between edges (…, S + 1)."""
    return (edges[..., 1:] + edges[..., :-1]) / 2
