"""One step of a fit: what a batch of rays costs, and how the field learns from it.

In: a `FittedField` and batches of rays with their targets. Out: losses, and the field one step on.

Letters: R rays, N points, C classes.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .batches import RayBatch
from .field import Field
from .fit_settings import FitSettings
from .fitted import FittedField
from .guided_sampling import GuidedSampler, RefinedSampler
from .losses import total_loss
from .occupancy import OccupancySampler
from .ray_losses import masked_mean
from .rays import Rays, clip_to_box, z_to_distance
from .render import render_rays
from .samplers import HierarchicalSampler, Sampler, UniformSampler

SEED_STRIDE = 1_000_003
_SMOOTHING = 0.95
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


class FitRun:
    """A fit in progress: optimiser and scaler beside the field."""

    def __init__(
        self,
        fitted: FittedField,
        settings: FitSettings,
        training: Mapping[str, Any] | None,
        device: torch.device | str,
    ) -> None:
        self.fitted, self.settings = fitted, settings
        self.device = torch.device(device)
        self.field = fitted.field.to(self.device).train()
        if settings.exposure:
            gains = fitted.exposure
            gains = torch.zeros(len(fitted.frames), 3) if gains is None else gains.detach()
            self.fitted = replace(fitted, exposure=gains.clone().to(device).requires_grad_())
        self.optimizer = _optimizer(self.field, self.fitted.exposure, settings)
        half = settings.amp and self.device.type == 'cuda'
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.amp_dtype = torch.float16 if half else torch.bfloat16
        self.psnr, self.seconds, self.cpu_seconds, self.history = None, 0.0, 0.0, []
        if training is not None:
            self.optimizer.load_state_dict(training['optimizer'])
            self.scaler.load_state_dict(training['scaler'])
            self.psnr, self.seconds = training['psnr'], training['seconds']
            self.cpu_seconds = training['cpu_seconds']
            self.history = list(training['history'])

    def state(self) -> dict[str, Any]:
        """What `_Run` begins with again."""
        return {
            'optimizer': self.optimizer.state_dict(),
            'scaler': self.scaler.state_dict(),
            'psnr': self.psnr,
            'seconds': self.seconds,
            'cpu_seconds': self.cpu_seconds,
            'history': self.history,
        }

    def note(self, values: Mapping[str, float]) -> None:
        """Keep a measurement for the report."""
        row = {
            'step': self.fitted.step,
            'seconds': self.seconds,
            'cpu_seconds': self.cpu_seconds,
            **values,
        }
        self.history.append(row)
        self.fitted.report['history'] = self.history

    def step(self, batch: RayBatch, prior: PointPrior | None) -> dict[str, float]:
        """One step of the optimiser."""
        begin, cpu_begin = time.perf_counter(), time.process_time()
        step = self.fitted.step
        for group in self.optimizer.param_groups:
            group['lr'] = group['initial_lr'] * rate_at(step, self.settings)
        generator = torch.Generator().manual_seed(self.settings.seed * SEED_STRIDE + step)
        enabled = self.settings.amp
        with torch.autocast(self.device.type, self.amp_dtype, enabled=enabled):
            loss, terms = field_loss(self.fitted, batch, generator, prior)
        if not torch.isfinite(loss) and not self.scaler.is_enabled():
            raise ValueError(
                f'{self.fitted.scene}: the loss is not finite at step {step}: '
                + ', '.join(f'{name} {float(value):g}' for name, value in terms.items())
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        values = {name: float(value) for name, value in terms.items()}
        if 'rgb' in values:
            now = psnr(values['rgb'])
            self.psnr = now if self.psnr is None else _SMOOTHING * self.psnr + 0.05 * now
            values['psnr'] = self.psnr
        values['loss'] = float(loss.detach())
        self.seconds += time.perf_counter() - begin
        self.cpu_seconds += time.process_time() - cpu_begin
        self.fitted = replace(self.fitted, step=step + 1)
        self.fitted.report |= {'seconds': self.seconds, 'cpu_seconds': self.cpu_seconds}
        return values


def field_loss(
    fitted: FittedField,
    batch: RayBatch,
    generator: torch.Generator | None = None,
    prior: PointPrior | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total and terms of a batch."""
    field, settings = fitted.field, fitted.settings
    rays = clip_to_box(replace_bounds(batch, settings), field.scene_box)
    # Behind what lets light through lies another colour each time: rooms have to be opaque.
    background = torch.rand(len(rays), 3, generator=generator).to(rays.origins)
    outputs = render_rays(
        field,
        rays,
        _training_sampler(fitted, batch),
        perturb=True,
        generator=generator,
        background=background,
        occupancy=fitted.occupancy,
        crop_angle=batch.targets.get('crop_angle'),
    )
    if fitted.exposure is not None and 'rgb' in outputs:
        gains = (fitted.exposure - fitted.exposure.mean(0)).exp()
        outputs['rgb'] = outputs['rgb'] * gains[batch.row]
    targets = dict(batch.targets, view=batch.view)
    if 'features' in targets:  # the store has one kind: every head that is trained learns it
        targets |= dict.fromkeys(learning_features(field), targets['features'])
    if not settings.consistent_instances:
        targets['instance_group'] = batch.view
    if hasattr(field, 'instance_logits') and 'instances' in outputs:
        slots = field.instance_logits(outputs['instances']).float().softmax(-1)
        outputs['slots'] = slots * outputs['accumulation'].detach()[:, None]
    weights = dict(settings.weights)
    prior_weight, opacity_weight = weights.pop('prior'), weights.pop('opacity')
    total, terms = total_loss(outputs, targets, weights, settings.semantic_mode)
    if opacity_weight and 'depth' in targets:
        value = opacity_loss(outputs['accumulation'], targets['depth'])
        total, terms = total + opacity_weight * value, {**terms, 'opacity': value.detach()}
    if prior is not None and prior_weight:
        value = prior_loss(field, prior, settings.batch_rays, generator)
        total, terms = total + prior_weight * value, {**terms, 'prior': value.detach()}
    return total, terms


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


def replace_bounds(batch: RayBatch, settings: FitSettings) -> Rays:
    """The batch's rays between the settings' near and far."""
    rays = batch.rays
    return replace(rays, near=settings.near * rays.z_scale, far=settings.far * rays.z_scale)


def view_sampler(fitted: FittedField) -> Sampler:
    """How views are rendered once a field is fitted."""
    settings = fitted.settings
    num_fine = max(settings.fine_samples, 1)
    if fitted.occupancy is None:
        return HierarchicalSampler(settings.coarse_samples, num_fine)
    base = OccupancySampler(fitted.occupancy, settings.num_probes, settings.coarse_samples)
    return RefinedSampler(base, num_fine)


@torch.no_grad()
def psnr_of_batch(fitted: FittedField, batch: RayBatch, chunk_rays: int = 2048) -> float:
    """PSNR of some rays."""
    field, settings = fitted.field, fitted.settings
    rays = clip_to_box(replace_bounds(batch, settings), field.scene_box)
    sampler, error = view_sampler(fitted), 0.0
    for begin in range(0, len(rays), chunk_rays):
        part = slice(begin, begin + chunk_rays)
        shown = render_rays(
            field, rays[part], sampler, ('rgb',), perturb=False, occupancy=fitted.occupancy
        )
        rgb = shown['rgb']
        error += float(((rgb.clamp(0, 1) - batch.targets['rgb'][part]) ** 2).mean(-1).sum())
    return psnr(error / len(rays))


def psnr(mean_squared_error: float) -> float:
    """Decibels of colours in 0–1; at most 100."""
    return -10 * math.log10(max(mean_squared_error, 1e-10))


def rate_at(step: int, settings: FitSettings) -> float:
    """Share of the first learning rate: rising, then falling exponentially to `final_rate`."""
    rising = min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    return rising * settings.final_rate ** (step / max(settings.steps - 1, 1))


def _training_sampler(fitted: FittedField, batch: RayBatch) -> Sampler:
    """Measured depth takes the place of the second round."""
    settings, depth = fitted.settings, batch.targets.get('depth')
    if not settings.guided or depth is None or settings.fine_samples == 0:
        return view_sampler(fitted)
    base: Sampler = UniformSampler(settings.coarse_samples)
    if fitted.occupancy is not None:
        base = OccupancySampler(fitted.occupancy, settings.num_probes, settings.coarse_samples)
    distance = z_to_distance(depth, batch.rays)
    return GuidedSampler(base, distance, settings.fine_samples, settings.guide_range)


def _optimizer(
    field: nn.Module, exposure: Tensor | None, settings: FitSettings
) -> torch.optim.Optimizer:
    """Adam with a higher rate and no decay for grids (Instant NGP, SIGGRAPH 2022)."""
    grids, others = [], []
    for name, parameter in field.named_parameters():
        if parameter.requires_grad:
            (grids if name.endswith('.table') else others).append(parameter)
    groups = [
        {'params': grids, 'initial_lr': settings.grid_learning_rate, 'weight_decay': 0.0},
        {
            'params': others,
            'initial_lr': settings.learning_rate,
            'weight_decay': settings.weight_decay,
        },
    ]
    groups = [group for group in groups if group['params']]
    if not groups:
        raise ValueError('the field has nothing to train: all of it is frozen')
    if exposure is not None:
        rate = settings.exposure_learning_rate
        groups.append({'params': [exposure], 'initial_lr': rate, 'weight_decay': 0.0})
    return torch.optim.Adam(groups, lr=settings.learning_rate, betas=(0.9, 0.99), eps=1e-15)
