"""What a batch of pixels costs while a field is fitted.

Enters: a ``FittedField``, a batch of pixels with their targets, perhaps a prior of points. Leaves:
the loss and its terms.

Letters: R rays, N points, C classes.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..losses.losses import total_loss
from ..losses.ray_losses import masked_mean
from ..networks.field import Field
from ..rendering.occupancy import OccupancySampler
from ..rendering.rays import Rays, clip_to_box, z_to_distance
from ..rendering.render import render_rays
from ..rendering.samplers import (
    GuidedSampler,
    HierarchicalSampler,
    RefinedSampler,
    Sampler,
    UniformSampler,
)
from ..scene.batches import RayBatch
from .fitted import FittedField

_EPS = 1e-3


@dataclass(frozen=True, eq=False)
class PointPrior:
    """Class probabilities (N, C) that somebody else gives points (N, 3), such as a segmentor."""

    points: Tensor
    probabilities: Tensor

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or len(self.points) != len(self.probabilities):
            raise ValueError(
                f'a prior has points (N, 3) and probabilities (N, C), got '
                f'{tuple(self.points.shape)} and {tuple(self.probabilities.shape)}'
            )


def field_loss(
    fitted: FittedField,
    batch: RayBatch,
    generator: torch.Generator | None = None,
    prior: PointPrior | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total and terms of a batch: ``batch_rays`` are rendered, the others teach at surfaces."""
    field, settings = fitted.field, fitted.settings
    others = None
    if len(batch) > settings.batch_rays:
        others = batch[slice(settings.batch_rays, None)]
        batch = batch[slice(settings.batch_rays)]
    rays = bounded_rays(fitted, batch)
    # Behind what lets light through lies another colour each time: rooms have to be opaque.
    background = torch.rand(len(rays), 3, generator=generator).to(rays.origins)
    outputs = render_rays(
        field,
        rays,
        training_sampler(fitted, batch),
        heads=heads_to_render(field),
        perturb=True,
        generator=generator,
        background=background,
        occupancy=fitted.occupancy,
        min_weight=settings.head_min_weight,
        crop_angle=batch.targets.get('crop_angle'),
    )
    outputs = _exposed(fitted, outputs.as_dict(), batch)
    targets = _targets(field, batch) | {'view': batch.view}
    if not settings.consistent_instances:
        targets['instance_group'] = batch.view
    if field.num_slots and 'instances' in outputs:
        slots = field.instance_logits(outputs['instances']).float().softmax(-1)
        outputs['slots'] = slots * outputs['accumulation'].detach()[:, None]
    weights = dict(settings.weights)
    prior_weight, opacity_weight, surface_weight = (
        weights.pop(name) for name in ('prior', 'opacity', 'surface')
    )
    total, terms = total_loss(outputs, targets, weights, settings.semantic_mode)
    if opacity_weight and 'depth' in targets:
        value = opacity_loss(outputs['accumulation'], targets['depth'])
        total, terms = total + opacity_weight * value, {**terms, 'opacity': value.detach()}
    if surface_weight and others is not None:
        value, found = surface_loss(fitted, others, weights, generator)
        total = total + surface_weight * value
        terms = {**terms, **{f'surface_{name}': term for name, term in found.items()}}
    if prior is not None and prior_weight:
        value = prior_loss(field, prior, settings.batch_rays, generator)
        total, terms = total + prior_weight * value, {**terms, 'prior': value.detach()}
    return total, terms


def surface_loss(
    fitted: FittedField,
    batch: RayBatch,
    weights: Mapping[str, float],
    generator: torch.Generator | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum and terms of what pixels with measured depth teach at the surface they see."""
    field, settings = fitted.field, fitted.settings
    batch = surface_batch(batch, settings.near, settings.far)
    outputs = surface_outputs(
        field, batch, heads_to_render(field), settings.surface_range, generator
    )
    outputs = _exposed(fitted, outputs, batch)
    return total_loss(
        outputs, _targets(field, batch), surface_weights(weights), settings.semantic_mode
    )


def _exposed(
    fitted: FittedField, outputs: Mapping[str, Tensor], batch: RayBatch
) -> dict[str, Tensor]:
    """The outputs with colours as each ray's own camera exposes them."""
    if fitted.exposure is None or 'rgb' not in outputs:
        return dict(outputs)
    gains = (fitted.exposure - fitted.exposure.mean(0)).exp()
    return {**outputs, 'rgb': outputs['rgb'] * gains[batch.row]}


def _targets(field: Field, batch: RayBatch) -> dict[str, Tensor]:
    """A batch's targets; the store's one kind of features is for all heads that are trained."""
    targets = dict(batch.targets)
    if 'features' in targets:
        targets |= dict.fromkeys(learning_features(field), targets['features'])
    return targets


def heads_to_render(field: Field) -> list[str] | None:
    """Only the heads that learn, where the field's shape is frozen; None for all."""
    trunk = (p for name, p in field.named_parameters() if not name.startswith('head_nets.'))
    if any(parameter.requires_grad for parameter in trunk):
        return None
    return [
        name
        for name, head in field.head_nets.items()
        if any(parameter.requires_grad for parameter in head.parameters())
    ]


def opacity_loss(accumulation: Tensor, depth: Tensor) -> Tensor:
    """Mean ``−log Σw`` of the rays (R,) whose depth was measured: there is something."""
    return masked_mean(-torch.log(accumulation + _EPS), depth > 0)


def learning_features(field: Field) -> list[str]:
    """Names of the heads of features that are trained."""
    return [
        name
        for name, head in field.head_nets.items()
        if name.startswith('features') and any(p.requires_grad for p in head.parameters())
    ]


def prior_loss(
    field: Field, prior: PointPrior, num_points: int, generator: torch.Generator | None = None
) -> Tensor:
    """Cross-entropy of the field's classes at some of a prior's points."""
    index = torch.randint(len(prior.points), (num_points,), generator=generator)
    positions = field.scene_box.to_unit(prior.points[index].to(field.unit_from_world))
    _, hidden = field.density(positions)
    logits = field.heads(hidden, positions, names=('semantics',))['semantics'].float()
    wanted = prior.probabilities[index].to(logits)
    if wanted.shape != logits.shape:
        raise ValueError(f'the prior has {wanted.shape[-1]} classes, the field {logits.shape[-1]}')
    return -(wanted * logits.log_softmax(-1)).sum(-1).mean()


def bounded_rays(fitted: FittedField, batch: RayBatch) -> Rays:
    """The batch's rays between the settings' near and far, cut to the scene's box."""
    settings, rays = fitted.settings, batch.rays
    rays = replace(rays, near=settings.near * rays.z_scale, far=settings.far * rays.z_scale)
    return clip_to_box(rays, fitted.field.scene_box)


def view_sampler(fitted: FittedField) -> Sampler:
    """How views are rendered once a field is fitted: where the field itself finds matter."""
    settings = fitted.settings
    return _own_sampler(fitted, settings.view_coarse_samples, settings.view_fine_samples)


def training_sampler(fitted: FittedField, batch: RayBatch) -> Sampler:
    """Measured depth takes the place of the second round."""
    settings, depth = fitted.settings, batch.targets.get('depth')
    if not settings.guided or depth is None or settings.fine_samples == 0:
        return _own_sampler(fitted, settings.coarse_samples, settings.fine_samples)
    base: Sampler = UniformSampler(settings.coarse_samples)
    if fitted.occupancy is not None:
        base = OccupancySampler(fitted.occupancy, settings.num_probes, settings.coarse_samples)
    distance = z_to_distance(depth, batch.rays)
    return GuidedSampler(base, distance, settings.fine_samples, settings.guide_range)


def _own_sampler(fitted: FittedField, num_coarse: int, num_fine: int) -> Sampler:
    if fitted.occupancy is None:
        return HierarchicalSampler(num_coarse, max(num_fine, 1))
    base = OccupancySampler(fitted.occupancy, fitted.settings.num_probes, num_coarse)
    return RefinedSampler(base, num_fine) if num_fine else base


# Heads that are taught so; vectors of instances are compared in pairs, which are too many here.
_HEADS = ('rgb', 'semantics', 'features', 'language')


def surface_batch(batch: RayBatch, near: float, far: float) -> RayBatch:
    """The M pixels whose measured z-depth lies between ``near`` and ``far`` metres."""
    depth = batch.targets['depth']
    return batch[((depth > near) & (depth <= far)).nonzero()[:, 0]]


def surface_outputs(
    field: Field,
    batch: RayBatch,
    heads: Collection[str] | None = None,
    reach: float = 0.0,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """What the heads say where M pixels see something.

    Args:
        field: any.
        batch: with depth at every pixel.
        heads: wanted; None for all. Heads of instances are left out.
        reach: metres before and behind the surface within which the place is drawn, so that what
            rendering mixes from both sides learns alike.
        generator: of those draws.

    Returns:
        As ``render_rays``: 'rgb' (M, 3), 'semantics' (M, C), 'features' or 'features_<type>' (M, D)
        and 'language' (M, D), of what there is, and 'accumulation' (M,) of 1.
    """
    rays = batch.rays
    distance = z_to_distance(batch.targets['depth'], rays)
    off = torch.rand(len(rays), generator=generator).to(distance) * 2 - 1
    points = rays.positions((distance + reach * off)[:, None])[:, 0]
    positions = field.scene_box.to_unit(points)
    _, hidden = field.density(positions)
    angle = batch.targets.get('crop_angle')
    size = None if angle is None else angle * distance
    one = distance.new_ones(len(rays))
    outputs = {'accumulation': one}
    for name, head in field.select_heads(heads).items():
        if name.split('_')[0] in _HEADS:
            values = head.sample(field.reach(head, hidden), positions, rays.directions, size)
            outputs[name] = head.activate(values, one)
    return outputs


def surface_weights(weights: dict[str, float]) -> dict[str, float]:
    """Of the weights of all loss terms, those of what is taught at surfaces."""
    return {name: weights[name] for name in _HEADS}
