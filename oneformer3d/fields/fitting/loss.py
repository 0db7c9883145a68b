"""What a batch of pixels costs while a field is fitted.

Enters: a ``FittedField``, a batch of pixels with their targets, perhaps a prior of points. Leaves:
the loss and its terms.

Letters: R rays, M pixels that teach at their surface, N points, C classes.
"""

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from ..losses.ray_losses import masked_mean
from ..losses.total import DEFAULT_WEIGHTS, total_loss
from ..networks.field import Field
from ..rendering.rays import z_to_distance
from ..rendering.render import render_rays
from ..scene.batches import RayBatch
from .fitted import FittedField
from .pose_corrections import corrected_rays
from .prior import PointPrior
from .recipe import SLOW_HEAD
from .sampling import bounded_rays, training_sampler

_EPS = 1e-3
# Heads that learn at surfaces; vectors of instances are compared in pairs, too many here.
_SURFACE_HEADS = ('rgb', 'semantics', 'features', 'language')


def field_loss(
    fitted: FittedField,
    batch: RayBatch,
    generator: torch.Generator | None = None,
    prior: PointPrior | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total and terms of a batch: ``batch_rays`` are rendered, the others teach at surfaces."""
    settings = fitted.settings
    weights = settings.weights
    if fitted.poses is not None:
        batch = replace(batch, rays=corrected_rays(batch.rays, fitted.poses, batch.row))
    rays, surfaces = batch[: settings.batch_rays], batch[settings.batch_rays :]

    outputs = render_batch(fitted, rays, generator)
    targets = _targets(fitted.field, rays)
    if not settings.consistent_instances:  # ids are compared within a view
        targets |= {'instance_group': rays.view, 'view': rays.view}
    ray_weights = {name: weights[name] for name in DEFAULT_WEIGHTS if name in weights}
    total, terms = total_loss(outputs, targets, ray_weights, settings.semantic_mode)

    if weights['opacity'] and 'depth' in targets:
        value = opacity_loss(outputs['accumulation'], targets['depth'])
        total, terms['opacity'] = total + weights['opacity'] * value, value.detach()

    if weights['surface'] and len(surfaces):
        value, found = surface_loss(fitted, surfaces, generator)
        total = total + weights['surface'] * value
        terms |= {f'surface_{name}': term for name, term in found.items()}

    if weights['prior'] and prior is not None:
        value = prior_loss(fitted.field, prior, settings.batch_rays, generator)
        total, terms['prior'] = total + weights['prior'] * value, value.detach()
    return total, terms


def render_batch(
    fitted: FittedField, batch: RayBatch, generator: torch.Generator | None
) -> dict[str, Tensor]:
    """Render what is compared with a batch's targets, colours as each ray's camera exposes them."""
    field = fitted.field
    rays = bounded_rays(fitted, batch)

    # behind what lets light through lies another colour each time: rooms have to be opaque
    background = torch.rand(len(rays), 3, generator=generator).to(rays.origins)
    rendered = render_rays(
        field,
        rays,
        training_sampler(fitted, batch),
        heads=heads_to_render(field),
        perturb=True,
        generator=generator,
        background=background,
        occupancy=fitted.occupancy,
        min_weight=fitted.settings.head_min_weight,
        crop_angle=batch.targets.get('crop_angle'),
    )
    outputs = _exposed(fitted, rendered.as_dict(), batch)

    if SLOW_HEAD in outputs:  # one half of the rays against the slow copy of the other
        outputs[SLOW_HEAD] = outputs[SLOW_HEAD][len(rays) // 2 :]
    if fitted.settings.instance_loss == 'slots' and 'instances' in outputs:
        slots = field.instance_logits(outputs['instances']).float().softmax(-1)  # (R, K)
        outputs['slots'] = slots * outputs['accumulation'].detach()[:, None]
    return outputs


def opacity_loss(accumulation: Tensor, depth: Tensor) -> Tensor:
    """Mean ``−log Σw`` of the rays (R,) whose depth was measured: there is something."""
    return masked_mean(-torch.log(accumulation + _EPS), depth > 0)


def surface_loss(
    fitted: FittedField, batch: RayBatch, generator: torch.Generator | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum and terms of what pixels with measured depth teach at the surface they see."""
    field, settings = fitted.field, fitted.settings
    batch = surface_batch(batch, settings.near, settings.far)  # M of the pixels
    if not len(batch):  # no pixel of the batch was measured
        return batch.rays.origins.new_zeros(()), {}
    outputs = surface_outputs(
        field, batch, heads_to_render(field), settings.surface_range, generator
    )
    outputs = _exposed(fitted, outputs, batch)
    weights = {name: settings.weights[name] for name in _SURFACE_HEADS}
    return total_loss(outputs, _targets(field, batch), weights, settings.semantic_mode)


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
        reach: metres before and behind the surface within which the position is drawn, so that what
            rendering mixes from both sides learns alike.
        generator: of those draws.

    Returns:
        As rendering: 'rgb' (M, 3), 'semantics' (M, C), 'features' or 'features_<type>' (M, D)
        and 'language' (M, D), of what there is, and 'accumulation' (M,) of 1.
    """
    rays = batch.rays
    distance = z_to_distance(batch.targets['depth'], rays)  # (M,)
    offset = torch.rand(len(rays), generator=generator).to(distance) * 2 - 1
    points = rays.positions((distance + reach * offset)[:, None])[:, 0]  # (M, 3)
    positions = field.scene_box.to_unit(points)
    _, hidden = field.density(positions)  # (M, H)

    angle = batch.targets.get('crop_angle')
    patch_size = None if angle is None else angle * distance

    # the opaque limit of rendering: one sample of weight 1
    one = distance.new_ones(len(rays))
    outputs = {'accumulation': one}
    for name, head in field.select_heads(heads).items():
        if name.split('_')[0] in _SURFACE_HEADS:
            hidden_of_head = field.reach(head, hidden)
            values = head.sample(hidden_of_head, positions, rays.directions, patch_size)
            outputs[name] = head.activate(values, one)
    return outputs


def prior_loss(
    field: Field, prior: PointPrior, num_points: int, generator: torch.Generator | None = None
) -> Tensor:
    """Cross-entropy of the field's classes at a random choice of a prior's points."""
    index = torch.randint(len(prior.points), (num_points,), generator=generator)
    positions = field.scene_box.to_unit(prior.points[index].to(field.unit_from_world))
    _, hidden = field.density(positions)
    logits = field.heads(hidden, positions, names=('semantics',))['semantics'].float()

    target = prior.probabilities[index].to(logits)
    if target.shape != logits.shape:
        raise ValueError(f'the prior has {target.shape[-1]} classes, the field {logits.shape[-1]}')
    # H(p, q) = −Σ_c p_c log q_c
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


def heads_to_render(field: Field) -> list[str] | None:
    """Only the heads that learn, where the field's shape is frozen; None for all."""
    trunk = (p for name, p in field.named_parameters() if not name.startswith('head_nets.'))
    return None if any(p.requires_grad for p in trunk) else learning_heads(field)


def learning_heads(field: Field) -> list[str]:
    """Names of the heads that are trained."""
    return [
        name
        for name, head in field.head_nets.items()
        if any(parameter.requires_grad for parameter in head.parameters())
    ]


def _targets(field: Field, batch: RayBatch) -> dict[str, Tensor]:
    """A batch's targets by the names of the heads; those of features by the type of each head."""
    targets = {k: v for k, v in batch.targets.items() if not k.startswith('features_')}
    for name, kind in feature_types(field).items():
        if f'features_{kind}' in batch.targets:
            targets[name] = batch.targets[f'features_{kind}']
    return targets


def feature_types(field: Field) -> dict[str, str]:
    """Types of the features that are trained, by the names of their heads."""
    heads = field.select_heads(learning_heads(field))
    return {name: head.feature_type for name, head in heads.items() if name.startswith('features')}


def _exposed(fitted: FittedField, outputs: dict[str, Tensor], batch: RayBatch) -> dict[str, Tensor]:
    """The outputs with colours as each ray's own camera exposes them."""
    if fitted.exposure is None or 'rgb' not in outputs:
        return outputs
    # the mean gain of all views is held at 1
    gains = (fitted.exposure - fitted.exposure.mean(0)).exp()  # (V, 3)
    return {**outputs, 'rgb': outputs['rgb'] * gains[batch.row]}
