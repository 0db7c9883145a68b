"""Fit a field to one scene's posed images.

Enters: a ``FieldScene`` and ``FitSettings``. Leaves: a ``FittedField``, its checkpoint on disk if a
folder is given, and a report of what it shows in views that were held out.

Every step draws its rays and samples from the seed and its own number. A fit that was interrupted
and resumed therefore ends with the same numbers as one that was not.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.logging import print_log

from ..networks.field import Field
from ..networks.heads import SemanticHead
from ..rendering.occupancy import OccupancyGrid
from ..rendering.proposals import ProposalSampler
from ..scene.batches import RayPool
from ..scene.drawn_depth import with_drawn_depth
from ..scene.extent import observe, occupancy_of, scene_box_of
from ..scene.geometry import geometry_differences, view_geometry
from ..scene.scene import FieldScene
from .field_file import CHECKPOINT_NAME, load_field, save_field
from .fitted import FittedField
from .loss import feature_types, heads_to_render
from .pose_corrections import corrected_camera
from .prior import PointPrior
from .recipe import build_field, build_proposals, make_recipe
from .sampling import view_sampler
from .settings import FitSettings
from .step import FitRun, held_out_psnr
from .surfaces import with_colors

# What may differ between a checkpoint and the fit that goes on from it.
_FREE_SETTINGS = (
    'save_seconds', 'pool_bytes', 'measure_every', 'measure_rays',
    'view_coarse_samples', 'view_fine_samples',
)  # fmt: skip

OnStep = Callable[[int, Mapping[str, float]], None]


def fit_field(
    scene: FieldScene,
    settings: FitSettings,
    out: str | Path | None = None,
    *,
    resume: bool = True,
    prior: PointPrior | None = None,
    start: FittedField | None = None,
    device: torch.device | str = 'cpu',
    on_step: OnStep | None = None,
) -> FittedField:
    """Fit a field.

    Args:
        scene: what to fit.
        settings: how.
        out: folder of the checkpoint ``field.pth``; None writes nothing.
        resume: go on from the checkpoint there; a finished one is returned as it is.
        prior: classes of points, for the term 'prior'.
        start: a field to begin with, in place of random weights; only what of it needs gradients
            is trained.
        device: to fit on.
        on_step: called with the number of finished steps and the step's values: 'loss', each
            term, smoothed 'psnr', and where they were measured 'held_out_psnr' and
            'held_out_psnr_aligned' (see ``step.held_out_psnr``).

    Raises:
        ValueError: a checkpoint of other settings or another scene, a scene that lacks what the
            method learns from, or a loss that is not finite.
        KeyboardInterrupt: after SIGINT, when the checkpoint is written; after SIGTERM SystemExit.
    """
    if settings.depth_of_points:
        scene = with_drawn_depth(scene)
    train_views, held_out = scene.split(settings.holdout_every)
    if len(scene) == 1 and not scene.has_depth:
        raise ValueError(f'{scene.name}: one image without depth says nothing about space')
    pool = RayPool(scene, train_views, settings.seed, settings.pool_bytes, device)

    # go on from a checkpoint, or begin
    path = None if out is None else Path(out) / CHECKPOINT_NAME
    training = None
    if path is not None and path.is_file() and resume:
        fitted, training = _resume(path, scene, settings, device)
        if fitted.step >= settings.steps:
            return fitted
    else:
        fitted = _begin(scene, settings, pool, start)
    run = FitRun(fitted, training)

    measured = None
    if held_out and settings.measure_every:
        measure = RayPool(scene, held_out, settings.seed, settings.pool_bytes, device)
        measured = measure.batch(0, settings.measure_rays, with_features=False)

    num_pixels = settings.batch_rays + (settings.surface_pixels if scene.has_depth else 0)
    single_view = not settings.consistent_instances
    with stop_requests() as stop:
        saved = time.monotonic()
        for step in range(run.fitted.step, settings.steps):
            with run.timed():
                batch = pool.batch(step, num_pixels, single_view)
                values = run.step(batch, prior)
            done, is_last = step + 1, step + 1 == settings.steps

            if measured is not None and (done % settings.measure_every == 0 or is_last):
                values |= held_out_psnr(run.fitted, measured)
                run.note(values)
            if on_step is not None:
                on_step(done, values)

            # a checkpoint from time to time, and before a requested stop
            is_due = stop.number or time.monotonic() - saved > settings.save_seconds
            if path is not None and is_due and not is_last:
                save_field(path, run.fitted, run.state())
                saved = time.monotonic()
            if stop.number:
                stop.end()

    if run.fitted.poses is not None:
        camera = corrected_camera(scene.camera, run.fitted.poses.cpu(), train_views)
        scene = replace(scene, camera=camera)
    # where the sensor measured nothing, the field knows by now how far a view reaches
    field = run.fitted.field
    sampler = None if run.fitted.proposals is None else view_sampler(run.fitted)
    seen = observe(scene, train_views, field, settings.far, sampler)
    field.eval()
    fitted = with_colors(replace(run.fitted, observations=seen))
    if path is not None:
        save_field(path, fitted, run.state())
    return fitted


def _begin(
    scene: FieldScene, settings: FitSettings, pool: RayPool, start: FittedField | None
) -> FittedField:
    """A field before its first step, on the pool's device."""
    train_views, held_out = scene.split(settings.holdout_every)
    if start is None:
        field, recipe, occupancy = _new_field(scene, settings, pool)
        proposals = _new_proposals(scene, settings, field)
    else:
        field, recipe, occupancy = start.field, start.recipe, start.occupancy
        proposals = start.proposals
        if proposals is not None and heads_to_render(field) is not None:
            proposals.requires_grad_(False)  # the field's shape stays, and so do they

    return FittedField(
        field=field.to(pool.device),
        settings=settings,
        recipe=recipe,
        scene=scene.name,
        frames=tuple(scene.frames[view] for view in train_views),
        held_out=tuple(scene.frames[view] for view in held_out),
        class_names=scene.class_names or (start.class_names if start else ()),
        palette=scene.palette,
        things=scene.things,
        stamps={**(start.stamps if start else {}), **scene.stamps},
        language_stamp=scene.language_stamp or (start.language_stamp if start else None),
        language_scales=scene.language_scales or (start.language_scales if start else ()),
        image_size=scene.camera.image_size,
        geometry=view_geometry(scene, train_views[0]),
        observations=observe(scene, train_views),
        occupancy=None if occupancy is None else occupancy.to(pool.device),
        proposals=None if proposals is None else proposals.to(pool.device),
        exposure=None if start is None else start.exposure,
    )


def _new_proposals(
    scene: FieldScene, settings: FitSettings, field: Field
) -> ProposalSampler | None:
    """Networks that place samples, where the settings or the lack of depth ask for them."""
    if settings.proposals == 'never' or (settings.proposals == 'auto' and scene.has_depth):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return build_proposals(settings, field.contracted)


def _new_field(
    scene: FieldScene, settings: FitSettings, pool: RayPool
) -> tuple[Field, dict[str, Any], OccupancyGrid | None]:
    """A network for what the scene can teach, its recipe, and where there may be matter."""
    first = scene.read(pool.views[0])
    recipe = make_recipe(
        settings,
        num_classes=len(scene.class_names),
        features={kind: maps.shape[-1] for kind, maps in first.features.items()},
        language_dim=0 if first.language is None else first.language[0].shape[-1],
    )
    contracted = bool(settings.field_options.get('contracted', False))
    box = scene_box_of(pool, settings.far, contracted)
    # cells divide the box, and a contracted field reaches beyond it
    resolution = 0 if contracted else settings.occupancy_resolution
    occupancy = occupancy_of(pool, box, settings.far, resolution, settings.occupancy_margin)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        field = build_field(recipe, box)
    if occupancy is not None:
        # the grid makes empty space empty anyway, so walls may begin opaque: from nearly nothing
        # they would need hundreds of steps
        field.init_density(settings.start_density / float(box.scale))
    if 'semantics' in field.head_nets:
        field.set_gradient('semantics', settings.semantic_gradient)
        head = field.head('semantics')
        assert isinstance(head, SemanticHead)
        head.mode = settings.semantic_mode
    return field, recipe, occupancy


def _resume(
    path: Path, scene: FieldScene, settings: FitSettings, device: torch.device | str
) -> tuple[FittedField, dict]:
    """A fit to go on from, if it is one of this scene and these settings."""
    fitted, training = load_field(path, device)
    if training is None:
        raise ValueError(f'{path}: holds no training states to go on from')

    old, new = fitted.settings.to_dict(), settings.to_dict()
    differing = [
        f'{name} was {old[name]!r}, now {value!r}'
        for name, value in new.items()
        if name not in _FREE_SETTINGS and old[name] != value
    ]
    train_views, _ = scene.split(settings.holdout_every)
    frames = tuple(scene.frames[view] for view in train_views)
    if fitted.scene != scene.name or fitted.frames != frames:
        differing.append(f'scene {fitted.scene} of {len(fitted.frames)} views, now {scene.name}')
    elif fitted.geometry:  # files of earlier fields have none
        differing += geometry_differences(fitted.geometry, view_geometry(scene, train_views[0]))
    for kind in feature_types(fitted.field).values():
        if fitted.stamps.get(kind) != scene.stamps.get(kind):
            old_stamp, new_stamp = fitted.stamps.get(kind), scene.stamps.get(kind)
            differing.append(f'{kind} features of {old_stamp}, now {new_stamp}')
    if settings.method == 'lerf' and fitted.language_stamp != scene.language_stamp:
        differing.append(f'language_stamp {fitted.language_stamp}, now {scene.language_stamp}')
    if differing:
        raise ValueError(f'{path}: is a fit with other settings: {"; ".join(differing)}')

    if fitted.step < settings.steps:
        print_log(f'{path}: going on from step {fitted.step}', logger='current')
    return replace(fitted, settings=settings), training


@dataclass
class StopRequest:
    """The number of the signal that came, 0 before."""

    number: int = 0

    def end(self) -> NoReturn:
        """End as the signal asks: with status 130, or 143 for SIGTERM."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.number)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """SIGINT and SIGTERM are noted, so that a step is finished; a second one interrupts."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: object) -> None:
        if stop.number:
            stop.end()
        stop.number = number

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
