"""How far along its ray a share of its samples lies: even in metres, or in contracted space.

Enters: rays in world metres. Leaves: distances (R, S) or edges (R, S + 1) in metres, ascending.
Every ray is jittered by itself, and nothing is jittered unless ``perturb`` is set.

Letters: R rays, S samples (intervals) per ray.
"""

import torch
from torch import Tensor

from ..networks.field import Field
from .rays import Rays


def distances_at(rays: Rays, shares: Tensor, radius: Tensor | None = None) -> Tensor:
    """Distances that leave the given shares of the samples before them.

    Within the radius samples are even in metres, beyond it in reciprocal distance (nerfacto's
    spacing, and mip-NeRF 360's 1/t beyond): even steps of s = t/r up to the radius r and of
    s = 2 − r/t from there, which is how ``contract`` bends a line from the middle of the box.

    Args:
        rays: R rays.
        shares: (R, S) or (S,) from 0, at near, to 1, at far.
        radius: () metres; None for even in metres all the way.

    Returns:
        (R, S) metres along each ray.

    Example:
        Half of what lies between 1 m and 3 m in reciprocals is 1.5 m.

        >>> one = torch.ones(1)
        >>> rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0, 1]]), one, 3 * one, one)
        >>> distances_at(rays, torch.tensor([0.0, 0.5, 1.0])), distances_at(
        ...     rays, torch.tensor([0.0, 0.5, 1.0]), radius=torch.tensor(1.0)
        ... )
        (tensor([[1., 2., 3.]]), tensor([[1.0000, 1.5000, 3.0000]]))
    """
    near, far = rays.near[:, None], rays.far[:, None]
    if radius is None:
        return near + shares * (far - near)

    low, high = _bent(near / radius), _bent(far / radius)
    bent = torch.minimum(low + shares * (high - low), high)
    # t/r is s up to 1, and 1 / (2 − s) beyond; s stays below 2 since far is finite
    distances = radius * torch.where(bent <= 1, bent, 1 / (2 - bent.clamp(min=1)))
    # the ends exactly, whatever rounding made of them
    distances = torch.where(shares <= 0, near, torch.where(shares >= 1, far, distances))
    return torch.minimum(torch.maximum(distances, near), far)


def spacing_radius(field: Field) -> Tensor | None:
    """Metres to which a field's samples are even: half its box's side; None where they all are.

    Args:
        field: its box and whether it is contracted count.

    Returns:
        () metres.

    Example:
        >>> field = Field()
        >>> spacing_radius(field) is None
        True
        >>> field.contracted = True
        >>> spacing_radius(field)
        tensor(1.)
    """
    return 1 / field.scene_box.scale if field.contracted else None


def stratified_edges(
    rays: Rays,
    num_samples: int,
    perturb: bool = False,
    generator: torch.Generator | None = None,
    radius: Tensor | None = None,
) -> Tensor:
    """Even intervals between near and far.

    Args:
        rays: R rays.
        num_samples: S.
        perturb: move each inner edge, per ray, uniformly between the middles beside it.
        generator: for repeatable jitter.
        radius: beyond it they are even in reciprocal distance, see ``distances_at``.

    Returns:
        (R, S + 1); the first edge is near, the last far.

    Example:
        >>> one = torch.ones(1)
        >>> rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0, 1]]), one, 3 * one, one)
        >>> stratified_edges(rays, 4)
        tensor([[1.0000, 1.5000, 2.0000, 2.5000, 3.0000]])
    """
    if num_samples < 1:
        raise ValueError(f'num_samples must be positive, got {num_samples}')
    shares = torch.linspace(0, 1, num_samples + 1, dtype=rays.near.dtype, device=rays.near.device)
    shares = shares.expand(len(rays), -1)  # (R, S + 1)

    if perturb and num_samples > 1:
        shape = (len(rays), num_samples - 1)
        jitter = uniform_draws(shape, rays.near, generator) - 0.5
        inner = shares[:, 1:-1] + jitter / num_samples
        shares = torch.cat((shares[:, :1], inner, shares[:, -1:]), -1)
    return distances_at(rays, shares, radius)


def uniform_draws(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Uniform draws on the generator's device, then moved, so that seeds mean the same.

    Args:
        shape: of the draws.
        like: whose dtype and device they get.
        generator: None draws from the device's own.

    Returns:
        Numbers in [0, 1) of that shape.

    Example:
        >>> draws = uniform_draws((2, 3), torch.ones(1), torch.Generator().manual_seed(0))
        >>> draws.shape, bool((draws < 1).all())
        (torch.Size([2, 3]), True)
    """
    device = like.device if generator is None else generator.device
    draws = torch.rand(shape, dtype=like.dtype, device=device, generator=generator)
    return draws.to(like.device)


def _bent(distances: Tensor) -> Tensor:
    """Distances in radii (…) → contracted ones, as they are up to 1 and below 2 beyond."""
    return torch.where(distances <= 1, distances, 2 - 1 / distances.clamp(min=1))
