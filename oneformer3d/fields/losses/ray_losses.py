"""Losses of the weights along rays: depth, empty space, proposals and compactness.

Enters: edges (R, S + 1) and weights (R, S) of a rendering, measured distances (R,) in metres, 0
where there is none. Leaves: scalars. Letters: R rays, S samples.
"""

import torch
from torch import Tensor

from ..rendering.volume import midpoints

_EPS = 1e-7


def termination_loss(
    edges: Tensor, weights: Tensor, distance: Tensor, sigma: float = 0.05
) -> Tensor:
    """Rays end at the measured surface (DS-NeRF, CVPR 2022, eq. 7).

    ``−Σ log(w + ε) exp(−(t − d)² / 2σ²) δ``, the mean over rays with a measurement.

    Args:
        edges, weights, distance: of the rays.
        sigma: standard deviation of the measurement in metres (not its square).
    """
    middles, lengths = midpoints(edges), edges.diff(dim=-1)  # (R, S)
    nearness = torch.exp(-((middles - distance[:, None]) ** 2) / (2 * sigma**2))
    losses = -(torch.log(weights + _EPS) * nearness * lengths).sum(-1)
    return masked_mean(losses, distance > 0)


def empty_space_loss(
    edges: Tensor, weights: Tensor, distance: Tensor, margin: float = 0.1
) -> Tensor:
    """Nothing hangs in front of the measured surface (Urban Radiance Fields, CVPR 2022, eq. 13).

    ``Σ w²`` over intervals nearer than ``d − margin``, the mean over rays with a measurement.
    """
    in_front = edges[:, 1:] < (distance - margin)[:, None]
    return masked_mean((weights**2 * in_front).sum(-1), distance > 0)


def interlevel_loss(
    edges: Tensor, weights: Tensor, proposals: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """Proposals cover the final weights (mip-NeRF 360, CVPR 2022, eq. 13).

    ``Σ max(0, w − bound)² / (w + ε)``, the bound being the proposal's weight of all intervals
    that overlap. The final side has no gradient.
    """
    edges, weights = edges.detach(), weights.detach()
    total = weights.new_zeros(())
    for proposal_edges, proposal_weights in proposals:
        bound = outer_measure(edges, proposal_edges, proposal_weights)
        excess = (weights - bound).clamp(min=0)
        total = total + (excess**2 / (weights + _EPS)).sum(-1).mean()
    return total


def outer_measure(edges: Tensor, other_edges: Tensor, other_weights: Tensor) -> Tensor:
    """Weight (R, S) of all other intervals that overlap each interval between edges (R, S + 1)."""
    # weight below each of the other edges; a sum over intervals is a difference of two
    below = torch.cat((torch.zeros_like(other_weights[:, :1]), other_weights.cumsum(-1)), dim=-1)
    other_edges = other_edges.contiguous()

    # from the last edge at or before an interval's start to the first at or after its end
    starts, ends = edges[:, :-1].contiguous(), edges[:, 1:].contiguous()
    first = (torch.searchsorted(other_edges, starts, right=True) - 1).clamp(0, None)
    last = torch.searchsorted(other_edges, ends).clamp(None, other_weights.shape[-1])
    return below.gather(-1, last) - below.gather(-1, torch.minimum(first, last))


def distortion_loss(edges: Tensor, weights: Tensor) -> Tensor:
    """Weights of a ray lie together (mip-NeRF 360, eq. 15), in linear time.

    ``Σᵢⱼ wᵢ wⱼ |mᵢ − mⱼ| + ⅓ Σ wᵢ² δᵢ`` with edges scaled to 0 … 1 between near and far.
    """
    span = (edges[:, -1:] - edges[:, :1]).clamp(min=_EPS)
    steps = (edges - edges[:, :1]) / span
    middles, lengths = midpoints(steps), steps.diff(dim=-1)  # (R, S)

    # Σᵢⱼ wᵢ wⱼ |mᵢ − mⱼ| = 2 Σᵢ wᵢ (mᵢ Σ_{j<i} wⱼ − Σ_{j<i} wⱼ mⱼ), as middles ascend
    before = weights.cumsum(-1) - weights
    moment = (weights * middles).cumsum(-1) - weights * middles
    between = 2 * (weights * (middles * before - moment)).sum(-1)
    within = (weights**2 * lengths).sum(-1) / 3
    return (between + within).mean()


def masked_mean(values: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean (or weighted mean) of values (N,) where the mask holds; 0 with a graph if nowhere."""
    share = mask.to(values.dtype) if weights is None else mask * weights.to(values.dtype)
    values = torch.where(mask, values, 0)
    return (values * share).sum() / share.sum().clamp(min=torch.finfo(values.dtype).eps)
