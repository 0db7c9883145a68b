"""A training that is told to end writes a checkpoint first, and goes on there, within the epoch.

Enters: SIGTERM (what Slurm, Kubernetes and torchrun send) or SIGUSR1 (``sbatch --signal``). Leaves:
``epoch_N_iter_M.pth``, and exit status 128 + the signal's number: 143 for SIGTERM. An evaluation
that was ended is made when the training goes on, so that the best checkpoint is chosen among all.
"""

import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from oneformer3d.data.samples.order import ResumableSampler
from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.registry import HOOKS

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_PLACE_KEY = 'place_in_epoch'


@HOOKS.register_module()
class StopHook(Hook):
    """Save and end on a signal, after the step that is underway; begin a resumed epoch there."""

    # after the schedules have made their step and whole epochs are saved
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}
        self._resumed_place: Mapping[str, int] | None = None
        self._is_evaluation_due = False

    def before_train(self, runner: Runner) -> None:
        """Take the signals over; tell the sampler what is done, and evaluate where that is due."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        place, self._resumed_place = self._resumed_place, None
        if place is None or not runner._resume:
            return

        self._skip(runner, place)
        if place.get('is_evaluation_due') and runner.val_loop is not None:
            runner.logger.info('the evaluation that was ended is made now')
            runner.val_loop.run()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save and end, if a signal came and the step's gradients are applied."""
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapper) and not wrapper.should_update():
            return
        name = f'epoch_{runner.epoch}_iter_{runner.iter + 1}.pth'
        self._end_if_told(runner, name, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def after_train_epoch(self, runner: Runner) -> None:
        """What was saved within the epoch has served when a later checkpoint is there."""
        pointer = Path(runner.work_dir) / 'last_checkpoint'
        if is_main_process() and pointer.is_file() and '_iter_' not in pointer.read_text():
            for outdated in Path(runner.work_dir).glob('epoch_*_iter_*.pth'):
                outdated.unlink()

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save and end within an evaluation; the epoch before it is whole."""
        if self._before:  # not in a run that only evaluates
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
            self._is_evaluation_due = True
            name = f'epoch_{runner.epoch}.pth' if by_epoch else f'iter_{runner.iter}.pth'
            self._end_if_told(runner, name, meta)
            self._is_evaluation_due = False

    def after_run(self, runner: Runner) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add what a resumed run needs to find its place in the epoch."""
        loader = runner.train_dataloader
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)  # others find their place
        done = checkpoint['meta']['iter'] - checkpoint['meta']['epoch'] * len(loader)
        checkpoint[_PLACE_KEY] = dict(
            num_batches=max(done, 0) if by_epoch else 0,
            batch_size=loader.batch_size or 1,
            num_processes=get_world_size(),
            length=len(loader),
            is_evaluation_due=self._is_evaluation_due,
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the place in the epoch."""
        self._resumed_place = checkpoint.pop(_PLACE_KEY, None)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # repeated signals change nothing: job launchers and their children both send them
        self._received = self._received or number

    def _end_if_told(self, runner: Runner, name: str, meta: dict[str, int]) -> None:
        number = _agreed(self._received or 0)
        if not number:
            return

        runner.save_checkpoint(
            runner.work_dir, name, meta=meta, by_epoch=False, backend_args={'backend': 'atomic'}
        )
        path = Path(runner.work_dir) / name
        if is_main_process():
            atomic_write_bytes(path.with_name('last_checkpoint'), str(path).encode())
        runner.logger.info(f'ended by {signal.Signals(number).name}; --resume goes on from {path}')
        raise SystemExit(128 + number)

    def _skip(self, runner: Runner, place: Mapping[str, int]) -> None:
        if not place['num_batches']:
            return
        loader = runner.train_dataloader
        now = dict(batch_size=loader.batch_size, num_processes=get_world_size(), length=len(loader))
        changed = [f'{k} {place[k]}, now {v}' for k, v in now.items() if place[k] != v]
        if changed or not isinstance(loader.sampler, ResumableSampler):
            raise ValueError(
                'the checkpoint was written within an epoch and goes on only with the same '
                f'batches, by a ResumableSampler ({", ".join(changed) or type(loader.sampler)})'
            )
        loader.sampler.skip(place['num_batches'] * place['batch_size'])


def _agreed(number: int) -> int:
    """The signal any process received: all of them end after the same step."""
    if get_world_size() == 1:
        return number
    value = torch.tensor(number)
    all_reduce(value, 'max')
    return int(value)
