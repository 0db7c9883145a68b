"""Finer samples on top of another sampler's: by the field itself, or by measured depth.

In: rays, and while fitting the distance at which the sensor met something. Out: edges (R, S + 1)
in metres, ascending, as all samplers give.

Letters: R rays, S intervals.
"""

import torch
from torch import Tensor

from .field import Field
from .rays import Rays
from .samplers import Proposals, Sampler, inverse_cdf
from .volume import weights_from_density


class RefinedSampler:
    """Another sampler's intervals, split further where the field itself finds matter there.

    Args:
        base: the other sampler.
        num_fine: edges added by the field's own weights.
    """

    def __init__(self, base: Sampler, num_fine: int = 16) -> None:
        self.base, self.num_fine = base, num_fine

    @torch.no_grad()
    def __call__(
        self,
        field: Field,
        rays: Rays,
        perturb: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Proposals]:
        """Edges (R, S + num_fine + 1), and the other sampler's proposals."""
        edges, proposals = self.base(field, rays, perturb, generator)
        density = field.world_density(rays.positions((edges[:, 1:] + edges[:, :-1]) / 2))
        weights, _ = weights_from_density(density, edges)
        fine = inverse_cdf(edges, weights, self.num_fine, perturb, generator, padding=1e-3)
        return torch.cat((edges, fine), dim=-1).sort(dim=-1).values, proposals


class GuidedSampler:
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
    def __call__(
        self,
        field: Field,
        rays: Rays,
        perturb: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Proposals]:
        """Edges (R, S + num_fine + 1), and the other sampler's proposals."""
        edges, proposals = self.base(field, rays, perturb, generator)
        known = self.distance > 0
        low = torch.where(known, self.distance - self.reach, rays.near)
        high = torch.where(known, self.distance + self.reach, rays.far)
        shape = (len(rays), self.num_fine)
        within = torch.full(shape, 0.5)
        if perturb:
            device = edges.device if generator is None else generator.device
            within = torch.rand(shape, generator=generator, device=device)
        steps = (torch.arange(self.num_fine, device=within.device) + within) / self.num_fine
        fine = low[:, None] + steps.to(edges) * (high - low)[:, None]
        fine = torch.minimum(torch.maximum(fine, rays.near[:, None]), rays.far[:, None])
        return torch.cat((edges, fine), dim=-1).sort(dim=-1).values, proposals
