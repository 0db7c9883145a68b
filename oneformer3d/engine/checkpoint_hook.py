"""Checkpoints that load with ``weights_only=True``, resume exactly and are never half-written.

Enters: the checkpoint dictionary that mmengine's runner saves (weights, optimiser,
schedulers, message hub with ``HistoryBuffer`` and numpy values).
Leaves: the same dictionary made of tensors, numbers, strings and containers only,
with the states of the random generators beside it; and back again on loading.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, Runner

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.checkpoints import check_finite, read_checkpoint
from oneformer3d.registry import HOOKS

_HISTORY_KEY = '__history_buffer__'
_ARRAY_KEY = '__numpy_array__'
_RNG_KEY = 'random_states'


def plain_from_checkpoint(value: Any) -> Any:
    """Replace what a weights-only load refuses by tensors and numbers, recursively.

    Raises:
        TypeError: for an object that has no plain form.
    """
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return {
            _HISTORY_KEY: {
                'log': torch.from_numpy(np.array(log)),
                'count': torch.from_numpy(np.array(count)),
                'max_length': int(value.max_length),
            }
        }

    if isinstance(value, np.ndarray):
        return {_ARRAY_KEY: torch.from_numpy(np.ascontiguousarray(value).copy())}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain_from_checkpoint(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain_from_checkpoint(item) for item in value)
    if value is None or isinstance(value, torch.Tensor | str | bytes | bool | int | float):
        return value

    raise TypeError(f'cannot save a {type(value).__name__} in a checkpoint')


def checkpoint_from_plain(value: Any) -> Any:
    """Inverse of ``plain_from_checkpoint`` (mappings come back as ``dict``)."""
    if isinstance(value, Mapping):
        if set(value) == {_HISTORY_KEY}:
            state = value[_HISTORY_KEY]
            return HistoryBuffer(
                state['log'].cpu().numpy(), state['count'].cpu().numpy(), state['max_length']
            )
        if set(value) == {_ARRAY_KEY}:
            return value[_ARRAY_KEY].cpu().numpy()
        return {key: checkpoint_from_plain(item) for key, item in value.items()}

    if isinstance(value, list | tuple):
        return type(value)(checkpoint_from_plain(item) for item in value)
    return value


def random_states() -> dict:
    """States of Python's, numpy's and torch's generators, as tensors and numbers."""
    version, internal, gauss = random.getstate()
    # a tuple unless asked otherwise, which numpy's declarations leave open
    algorithm, keys, position, has_gauss, cached = cast(
        tuple[str, np.ndarray, int, int, float], np.random.get_state()
    )
    states = {
        'python': {'version': version, 'internal': list(internal), 'gauss': gauss},
        'numpy': {
            'algorithm': algorithm,
            'keys': torch.from_numpy(keys.astype(np.int64)),
            'position': int(position),
            'has_gauss': int(has_gauss),
            'cached': float(cached),
        },
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states['cuda'] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: Mapping) -> None:
    """Put the generators back to what ``random_states`` read."""
    python, numpy = states['python'], states['numpy']
    random.setstate((python['version'], tuple(python['internal']), python['gauss']))
    keys = numpy['keys'].cpu().numpy().astype(np.uint32)
    np.random.set_state(
        (numpy['algorithm'], keys, numpy['position'], numpy['has_gauss'], numpy['cached'])
    )
    torch.set_rng_state(states['torch'].cpu())
    if torch.cuda.is_available() and len(states.get('cuda', ())) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states['cuda']])


@HOOKS.register_module()
class SafeCheckpointHook(Hook):
    """Save plain, finite checkpoints and restore the random generators on resume.

    mmengine hands the dictionary to be changed to the hook, so this is the one
    place that writes to an argument.
    """

    # before any hook that inspects the checkpoint on loading
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._resumed_random_states: Mapping | None = None
        self._training_random_states: Mapping | None = None

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """End the training at the first loss that is not finite, before anything is saved."""
        # one look at the sum, so that a GPU waits once
        if outputs is not None and 'loss' in outputs and not _is_finite(outputs['loss']):
            losses = {k: v for k, v in outputs.items() if 'loss' in k}
            bad = [name for name, value in losses.items() if not _is_finite(value)]
            raise ValueError(
                f'step {runner.iter + 1}: not finite: {", ".join(bad)}; the checkpoints in '
                f'{runner.work_dir} are of before'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn every entry into its plain form and add the random states.

        Raises:
            ValueError: weights that are not finite; nothing is saved.
        """
        _check_weights(checkpoint, 'not saved')
        plain = plain_from_checkpoint(checkpoint)
        checkpoint.clear()
        checkpoint.update(plain)
        checkpoint[_RNG_KEY] = self._training_random_states or random_states()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn plain entries back and remember the random states.

        Raises:
            ValueError: weights that are not finite.
        """
        _check_weights(checkpoint, 'the checkpoint')
        self._resumed_random_states = checkpoint.pop(_RNG_KEY, None)
        restored = checkpoint_from_plain(checkpoint)
        checkpoint.clear()
        checkpoint.update(restored)

    def before_train(self, runner: Runner) -> None:
        """On a resumed run, continue the random sequences where they were saved."""
        if self._resumed_random_states is not None and runner._resume:
            set_random_states(self._resumed_random_states)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Once more before the first step, for the loader drew a seed for its workers."""
        within_epoch = runner.iter % len(runner.train_dataloader) != 0
        if self._resumed_random_states is not None and runner._resume and within_epoch:
            set_random_states(self._resumed_random_states)
        self._resumed_random_states = None

    def after_train_epoch(self, runner: Runner) -> None:
        """Nor does it count where the epoch had no step left: it was ended after its last."""
        if self._resumed_random_states is not None and runner._resume:
            set_random_states(self._resumed_random_states)
        self._resumed_random_states = None

    def before_val(self, runner: Runner) -> None:
        """Set training's random sequence aside: a resumed run does not evaluate again."""
        self._training_random_states = random_states()

    def after_val(self, runner: Runner) -> None:
        """Go on with training's random sequence."""
        if self._training_random_states is not None:
            set_random_states(self._training_random_states)
        self._training_random_states = None


class AtomicLocalBackend(LocalBackend):
    """Local files that appear whole or not at all: temporary file, fsync, rename."""

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write ``obj`` to ``filepath``; an interrupted write leaves the old file."""
        atomic_write_bytes(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text like ``put``."""
        self.put(obj.encode(encoding), filepath)


register_backend('atomic', AtomicLocalBackend, force=True)


@CheckpointLoader.register_scheme(  # pyright: ignore[reportOptionalCall]
    prefixes='', force=True
)  # a decorator without a loader, which mmengine's declarations do not say
def load_from_local(filename: str, map_location: str | torch.device | None) -> Any:
    """How mmengine reads local checkpoints (``resume``, ``load_from``, ``init_cfg``)."""
    return read_checkpoint(Path(filename).expanduser(), map_location or 'cpu')


def _check_weights(checkpoint: Mapping, origin: str) -> None:
    weights = checkpoint.get('state_dict', {})
    check_finite({k: v for k, v in weights.items() if isinstance(v, torch.Tensor)}, origin)


def _is_finite(value: torch.Tensor | float) -> bool:
    return bool(torch.isfinite(torch.as_tensor(value)).all())
