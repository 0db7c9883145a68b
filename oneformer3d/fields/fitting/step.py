"""One step of a fit, and what is needed to go on from there.

Enters: a ``FittedField`` and batches of pixels with their targets. Leaves: the field one step on.

Letters: R rays, V views.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from ..losses.instance_losses import follow_slowly
from ..rendering.render import render_rays
from ..scene.batches import SEED_STRIDE, RayBatch
from .fitted import FittedField
from .loss import field_loss, heads_to_render
from .prior import PointPrior
from .recipe import SLOW_HEAD
from .sampling import bounded_rays, view_sampler
from .settings import FitSettings

_TINY = 1e-8


class FitRun:
    """A fit in progress.

    Args:
        fitted: the field before the next step; its network is trained in place.
        training: ``state`` of an earlier run to go on from.

    Attributes:
        fitted: the field after the last step.
        optimizer, scaler: of its network.
        psnr: of the batches, smoothed; None before the first.
        seconds, cpu_seconds: of all steps, by the clock and by the processor.
        history: rows of measurements, see ``note``.
    """

    def __init__(self, fitted: FittedField, training: Mapping[str, Any] | None = None) -> None:
        settings, field = fitted.settings, fitted.field.train()
        device = field.unit_from_world.device
        if settings.exposure and heads_to_render(field) is None:
            fitted = replace(fitted, exposure=_exposure(fitted).to(device).requires_grad_())
        if settings.optimize_cameras and heads_to_render(field) is None:
            poses = torch.zeros(len(fitted.frames), 6) if fitted.poses is None else fitted.poses
            poses = poses.detach().clone().to(device).requires_grad_()
            fitted = replace(fitted, poses=poses)
        self.fitted = fitted
        self.optimizer = _optimizer(fitted, settings)

        # float16 overflows without a scaler; a CPU multiplies bfloat16, which does not
        half = settings.amp and device.type == 'cuda'
        self.scaler = GradScaler(device.type, enabled=half)
        self.autocast = torch.autocast(
            device.type, torch.float16 if half else torch.bfloat16, enabled=settings.amp
        )

        self.psnr: float | None = None
        self.seconds, self.cpu_seconds = 0.0, 0.0
        self.history: list[dict[str, float]] = []
        if training is not None:
            self.optimizer.load_state_dict(training['optimizer'])
            self.scaler.load_state_dict(training['scaler'])
            self.psnr = training['psnr']
            self.seconds, self.cpu_seconds = training['seconds'], training['cpu_seconds']
            self.history = list(training['history'])

    def step(self, batch: RayBatch, prior: PointPrior | None) -> dict[str, float]:
        """Take one step of the optimiser; returns the loss, its terms and the smoothed PSNR."""
        step, settings = self.fitted.step, self.fitted.settings
        for group in self.optimizer.param_groups:
            group['lr'] = group['initial_lr'] * rate_at(step, settings)

        # draws depend on the seed and the step alone: a resumed fit repeats them
        generator = torch.Generator().manual_seed(settings.seed * SEED_STRIDE + step)
        with self.autocast:
            loss, terms = field_loss(self.fitted, batch, generator, prior)
        if not torch.isfinite(loss) and not self.scaler.is_enabled():
            values = ', '.join(f'{name} {float(value):g}' for name, value in terms.items())
            raise ValueError(
                f'{self.fitted.scene}: the loss is not finite at step {step}: {values}'
            )

        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        heads = self.fitted.field.head_nets
        if SLOW_HEAD in heads:
            follow_slowly(heads[SLOW_HEAD], heads['instances'])
        if self.fitted.proposals is not None:
            self.fitted.proposals.step()
        self.fitted = replace(self.fitted, step=step + 1)

        values = {name: float(value) for name, value in terms.items()}
        if 'rgb' in values:
            now = psnr(values['rgb'])
            self.psnr = now if self.psnr is None else 0.95 * self.psnr + 0.05 * now
            values['psnr'] = self.psnr
        return {**values, 'loss': float(loss.detach())}

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count what happens inside as time of the fit, by the clock and by the processor."""
        begin, cpu_begin = time.perf_counter(), time.process_time()
        yield
        self.seconds += time.perf_counter() - begin
        self.cpu_seconds += time.process_time() - cpu_begin
        self.fitted.report |= {'seconds': self.seconds, 'cpu_seconds': self.cpu_seconds}

    def note(self, values: Mapping[str, float]) -> None:
        """Add a row of measurements to the report."""
        times = {'seconds': self.seconds, 'cpu_seconds': self.cpu_seconds}
        self.history.append({'step': self.fitted.step, **times, **values})
        self.fitted.report['history'] = self.history

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


@torch.no_grad()
def held_out_psnr(fitted: FittedField, batch: RayBatch, chunk_rays: int = 2048) -> dict[str, float]:
    """PSNR of rays that were held out.

    Returns:
        'held_out_psnr', and 'held_out_psnr_aligned' with each view's colours multiplied to fit it
        best.
    """
    rays, sampler = bounded_rays(fitted, batch), view_sampler(fitted)
    chunks = []
    for begin in range(0, len(rays), chunk_rays):
        rendered = render_rays(
            fitted.field,
            rays[begin : begin + chunk_rays],
            sampler,
            ('rgb',),
            perturb=False,
            occupancy=fitted.occupancy,
        )
        chunks.append(rendered.heads['rgb'])
    rgb, target = torch.cat(chunks), batch.targets['rgb']  # (R, 3) both

    aligned = rgb.clone()
    for row in batch.row.unique():
        of_view = batch.row == row
        aligned[of_view] *= best_gains(rgb[of_view], target[of_view])
    return {
        'held_out_psnr': psnr(float(((rgb.clamp(0, 1) - target) ** 2).mean())),
        'held_out_psnr_aligned': psnr(float(((aligned.clamp(0, 1) - target) ** 2).mean())),
    }


def best_gains(rgb: Tensor, target: Tensor) -> Tensor:
    """Factors (3,) of colours (…, 3) with the least squared error: ``Σ c t / Σ c²``.

    Example:
        >>> best_gains(torch.full((8, 3), 0.25), torch.tensor([0.5, 0.25, 0.125]).expand(8, 3))
        tensor([2.0000, 1.0000, 0.5000])
    """
    rgb, target = rgb.flatten(0, -2), target.flatten(0, -2)
    return (rgb * target).sum(0) / (rgb**2).sum(0).clamp(min=_TINY)


def psnr(mean_squared_error: float) -> float:
    """Decibels of colours in 0–1: ``−10 log₁₀ MSE``, at most 100.

    Example:
        >>> psnr(0.01), psnr(0.0)
        (20.0, 100.0)
    """
    return -10 * math.log10(max(mean_squared_error, 1e-10))


def rate_at(step: int, settings: FitSettings) -> float:
    """Share of the first learning rate: rising, then falling exponentially to ``final_rate``."""
    rising = min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    return rising * settings.final_rate ** (step / max(settings.steps - 1, 1))


def _exposure(fitted: FittedField) -> Tensor:
    """Gains (V, 3) to begin with, a copy of those that are there."""
    if fitted.exposure is None:
        return torch.zeros(len(fitted.frames), 3)
    return fitted.exposure.detach().clone()


def _optimizer(fitted: FittedField, settings: FitSettings) -> torch.optim.Optimizer:
    """Adam with a higher rate and no decay for grids (Instant NGP, SIGGRAPH 2022)."""
    exposure, poses = fitted.exposure, fitted.poses
    modules: list[nn.Module] = [fitted.field]
    if fitted.proposals is not None:
        modules.append(fitted.proposals)
    named = [x for module in modules for x in module.named_parameters() if x[1].requires_grad]
    grids = [p for name, p in named if name.endswith('.table')]
    networks = [p for name, p in named if not name.endswith('.table')]
    if not named:
        raise ValueError('the field has nothing to train: all of it is frozen')

    groups = []
    for parameters, rate, decay in (
        (grids, settings.grid_learning_rate, 0.0),
        (networks, settings.learning_rate, settings.weight_decay),
        ([] if exposure is None else [exposure], settings.exposure_learning_rate, 0.0),
        ([] if poses is None else [poses], settings.camera_learning_rate, 0.0),
    ):
        if parameters:
            groups.append({'params': parameters, 'initial_lr': rate, 'weight_decay': decay})
    # fused: one pass over the tables, on a CPU nine times faster than one pass per operation
    return torch.optim.Adam(
        groups, lr=settings.learning_rate, betas=(0.9, 0.99), eps=1e-15, fused=True
    )
