"""Where along its rays a field is queried: interval edges, evenly or where the matter is.

Enters: rays in world metres; for the later rounds weights (R, S) of earlier intervals. Leaves:
edges (R, S + 1) in metres, ascending. Every ray is jittered by itself, and nothing is jittered
unless ``perturb`` is set.

Letters: R rays, S samples (intervals) per ray.
"""

import torch
from torch import Tensor

from oneformer3d.lifting.shapes import expect_shape

from ..networks.field import Field
from .rays import Rays
from .spacing import distances_at, spacing_radius, stratified_edges, uniform_draws
from .volume import midpoints, weights_from_density

Proposals = list[tuple[Tensor, Tensor]]


class Sampler:
    """Places the samples of rays; a subclass is called, and typed, as this one."""

    def __call__(
        self,
        field: Field,
        rays: Rays,
        perturb: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Proposals]:
        """Edges (R, S + 1) without gradient, and (edges, weights) of proposals that it trains."""
        raise NotImplementedError


def inverse_cdf(
    edges: Tensor,
    weights: Tensor,
    num_values: int,
    perturb: bool = False,
    generator: torch.Generator | None = None,
    padding: float = 0.01,
) -> Tensor:
    """Ascending draws from the density that is constant within each interval.

    Args:
        edges: (R, S + 1) ascending.
        weights: (R, S) not negative, of any sum.
        num_values: draws per ray.
        perturb: one random draw in each of equal shares of the probability, else its middle.
        generator: for repeatable draws.
        padding: added to every weight, so that all intervals stay reachable.

    Returns:
        (R, num_values), without gradient.

    Example:
        Three quarters of the weight draw three of four values.

        >>> edges, weights = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[1.0, 3.0]])
        >>> inverse_cdf(edges, weights, 4, padding=0.0)
        tensor([[0.5000, 1.1667, 1.5000, 1.8333]])
    """
    num_rays, num_edges = expect_shape('edges', edges, 'R E', E=weights.shape[-1] + 1)
    edges, weights = edges.detach(), weights.detach().to(edges.dtype) + padding

    # a ray without any weight is drawn from evenly
    total = weights.sum(-1, keepdim=True)
    even = torch.full_like(weights, 1 / weights.shape[-1])
    pdf = torch.where(total > 0, weights / total.clamp(min=torch.finfo(total.dtype).tiny), even)
    cdf = pdf.cumsum(-1)
    cdf = torch.cat((torch.zeros_like(cdf[:, :1]), cdf / cdf[:, -1:]), dim=-1)  # (R, S + 1)

    # one u per equal share of the probability, below 1 so that it lies in an interval
    shape = (num_rays, num_values)
    within = uniform_draws(shape, edges, generator) if perturb else edges.new_full(shape, 0.5)
    share = torch.arange(num_values, dtype=edges.dtype, device=edges.device)
    u = ((share + within) / num_values).clamp(max=1 - torch.finfo(edges.dtype).eps)

    # cdf[above − 1] ≤ u < cdf[above]; linear between the two edges
    above = torch.searchsorted(cdf, u, right=True).clamp(1, num_edges - 1)
    low_cdf, high_cdf = cdf.gather(-1, above - 1), cdf.gather(-1, above)
    low, high = edges.gather(-1, above - 1), edges.gather(-1, above)
    gap = high_cdf - low_cdf
    fraction = torch.where(gap > 0, (u - low_cdf) / gap.clamp(min=1e-12), 0.5)
    return low + fraction.clamp(0, 1) * (high - low)


def inverse_cdf_edges(
    edges: Tensor,
    weights: Tensor,
    num_samples: int,
    perturb: bool = False,
    generator: torch.Generator | None = None,
    padding: float = 0.01,
) -> Tensor:
    """New intervals, narrow where the weights are: ``inverse_cdf`` with one value more.

    Returns:
        (R, num_samples + 1), without gradient.

    Example:
        >>> edges, weights = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[1.0, 3.0]])
        >>> inverse_cdf_edges(edges, weights, 3, padding=0.0)
        tensor([[0.5000, 1.1667, 1.5000, 1.8333]])
    """
    return inverse_cdf(edges, weights, num_samples + 1, perturb, generator, padding)


def hierarchical_sampling(
    points: Tensor,
    weights: Tensor,
    num_samples: int,
    perturb: bool = True,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Further points on rays, drawn where the weights are (NeRF, ECCV 2020, section 5.2).

    ``inverse_cdf`` for points: each stands for the interval between the middles beside it.

    Args:
        points: (R, S, 3) along each ray in order, S ≥ 2.
        weights: (R, S) not negative.
        num_samples: draws per ray.
        perturb: random draws, else evenly spread ones.
        generator: for repeatable draws.

    Returns:
        Points (R, num_samples, 3) in order, and the weight of the interval each was drawn from
        (R, num_samples); both without gradient.

    Example:
        >>> points = torch.tensor([[[0.0, 0, 1], [0, 0, 2], [0, 0, 3]]])
        >>> weights = torch.tensor([[0.0, 1.0, 0.0]])
        >>> drawn, weight = hierarchical_sampling(points, weights, 2, perturb=False)
        >>> drawn[..., 2], weight
        (tensor([[1.7500, 2.2500]]), tensor([[1., 1.]]))
    """
    num_rays, num_points, _ = expect_shape('points', points, 'R S 3')
    expect_shape('weights', weights, 'R S', R=num_rays, S=num_points)
    if num_points < 2:
        raise ValueError(f'points: expected S >= 2 on each ray, got {num_points}')
    points, weights = points.detach(), weights.detach()

    # distances along the line from the first point to the last
    first, along = points[:, :1], points[:, -1:] - points[:, :1]  # (R, 1, 3)
    length = torch.linalg.vector_norm(along, dim=-1, keepdim=True)
    direction = along / length.clamp(min=torch.finfo(length.dtype).tiny)
    distances = torch.linalg.vector_norm(points - first, dim=-1)  # (R, S)

    middles = midpoints(distances)  # (R, S - 1)
    edges = torch.cat((distances[:, :1], middles, distances[:, -1:]), dim=-1)  # (R, S + 1)
    drawn = inverse_cdf(edges, weights, num_samples, perturb, generator, padding=1e-5)
    interval = torch.searchsorted(middles.contiguous(), drawn, right=True)
    return first + drawn[..., None] * direction, weights.gather(-1, interval)


class UniformSampler(Sampler):
    """Even, or stratified, intervals; of a contracted field even in contracted space.

    Args:
        num_samples: S.
    """

    def __init__(self, num_samples: int = 64) -> None:
        self.num_samples = num_samples

    def __call__(self, field, rays, perturb=False, generator=None) -> tuple[Tensor, Proposals]:
        """Edges (R, S + 1) and no proposals."""
        radius = spacing_radius(field)
        return stratified_edges(rays, self.num_samples, perturb, generator, radius), []


class RefinedSampler(Sampler):
    """Another sampler's intervals, split further where the field itself finds matter there.

    Args:
        base: the other sampler.
        num_fine: edges added by the field's weights.
        padding: added to each of those weights.
        widen: whether they are spread to their neighbours beforehand.
    """

    def __init__(
        self, base: Sampler, num_fine: int = 16, padding: float = 1e-3, widen: bool = False
    ) -> None:
        self.base, self.num_fine, self.padding, self.widen = base, num_fine, padding, widen

    @torch.no_grad()
    def __call__(self, field, rays, perturb=False, generator=None) -> tuple[Tensor, Proposals]:
        """Edges (R, S + num_fine + 1), and the other sampler's proposals."""
        edges, proposals = self.base(field, rays, perturb, generator)
        density = field.world_density(rays.positions(midpoints(edges)))
        weights, _ = weights_from_density(density, edges)

        weights = widened(weights) if self.widen else weights
        fine = inverse_cdf(edges, weights, self.num_fine, perturb, generator, self.padding)
        return _merged(edges, fine), proposals


class HierarchicalSampler(RefinedSampler):
    """Even intervals, split further where the field itself finds matter (NeRF).

    Args:
        num_coarse: intervals of the first round.
        num_fine: edges added by the second.
    """

    def __init__(self, num_coarse: int = 64, num_fine: int = 128) -> None:
        super().__init__(UniformSampler(num_coarse), num_fine, padding=1e-5, widen=True)


class GuidedSampler(Sampler):
    """Another sampler's intervals, split further around a known distance.

    Args:
        base: the other sampler.
        distance: (R,) metres along each ray, 0 where it is not known: fine edges are even there.
        num_fine: edges added around the distance.
        reach: metres before and behind the distance.
    """

    def __init__(
        self, base: Sampler, distance: Tensor, num_fine: int = 16, reach: float = 0.1
    ) -> None:
        self.base, self.distance, self.num_fine, self.reach = base, distance, num_fine, reach

    @torch.no_grad()
    def __call__(self, field, rays, perturb=False, generator=None) -> tuple[Tensor, Proposals]:
        """Edges (R, S + num_fine + 1), and the other sampler's proposals."""
        edges, proposals = self.base(field, rays, perturb, generator)

        # one edge in each of num_fine even steps, around the distance or over the whole ray
        within = torch.full((len(rays), self.num_fine), 0.5)
        if perturb:
            device = edges.device if generator is None else generator.device
            within = torch.rand(within.shape, generator=generator, device=device)
        shares = (torch.arange(self.num_fine, device=within.device) + within) / self.num_fine
        shares = shares.to(edges)  # (R, num_fine)
        around = self.distance[:, None] + (2 * shares - 1) * self.reach
        anywhere = distances_at(rays, shares, spacing_radius(field))
        fine = torch.where(self.distance[:, None] > 0, around, anywhere)

        fine = torch.minimum(torch.maximum(fine, rays.near[:, None]), rays.far[:, None])
        return _merged(edges, fine), proposals


def widened(weights: Tensor) -> Tensor:
    """Weights (R, S) spread to their neighbours (mip-NeRF, ICCV 2021, eq. 18).

    An interval is judged by its middle, so a surface may also lie in the one before.

    Example:
        >>> widened(torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
        tensor([[0.0000, 0.5000, 1.0000, 0.5000]])
    """
    padded = torch.cat((weights[:, :1], weights, weights[:, -1:]), dim=-1)
    # ½ (max(w_{i−1}, w_i) + max(w_i, w_{i+1}))
    return midpoints(torch.maximum(padded[:, 1:], padded[:, :-1]))


def _merged(edges: Tensor, fine: Tensor) -> Tensor:
    return torch.cat((edges, fine), dim=-1).sort(dim=-1).values
