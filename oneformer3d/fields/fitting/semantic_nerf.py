"""A given model trained on items of images, labels and cameras: as Semantic-NeRF does, and better.

Enters: a model and a sequence of items. Leaves: a ``FittedField`` around the model, trained in
place. ``train_semantic_nerf`` is the paper's loop: one random view a step, colours and classes of
equal weight, a rate that falls slowly. ``fit_semantic_nerf`` is ``fit_field`` with that model,
which needs far fewer steps.

An item holds 'image' (H, W, 3), 'semantics' (H, W) with 255 for none, 'intrinsics' (3, 3),
'extrinsics' (4, 4) ``world_from_cam`` in OpenCV axes, and perhaps 'depth' (H, W) in metres.

Letters: V items, R rays.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from oneformer3d.files.checkpoints import read_checkpoint, write_checkpoint
from oneformer3d.lifting import Camera

from ..losses.total import SemanticNeRFLoss
from ..networks.field import Field
from ..networks.heads import SemanticHead
from ..networks.scene_box import SceneBox
from ..rendering.rays import sample_rays
from ..rendering.render import render_semantic_rays
from ..rendering.samplers import HierarchicalSampler
from ..scene.arrays import scene_from_arrays, view_content
from ..scene.batches import SEED_STRIDE, RayPool
from ..scene.extent import observe, scene_box_of
from ..scene.scene import FieldScene
from .fitted import FittedField
from .loop import OnStep, fit_field, stop_requests
from .settings import FitSettings

CHECKPOINT_NAME = 'semantic_nerf.pth'
_FORMAT = 'training of a semantic field'
_SAVE_SECONDS = 60.0
# Semantic-NeRF's own numbers.
_DECAY = 0.99999  # of the rate, per step
_NEAR, _FAR = 0.1, 10.0  # metres
_COARSE, _FINE = 64, 32  # samples of a ray

Items = Sequence[Mapping[str, Tensor]]


def train_semantic_nerf(
    model: Field,
    train_dataset: Items,
    num_iterations: int = 200000,
    batch_size: int = 1024,
    learning_rate: float = 5e-4,
    *,
    out: str | Path | None = None,
    resume: bool = True,
    seed: int = 0,
    device: torch.device | str = 'cpu',
    on_step: OnStep | None = None,
    log_every: int = 100,
) -> FittedField:
    """Train a model as its paper does (Semantic-NeRF, ICCV 2021).

    Adam with a rate that falls by 1e-5 a step, one random view a step, 64 + 32 samples between 0.1
    and 10 metres, ``SemanticNeRFLoss`` of colours and classes alone. Positions are read as the
    model's scene box has them; items one at a time.

    Args:
        model: with the heads 'rgb' and 'semantics'; trained in place.
        train_dataset: V items, see above; 'depth' is not looked at.
        num_iterations, batch_size, learning_rate: steps, rays of each, first rate.
        out: folder of the checkpoint ``semantic_nerf.pth``, written every minute and when
            interrupted; None writes nothing.
        resume: go on from the checkpoint there, to the same numbers as without the break.
        seed: of views, rays and samples.
        device: to train on.
        on_step: called with the number of finished steps and 'loss' and its terms.
        log_every: steps between lines of the log, 0 for none.

    Returns:
        The model with what its views observed; ``.field`` is the model.

    Raises:
        ValueError: no items, items that lack something, a checkpoint of another training, or a
            loss that is not finite.
        KeyboardInterrupt: after SIGINT, when the checkpoint is written; after SIGTERM SystemExit.
    """
    scene = _lazy_scene(train_dataset, model.num_classes)
    _reach_all(model.to(device).train(), scene)
    made_of = {
        'views': len(scene), 'batch_size': batch_size, 'learning_rate': learning_rate, 'seed': seed
    }  # fmt: skip
    run = _Run.begin(model, made_of)
    path = None if out is None else Path(out) / CHECKPOINT_NAME
    if path is not None and path.is_file() and resume:
        run.read(path)

    with stop_requests() as stop:
        saved = time.monotonic()
        for step in range(run.step, num_iterations):
            values = run.advance(train_dataset)
            done, is_last = step + 1, step + 1 == num_iterations
            if log_every and done % log_every == 0:
                terms = ', '.join(f'{name} {value:.4f}' for name, value in values.items())
                print_log(f'step {done} of {num_iterations}: {terms}', logger='current')
            if on_step is not None:
                on_step(done, values)

            is_due = stop.number or is_last or time.monotonic() - saved > _SAVE_SECONDS
            if path is not None and is_due:
                run.write(path)
                saved = time.monotonic()
            if stop.number:
                stop.end()
    return _trained(model.eval(), scene, run)


def fit_semantic_nerf(
    model: Field,
    train_dataset: Items,
    settings: FitSettings,
    out: str | Path | None = None,
    *,
    resume: bool = True,
    device: torch.device | str = 'cpu',
    on_step: OnStep | None = None,
) -> FittedField:
    """Fit a given model as ``fit_field`` fits its own; the items' depth is used where they have it.

    Args:
        model: trained in place; if its scene box is the identity, it gets the scene's.
        train_dataset: V items, see above, all kept in memory.
        settings: of the fit.
        out, resume, device, on_step: see ``fit_field``.

    Returns:
        The field with what belongs to it; ``.field`` is the model.
    """
    items = [train_dataset[index] for index in range(len(train_dataset))]

    def column(name: str) -> list[Tensor] | None:
        return [item[name] for item in items] if items and name in items[0] else None

    num_classes = model.num_classes
    scene = scene_from_arrays(
        column('image') or [],
        column('intrinsics') or [],
        column('extrinsics') or [],
        depth=column('depth'),
        semantics=column('semantics') if num_classes else None,
        class_names=[str(label) for label in range(num_classes)],
    )

    if torch.equal(model.unit_from_world.cpu(), torch.eye(4)):
        train_views, _ = scene.split(settings.holdout_every)
        pool = RayPool(scene, train_views, settings.seed, settings.pool_bytes)
        model.scene_box = scene_box_of(pool, settings.far)
    start = FittedField(model, settings, recipe={}, class_names=scene.class_names)
    return fit_field(
        scene, settings, out, resume=resume, start=start, device=device, on_step=on_step
    )


@dataclass
class _Run:
    """The paper's training in progress, and its file."""

    model: Field
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.ExponentialLR
    loss: SemanticNeRFLoss
    made_of: dict[str, Any]
    step: int = 0

    @classmethod
    def begin(cls, model: Field, made_of: dict[str, Any]) -> '_Run':
        optimizer = torch.optim.Adam(model.parameters(), lr=made_of['learning_rate'])
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=_DECAY)
        head = model.head('semantics')
        assert isinstance(head, SemanticHead)
        loss = SemanticNeRFLoss(semantic_mode=head.mode)
        return cls(model, optimizer, scheduler, loss, made_of)

    def advance(self, items: Items) -> dict[str, float]:
        """One step; the loss and its terms."""
        # draws depend on the seed and the step alone: a resumed training repeats them
        generator = torch.Generator().manual_seed(self.made_of['seed'] * SEED_STRIDE + self.step)
        item = items[int(torch.randint(len(items), (1,), generator=generator))]
        drawn = sample_rays(
            item['image'], item['semantics'], item['intrinsics'], item['extrinsics'],
            self.made_of['batch_size'], generator,
        )  # fmt: skip
        device = self.model.unit_from_world.device
        origins, directions, rgb, labels = (values.to(device) for values in drawn)

        shown = render_semantic_rays(
            self.model, origins, directions, _NEAR, _FAR, _COARSE, generator=generator
        )
        loss, terms = self.loss(shown['rgb'], shown['semantics'], shown['depth'], rgb, labels)
        if not torch.isfinite(loss):
            raise ValueError(f'the loss is not finite at step {self.step}: {terms}')

        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        return {'loss': float(loss.detach()), **terms}

    def write(self, path: Path) -> None:
        states = {
            name: getattr(self, name).state_dict() for name in ('model', 'optimizer', 'scheduler')
        }
        content = {'format': _FORMAT, 'made_of': self.made_of, 'step': self.step, **states}
        write_checkpoint(path, content)

    def read(self, path: Path) -> None:
        """Go on from a file; ValueError where it is of another training."""
        content = read_checkpoint(path)
        if not isinstance(content, dict) or content.get('format') != _FORMAT:
            raise ValueError(f'{path}: not the file of a {_FORMAT}')
        if content['made_of'] != self.made_of:
            raise ValueError(f'{path}: was begun with {content["made_of"]}, now {self.made_of}')

        try:
            self.model.load_state_dict(content['model'])
            self.optimizer.load_state_dict(content['optimizer'])
            self.scheduler.load_state_dict(content['scheduler'])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ValueError(f'{path}: is of another model: {error}') from error
        self.step = content['step']


def _lazy_scene(items: Items, num_classes: int) -> FieldScene:
    """Cameras of all items; their images are read again when they are asked for."""
    if not len(items):
        raise ValueError('train_dataset: expected at least one item')
    matrices = []
    for index in range(len(items)):
        item = items[index]
        missing = [k for k in ('image', 'semantics', 'intrinsics', 'extrinsics') if k not in item]
        if missing:
            raise ValueError(f'item {index} of train_dataset has no {missing}')
        matrices.append((item['intrinsics'].float().cpu(), item['extrinsics'].float().cpu()))

    intrinsics, poses = zip(*matrices, strict=True)
    height, width, _ = items[0]['image'].shape
    return FieldScene(
        name='scene',
        frames=tuple(f'{index:05d}' for index in range(len(items))),
        camera=Camera(torch.stack(intrinsics), torch.stack(poses), (height, width)),
        read=lambda view: view_content(f'item {view}', items[view]['image']),
        has_depth=False,
        class_names=tuple(map(str, range(num_classes))),
    )


def _reach_all(model: Field, scene: FieldScene) -> None:
    """A box that was left at one metre holds what the views can see; coordinates stay."""
    box, identity = model.scene_box, SceneBox.identity()
    if torch.equal(box.unit_from_world.cpu(), identity.unit_from_world):
        reach = scene.camera.world_from_cam[:, :3, 3].abs().amax(0) + _FAR  # (3,)
        model.scene_box = SceneBox(box.unit_from_world, reach.to(box.half_extent))


def _trained(model: Field, scene: FieldScene, run: _Run) -> FittedField:
    """The model with what its views observed, as ``fit_field`` returns it."""
    settings = FitSettings(
        field='mlp', steps=max(run.step, 1), batch_rays=run.made_of['batch_size'],
        learning_rate=run.made_of['learning_rate'], seed=run.made_of['seed'],
        coarse_samples=_COARSE, fine_samples=_FINE, near=_NEAR, far=_FAR, holdout_every=0,
        surface_pixels=0, guided=False, proposals='never', exposure=False,
    )  # fmt: skip
    sampler = HierarchicalSampler(_COARSE, _FINE)
    fitted = FittedField(
        model, settings, recipe={}, scene=scene.name, frames=scene.frames,
        class_names=scene.class_names, step=run.step,
    )  # fmt: skip
    seen = observe(scene, range(len(scene)), model, _FAR, sampler)
    return replace(fitted, observations=seen)
