"""One step of a fit, and what has to be kept to go on from there.

Enters: a ``FittedField`` and batches of pixels with their targets. Leaves: the field one step on.

Letters: R rays.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..rendering.render import render_rays
from ..scene.batches import RayBatch
from .fit_loss import PointPrior, bounded_rays, field_loss, heads_to_render, view_sampler
from .fit_settings import FitSettings
from .fitted import FittedField

SEED_STRIDE = 1_000_003
_SMOOTHING = 0.95
_TINY = 1e-8


class FitRun:
    """A fit in progress: optimiser and scaler beside the field."""

    def __init__(
        self,
        fitted: FittedField,
        settings: FitSettings,
        training: Mapping[str, Any] | None,
        device: torch.device | str,
        has_depth: bool = False,
    ) -> None:
        self.fitted, self.settings, self.has_depth = fitted, settings, has_depth
        self.device = torch.device(device)
        self.field = fitted.field.to(self.device).train()
        if settings.exposure and heads_to_render(self.field) is None:
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

    @property
    def pixels_per_step(self) -> int:
        """Pixels that a batch has."""
        extra = self.settings.surface_pixels if self.has_depth else 0
        return self.settings.batch_rays + extra

    def state(self) -> dict[str, Any]:
        """What a run begins with again."""
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

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count what happens inside as time of the fit, by the clock and by the processor."""
        begin, cpu_begin = time.perf_counter(), time.process_time()
        yield
        self.seconds += time.perf_counter() - begin
        self.cpu_seconds += time.process_time() - cpu_begin
        self.fitted.report |= {'seconds': self.seconds, 'cpu_seconds': self.cpu_seconds}

    def step(self, batch: RayBatch, prior: PointPrior | None) -> dict[str, float]:
        """One step of the optimiser."""
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
        self.fitted = replace(self.fitted, step=step + 1)
        return values


@torch.no_grad()
def psnr_of_batch(
    fitted: FittedField, batch: RayBatch, chunk_rays: int = 2048
) -> tuple[float, float]:
    """PSNR of some rays, as they are and with each view's colours multiplied to fit it best."""
    rays, sampler, pieces = bounded_rays(fitted, batch), view_sampler(fitted), []
    for begin in range(0, len(rays), chunk_rays):
        part = rays[slice(begin, begin + chunk_rays)]
        shown = render_rays(
            fitted.field, part, sampler, ('rgb',), perturb=False, occupancy=fitted.occupancy
        )
        pieces.append(shown.heads['rgb'])
    rgb, target = torch.cat(pieces), batch.targets['rgb']
    aligned = rgb.clone()
    for row in batch.row.unique():
        own = batch.row == row
        aligned[own] *= best_gains(rgb[own], target[own])
    errors = (((shown.clamp(0, 1) - target) ** 2).mean() for shown in (rgb, aligned))
    return tuple(psnr(float(error)) for error in errors)


def best_gains(shown: Tensor, target: Tensor) -> Tensor:
    """Factors (3,) of colours (…, 3) with the least squared error."""
    shown, target = shown.flatten(0, -2), target.flatten(0, -2)
    return (shown * target).sum(0) / (shown**2).sum(0).clamp(min=_TINY)


def psnr(mean_squared_error: float) -> float:
    """Decibels of colours in 0–1; at most 100."""
    return -10 * math.log10(max(mean_squared_error, 1e-10))


def rate_at(step: int, settings: FitSettings) -> float:
    """Share of the first learning rate: rising, then falling exponentially to ``final_rate``."""
    rising = min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    return rising * settings.final_rate ** (step / max(settings.steps - 1, 1))


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
    # fused: one pass over the tables, on a CPU nine times faster than one pass per operation
    return torch.optim.Adam(
        groups, lr=settings.learning_rate, betas=(0.9, 0.99), eps=1e-15, fused=True
    )
