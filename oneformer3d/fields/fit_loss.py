"""What a batch of pixels costs while a field is fitted.

In: a `FittedField`, a batch of pixels with their targets, perhaps a prior of points. Out: the loss
and its terms.

Letters: R rays, N points, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .batches import RayBatch
from .field import Field
from .fit_sampling import bounded_rays, training_sampler
from .fitted import FittedField
from .losses import total_loss
from .ray_losses import masked_mean
from .render import render_rays
from .surface_loss import surface_batch, surface_outputs, surface_weights

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
    """Total and terms of a batch: `batch_rays` are rendered, the others teach at surfaces."""
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
    outputs = _exposed(fitted, outputs, batch)
    targets = _targets(field, batch) | {'view': batch.view}
    if not settings.consistent_instances:
        targets['instance_group'] = batch.view
    if hasattr(field, 'instance_logits') and 'instances' in outputs:
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
