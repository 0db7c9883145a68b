"""Small density networks that propose where a large field is worth a query (mip-NeRF 360).

Enters: rays in world metres. Leaves: edges (R, S + 1) for the field, and the (edges, weights) of
every round, which ``ray_losses.interlevel_loss`` fits to the field's own weights.

Letters: R rays, S samples per ray.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..networks.encodings import unit_cube
from ..networks.field import trunc_exp
from ..networks.hash_grid import HashGrid
from ..networks.layers import mlp
from .samplers import Proposals, Sampler, inverse_cdf_edges
from .spacing import spacing_radius, stratified_edges
from .volume import midpoints, weights_from_density


class ProposalNetwork(nn.Module):
    """Density alone, from a small hash grid and one hidden layer (nerfacto's).

    Args:
        max_resolution, num_levels, log2_hashmap_size, base_resolution, implementation: the grid's.
        hidden_dim: width.
        contracted: as the field.
    """

    def __init__(
        self,
        max_resolution: int = 128,
        num_levels: int = 5,
        log2_hashmap_size: int = 17,
        base_resolution: int = 16,
        hidden_dim: int = 16,
        contracted: bool = False,
        implementation: str = 'torch',
    ) -> None:
        super().__init__()
        self.contracted = contracted
        self.grid = HashGrid(
            num_levels, 2, log2_hashmap_size, base_resolution, max_resolution,
            implementation=implementation,
        )  # fmt: skip
        self.net = mlp(self.grid.output_dim, 1, hidden_dim, 1)

    def forward(self, unit_positions: Tensor) -> Tensor:
        """Density per unit length (…) at unit-box positions (…, 3)."""
        return trunc_exp(self.net(self.grid(unit_cube(unit_positions, self.contracted)))[..., 0])


class ProposalSampler(nn.Module, Sampler):
    """Rounds of proposals, the last of which places the field's samples.

    Args:
        networks: one per round, coarse first.
        num_proposals: intervals of each round.
        num_samples: S of the field.
        anneal_steps: over this many calls of ``step`` the proposals count more and more; 0 = at
            once.

    Example:
        >>> sampler = ProposalSampler([ProposalNetwork(32, 2, 8)], (16,), 8, anneal_steps=4)
        >>> sampler.anneal
        0.0
        >>> sampler.step()
        >>> round(sampler.anneal, 3)
        0.769
    """

    def __init__(
        self,
        networks: Sequence[nn.Module] | None = None,
        num_proposals: Sequence[int] = (256, 96),
        num_samples: int = 48,
        anneal_steps: int = 0,
    ) -> None:
        super().__init__()
        if networks is None:
            networks = [ProposalNetwork(128), ProposalNetwork(256)]
        if len(networks) != len(num_proposals) or not networks:
            raise ValueError(f'{len(networks)} networks for rounds of {tuple(num_proposals)}')
        self.networks = nn.ModuleList(networks)
        self.num_proposals = tuple(num_proposals)
        self.num_samples = num_samples
        self.anneal_steps = anneal_steps
        self.register_buffer('steps_done', torch.zeros((), dtype=torch.int64))

    def step(self) -> None:
        """Count a training step, for annealing; saved with the state."""
        self.steps_done += 1

    @property
    def anneal(self) -> float:
        """Power that proposed weights are taken to, 0 … 1 (mip-NeRF 360, eq. 18)."""
        if not self.anneal_steps:
            return 1.0
        share = min(int(self.steps_done) / self.anneal_steps, 1.0)
        # 10 s / (9 s + 1), s the share of the steps that is done
        return 10 * share / (9 * share + 1)

    def forward(self, field, rays, perturb=False, generator=None) -> tuple[Tensor, Proposals]:
        """Edges (R, S + 1) in metres without gradient, and each round's edges and weights."""
        box, power, proposals = field.scene_box, self.anneal, []
        radius = spacing_radius(field)
        edges = stratified_edges(rays, self.num_proposals[0], perturb, generator, radius)

        next_sizes = (*self.num_proposals[1:], self.num_samples)
        for network, next_size in zip(self.networks, next_sizes, strict=True):
            positions = box.to_unit(rays.positions(midpoints(edges)))  # (R, S, 3)
            weights, _ = weights_from_density(network(positions) * box.scale, edges)
            proposals.append((edges, weights))

            annealed = weights.detach() ** power
            edges = inverse_cdf_edges(edges, annealed, next_size, perturb, generator)
        return edges, proposals
