"""Volume rendering: densities along rays become weights, weights composite whatever heads say.

Enters: a field, rays in world metres, a sampler. Leaves: a ``RenderedRays`` of colour, depth,
summed weight, semantics, instances, features, language. Everything is worked out in float32 or
better whatever autocast says.

Letters: R rays, S samples per ray, M ≤ R · S queried samples, H hidden width, K values of a head.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from oneformer3d.lifting import Camera

from ..networks.field import Field
from ..networks.heads import Head
from ..networks.layers import full_precision, weighted_mean
from .rays import (
    DEFAULT_FAR,
    DEFAULT_NEAR,
    Rays,
    clip_to_box,
    distance_to_z,
    image_rays,
    unit_positions,
)
from .rendered import RenderedImage, RenderedRays
from .samplers import HierarchicalSampler, Sampler, UniformSampler
from .volume import composite, midpoints, weights_from_density

DEFAULT_CHUNK_RAYS = 4096


def render_rays(
    field: Field,
    rays: Rays,
    sampler: Sampler,
    heads: Collection[str] | None = None,
    # where along the rays
    perturb: bool | None = None,
    generator: torch.Generator | None = None,
    # behind them
    background: Tensor | float = 0.0,
    # which samples are worth a query
    occupancy: nn.Module | None = None,
    min_weight: float = 0.0,
    # language only
    crop_angle: Tensor | None = None,
) -> RenderedRays:
    """Render rays.

    Args:
        field: any ``Field``.
        rays: R rays in world metres; cut to the scene's box beforehand where there is one.
        sampler: decides where along the rays the field is queried.
        heads: heads wanted; None = all, () = depth only.
        perturb: random sample positions; None = while the field is training.
        generator: for repeatable perturbation.
        background: colour (3,) or grey seen through what is left of the light.
        occupancy: unit positions (M, 3) → which may hold matter; the others count as empty.
        min_weight: heads are queried only at samples of more weight than this; heads that shape
            the density where more light than this arrives, which bounds their weights.
        crop_angle: (R,) crop side in metres per metre of distance, for the language head.

    Example:
        Two metres of fog stop ``1 − e^{−2σ}`` of the light.

        >>> class Fog(Field):
        ...     def density(self, positions):
        ...         return torch.full(positions.shape[:-1], 0.5), positions
        >>> one = torch.ones(1)
        >>> rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0, 1]]), 0 * one, 2 * one, one)
        >>> rendered = render_rays(Fog(), rays, UniformSampler(4), perturb=False)
        >>> rendered.accumulation, rendered.weights
        (tensor([0.6321]), tensor([[0.2212, 0.1723, 0.1342, 0.1045]]))
        >>> rendered.depth
        tensor([0.8465])
    """
    perturb = field.training if perturb is None else perturb
    device_type = rays.origins.device.type

    with torch.autocast(device_type, enabled=False):
        edges, proposals = sampler(field, rays, perturb, generator)  # (R, S + 1)
        middles = midpoints(edges)  # (R, S)
        positions = unit_positions(rays, middles, field.scene_box).flatten(0, 1)  # (R·S, 3)

    # cells that hold nothing are not queried: their density is 0
    queried = None if occupancy is None else occupancy(positions).nonzero()[:, 0]
    positions = _pick(positions, queried)  # (M, 3)
    density, hidden = field.density(positions)  # (M,), (M, H)

    with torch.autocast(device_type, enabled=False):
        # per metre = per unit length · unit lengths per metre
        density = _scatter(density, queried, middles.numel()).view_as(middles)  # (R, S)
        density = density * field.scene_box.scale
        weights, _ = weights_from_density(density, edges)  # (R, S)
        accumulation = weights.sum(-1)  # (R,)
        # t̄ = Σ w t / Σ w
        distance = weighted_mean((weights * middles).sum(-1, keepdim=True), accumulation)[:, 0]

    samples = _samples(rays, middles, weights, positions, hidden, queried, crop_angle)
    values = {
        name: _render_head(field, head, samples, min_weight)
        for name, head in field.select_heads(heads).items()
    }
    if 'rgb' in values:
        # c = Σ w c + (1 − Σ w) background
        left = 1 - accumulation[:, None]
        values['rgb'] = values['rgb'] + left * torch.as_tensor(background).to(left)
    return RenderedRays(
        distance=distance,
        depth=distance_to_z(distance, rays),
        accumulation=accumulation,
        z_scale=rays.z_scale,
        edges=edges,
        density=density,
        weights=weights,
        heads=values,
        proposals=proposals,
    )


@torch.no_grad()
def render_image(
    field: Field,
    camera: Camera,
    sampler: Sampler,
    near: float = DEFAULT_NEAR,
    far: float = DEFAULT_FAR,
    heads: Collection[str] | None = None,
    chunk_rays: int = DEFAULT_CHUNK_RAYS,
    # as in render_rays
    background: Tensor | float = 0.0,
    occupancy: nn.Module | None = None,
    min_weight: float = 0.0,
) -> RenderedImage:
    """Render the whole image of a single camera, without perturbation.

    Args:
        field, sampler, heads, background, occupancy, min_weight: as ``render_rays``.
        camera: its ``image_size`` is the size of the result.
        near, far: z-depths in metres; the scene's box cuts further.
        chunk_rays: rays at a time; the result does not depend on it.

    Example:
        >>> class Wall(Field):
        ...     def density(self, positions):
        ...         return 1e4 * (positions[..., 2] > 0.5), positions
        >>> camera = Camera(torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 1]]), torch.eye(4), (1, 3))
        >>> rendered = render_image(Wall(), camera, UniformSampler(1000), 0.0, 1.0)
        >>> rendered.depth
        tensor([[0.5005, 0.5005, 0.5005]])
        >>> rendered.distance
        tensor([[0.7078, 0.5005, 0.7078]])
    """
    rays = image_rays(camera, near, far)
    if not field.contracted:
        rays = clip_to_box(rays, field.scene_box)

    # what is known per sample is released chunk by chunk
    chunks = []
    for chunk in rays.split(chunk_rays):
        rendered = render_rays(
            field,
            chunk,
            sampler,
            heads,
            perturb=False,
            background=background,
            occupancy=occupancy,
            min_weight=min_weight,
        )
        chunks.append({
            'distance': rendered.distance,
            'depth': rendered.depth,
            'accumulation': rendered.accumulation,
            **rendered.heads,
        })  # fmt: skip

    maps = {
        name: torch.cat([chunk[name] for chunk in chunks]).unflatten(0, camera.image_size)
        for name in chunks[0]
    }  # (H, W) or (H, W, K) by name
    return RenderedImage(maps.pop('distance'), maps.pop('depth'), maps.pop('accumulation'), maps)


def render_semantic_rays(
    nerf_model: Field,
    ray_origins: Tensor,
    ray_directions: Tensor,
    near: float = DEFAULT_NEAR,
    far: float = DEFAULT_FAR,
    num_samples: int = 64,
    use_hierarchical: bool = True,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Colour, semantics and depth of rays (Semantic-NeRF, ICCV 2021): ``render_rays`` as a dict.

    Samples are jittered per ray while the model is training. With ``use_hierarchical`` half as many
    samples again are drawn where the first found matter, and all are rendered together.

    Args:
        nerf_model: a field with the heads 'rgb' and 'semantics'.
        ray_origins: (R, 3) world.
        ray_directions: (R, 3) of any length; ``near``, ``far`` and depth count in that length.
        near, far: where sampling begins and ends.
        num_samples: S of the first sampling.
        use_hierarchical: whether to sample again.
        generator: for repeatable jitter.

    Returns:
        ``RenderedRays.as_dict()``, with rgb (R, 3), semantics (R, C) and depth (R,) among it.

    Example:
        >>> from oneformer3d.fields import SemanticNeRF
        >>> model, forward = SemanticNeRF(num_classes=7), torch.tensor([[0.0, 0, 1]])
        >>> outputs = render_semantic_rays(model, torch.zeros(1, 3), forward)
        >>> [tuple(outputs[name].shape) for name in ('rgb', 'semantics', 'depth', 'weights')]
        [(1, 3), (1, 7), (1,), (1, 96)]
    """
    length = torch.linalg.vector_norm(ray_directions, dim=-1)  # (R,)
    rays = Rays(ray_origins, ray_directions / length[:, None], near * length, far * length, length)
    sampler: Sampler = UniformSampler(num_samples)
    if use_hierarchical:
        sampler = HierarchicalSampler(num_samples, num_samples // 2)
    heads = ('rgb', 'semantics')
    return render_rays(nerf_model, rays, sampler, heads, generator=generator).as_dict()


class FeatureRenderer(nn.Module):
    """Features along rays, Σ w f without normalisation (F3RM).

    Example:
        >>> features, weights = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[0.5], [0.25]])
        >>> FeatureRenderer()(features, weights)
        tensor([0.5000, 0.2500])
    """

    @staticmethod
    def forward(features: Tensor, weights: Tensor) -> Tensor:
        """(…, S, D) and (…, S, 1) → (…, D)."""
        return composite(weights.squeeze(-1), features)


@dataclass(frozen=True)
class _Samples:
    """The M of R · S samples that were queried, as all heads of one rendering read them."""

    shape: tuple[int, int]  # R, S
    is_dense: bool  # M = R · S, ray by ray
    ray: Tensor  # (M,) the ray of each sample
    ray_directions: Tensor  # (R, 3)
    positions: Tensor  # (M, 3) in the unit box
    hidden: Tensor  # (M, H)
    weights: Tensor  # (M,)
    light: Tensor  # (M,) what is left where each begins, without gradient
    patch_size: Tensor | None  # (M,) metres, for the language head

    def subset(self, index: Tensor) -> '_Samples':
        """The samples with these indices."""
        return replace(
            self,
            is_dense=False,
            ray=self.ray[index],
            positions=self.positions[index],
            hidden=self.hidden[index],
            weights=self.weights[index],
            light=self.light[index],
            patch_size=None if self.patch_size is None else self.patch_size[index],
        )


def _samples(
    rays: Rays,
    middles: Tensor,
    weights: Tensor,
    positions: Tensor,
    hidden: Tensor,
    queried: Tensor | None,
    crop_angle: Tensor | None,
) -> _Samples:
    """Samples (M,) from what is known of all (R, S), ``queried`` being their M flat indices."""
    num_rays, num_samples = middles.shape
    # T = 1 − Σ w of the samples before
    light = (1 - (weights.cumsum(-1) - weights)).detach()  # (R, S)
    index = torch.arange(middles.numel(), device=middles.device) if queried is None else queried
    ray = index // num_samples  # (M,)

    patch_size = None
    if crop_angle is not None:
        patch_size = crop_angle[ray] * _pick(middles.flatten(), queried)  # (M,)
    return _Samples(
        shape=(num_rays, num_samples),
        is_dense=queried is None,
        ray=ray,
        ray_directions=rays.directions,
        positions=positions,
        hidden=hidden,
        weights=_pick(weights.flatten(), queried),
        light=_pick(light.flatten(), queried),
        patch_size=patch_size,
    )


def _render_head(field: Field, head: Head, samples: _Samples, min_weight: float) -> Tensor:
    """Values (R, K) of one head."""
    shapes_density = head.gradient == 'density' and torch.is_grad_enabled()
    if not shapes_density:
        samples = replace(samples, weights=samples.weights.detach())
    if min_weight > 0:
        # a sample of small weight may still learn a larger one, if light arrives there
        bound = samples.light if shapes_density else samples.weights
        samples = samples.subset((bound > min_weight).nonzero()[:, 0])

    hidden = field.reach(head, samples.hidden)
    directions = samples.ray_directions[samples.ray] if head.needs_directions else None
    values = head.sample(hidden, samples.positions, directions, samples.patch_size)  # (M, K')

    with torch.autocast(values.device.type, enabled=False):
        accumulation, summed = _composite_samples(full_precision(values), samples)
        return head.activate(summed, accumulation)


def _composite_samples(values: Tensor, samples: _Samples) -> tuple[Tensor, Tensor]:
    """Σ w (R,) and Σ w v (R, K) of values (M, K)."""
    if samples.is_dense:
        weights = samples.weights.view(samples.shape)  # (R, S)
        return weights.sum(-1), composite(weights, values.unflatten(0, samples.shape))
    num_rays, weights = samples.shape[0], samples.weights
    accumulation = weights.new_zeros(num_rays).index_add(0, samples.ray, weights)
    zeros = values.new_zeros(num_rays, values.shape[-1])
    return accumulation, zeros.index_add(0, samples.ray, weights[:, None] * values)


def _pick(values: Tensor, index: Tensor | None) -> Tensor:
    return values if index is None else values[index]


def _scatter(values: Tensor, index: Tensor | None, length: int) -> Tensor:
    """Values back at their positions among ``length``, 0 elsewhere."""
    return values if index is None else values.new_zeros(length).index_put((index,), values)
