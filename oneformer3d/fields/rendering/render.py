"""Volume rendering: densities along rays become weights, weights composite whatever heads say.

Enters: a field, rays in world metres, a sampler. Leaves: one dict per ray of colour, depth, summed
weight, semantics, instances, features, language. Everything is worked out in float32 or better
whatever autocast says.

Letters: R rays, S samples per ray, C classes, D feature width, K values.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from oneformer3d.lifting import Camera

from ..networks.field import Field
from ..networks.heads import weighted_mean
from .rays import (
    DEFAULT_FAR,
    DEFAULT_NEAR,
    Rays,
    clip_to_box,
    distance_to_z,
    image_rays,
    unit_positions,
)
from .samplers import HierarchicalSampler, Sampler, UniformSampler
from .volume import composite, weights_from_density

DEFAULT_CHUNK_RAYS = 4096

__all__ = [
    'DEFAULT_CHUNK_RAYS',
    'FeatureRenderer',
    'composite',
    'render_image',
    'render_rays',
    'render_semantic_rays',
    'weights_from_density',
]


def render_rays(
    field: Field,
    rays: Rays,
    sampler: Sampler,
    heads: Collection[str] | None = None,
    perturb: bool | None = None,
    generator: torch.Generator | None = None,
    background: Tensor | float = 0.0,
    occupancy: nn.Module | None = None,
    min_weight: float = 0.0,
    crop_angle: Tensor | None = None,
) -> dict[str, Tensor]:
    """Render rays.

    Args:
        field: any ``Field``.
        rays: R rays in world metres; cut to the scene's box beforehand where there is one.
        sampler: decides where along the rays the field is asked.
        heads: heads wanted; None = all, () = depth only.
        perturb: random sample positions; None = while the field is training.
        generator: for repeatable perturbation.
        background: colour (3,) or grey seen through what is left of the light.
        occupancy: tells by unit positions (M, 3) which may hold matter; the others are not asked
            and count as empty.
        min_weight: heads are asked only at samples of more weight than this; heads that shape the
            density where more light than this arrives, which bounds their weights.
        crop_angle: (R,) crop side in metres per metre of distance, for the language head.

    Returns:
        distance, depth (R,): mean distance and z-depth in metres, 0 where nothing was met;
        accumulation and z_scale (R,), weights and density per metre (R, S), edges (R, S + 1) in
        metres; per head rgb
        (R, 3), semantics (R, C) probabilities (or logits), instances (R, D) and language (R, D)
        unit vectors, features (R, D); 'proposals', a list of (edges, weights), from samplers
        that train some.
    """
    perturb = field.training if perturb is None else perturb
    box = field.scene_box
    device_type = rays.origins.device.type
    with torch.autocast(device_type, enabled=False):
        edges, proposals = sampler(field, rays, perturb, generator)
        middles = (edges[:, 1:] + edges[:, :-1]) / 2
        positions = unit_positions(rays, middles, box)
    asked = None if occupancy is None else occupancy(positions.flatten(0, 1)).nonzero()[:, 0]
    flat = _pick(positions.flatten(0, 1), asked)
    density, hidden = field.density(flat)
    with torch.autocast(device_type, enabled=False):
        density = _spread(density, asked, middles.numel()).view_as(middles) * box.scale
        weights, _ = weights_from_density(density, edges)
        accumulation = weights.sum(-1)
        distance = weighted_mean((weights * middles).sum(-1, keepdim=True), accumulation)[:, 0]
    outputs = {
        'distance': distance,
        'depth': distance_to_z(distance, rays),
        'z_scale': rays.z_scale,
        'accumulation': accumulation,
        'weights': weights,
        'density': density,
        'edges': edges,
    }
    if proposals:
        outputs['proposals'] = proposals
    samples = _Samples(rays, middles, flat, hidden, asked, weights, crop_angle)
    for name, head in field.select_heads(heads).items():
        outputs[name] = _render_head(field, head, samples, min_weight)
    if 'rgb' in outputs:
        left = 1 - accumulation[:, None]
        outputs['rgb'] = outputs['rgb'] + left * torch.as_tensor(background).to(left)
    return outputs


class FeatureRenderer(nn.Module):
    """Features along rays, Σ w f without normalisation (F3RM)."""

    @staticmethod
    def forward(features: Tensor, weights: Tensor) -> Tensor:
        """(…, S, D) and (…, S, 1) → (…, D)."""
        return composite(weights.squeeze(-1), features)


class _Samples:
    """What all heads of one rendering share; M samples were asked of R · S."""

    def __init__(self, rays, middles, positions, hidden, asked, weights, crop_angle) -> None:
        num_rays, num_samples = middles.shape
        self.num_rays, self.num_samples = num_rays, num_samples
        self.positions, self.hidden = positions, hidden
        self.weights = _pick(weights.flatten(), asked)
        # what is left of the light where each sample begins
        self.light = _pick((1 - (weights.cumsum(-1) - weights)).detach().flatten(), asked)
        self.is_dense = asked is None
        if asked is None:
            asked = torch.arange(middles.numel(), device=middles.device)
        self.ray = asked // num_samples
        self.rays = rays
        self.patch_size = None
        if crop_angle is not None:
            picked = _pick(middles.flatten(), None if self.is_dense else asked)
            self.patch_size = crop_angle[self.ray] * picked


def _render_head(field: Field, head: nn.Module, samples: _Samples, min_weight: float) -> Tensor:
    """One head's values of the rays."""
    reaches = head.gradient == 'density' and torch.is_grad_enabled()
    weights = samples.weights if reaches else samples.weights.detach()
    hidden, positions, ray = field.reach(head, samples.hidden), samples.positions, samples.ray
    patch_size, is_dense = samples.patch_size, samples.is_dense
    if min_weight > 0:
        keep = ((samples.light if reaches else weights) > min_weight).nonzero()[:, 0]
        hidden, positions, ray, weights = (
            value[keep] for value in (hidden, positions, ray, weights)
        )
        patch_size = None if patch_size is None else patch_size[keep]
        is_dense = False
    directions = samples.rays.directions[ray] if head.needs_directions else None
    values = head.sample(hidden, positions, directions, patch_size)
    with torch.autocast(values.device.type, enabled=False):
        values = values if values.dtype == torch.float64 else values.float()
        if is_dense:
            shape = (samples.num_rays, samples.num_samples)
            total, together = weights.view(shape), values.unflatten(0, shape)
            accumulation, summed = total.sum(-1), composite(total, together)
        else:
            accumulation = weights.new_zeros(samples.num_rays).index_add(0, ray, weights)
            zeros = values.new_zeros(samples.num_rays, values.shape[-1])
            summed = zeros.index_add(0, ray, weights[:, None] * values)
        return head.finish(summed, accumulation)


def _pick(values: Tensor, index: Tensor | None) -> Tensor:
    return values if index is None else values[index]


def _spread(values: Tensor, index: Tensor | None, length: int) -> Tensor:
    """Values back at their places among ``length``, 0 elsewhere."""
    return values if index is None else values.new_zeros(length).index_put((index,), values)


@torch.no_grad()
def render_image(
    field: Field,
    camera: Camera,
    sampler: Sampler,
    near: float = DEFAULT_NEAR,
    far: float = DEFAULT_FAR,
    heads: Collection[str] | None = None,
    chunk_rays: int = DEFAULT_CHUNK_RAYS,
    **options,
) -> dict[str, Tensor]:
    """Render the whole image of a single camera, without perturbation.

    Args:
        field, sampler, heads: as ``render_rays``.
        camera: its ``image_size`` is the size of the result.
        near, far: z-depths in metres; the scene's box cuts further.
        chunk_rays: rays at a time; the result does not depend on it.
        options: further settings of ``render_rays``.

    Returns:
        Maps (H, W) or (H, W, K) by name, without what is kept per sample.
    """
    rays = clip_to_box(image_rays(camera, near, far), field.scene_box)
    kept: dict[str, list[Tensor]] = {}
    for begin in range(0, len(rays), chunk_rays):
        chunk = rays[slice(begin, begin + chunk_rays)]
        outputs = render_rays(field, chunk, sampler, heads, perturb=False, **options)
        for name, value in outputs.items():
            if name not in ('weights', 'density', 'edges', 'proposals', 'z_scale'):
                kept.setdefault(name, []).append(value)
    return {name: torch.cat(v).unflatten(0, camera.image_size) for name, v in kept.items()}


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
    """Colour, semantics and depth of rays (Semantic-NeRF, ICCV 2021).

    Samples are jittered per ray while the model is training. With ``use_hierarchical`` half as many
    samples again are drawn where the first found matter, and all are rendered together.

    Args:
        nerf_model: a field with the heads 'rgb' and 'semantics'.
        ray_origins: (N, 3) world.
        ray_directions: (N, 3) of any length; ``near``, ``far`` and depth count in that length.
        near, far: where sampling begins and ends.
        num_samples: S of the first sampling.
        use_hierarchical: whether to sample again.
        generator: for repeatable jitter.

    Returns:
        rgb (N, 3), semantics (N, C) (probabilities; logits for a model of that mode), depth (N,),
        accumulation (N,), weights (N, S'), edges (N, S' + 1), density (N, S').
    """
    length = torch.linalg.vector_norm(ray_directions, dim=-1)
    rays = Rays(ray_origins, ray_directions / length[:, None], near * length, far * length, length)
    if use_hierarchical:
        sampler: Sampler = HierarchicalSampler(num_samples, num_samples // 2)
    else:
        sampler = UniformSampler(num_samples)
    return render_rays(nerf_model, rays, sampler, heads=('rgb', 'semantics'), generator=generator)
