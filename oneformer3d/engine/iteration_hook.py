"""Tells the model which iteration of training it is in.

Enters: the runner, before each iteration. Leaves: ``model.iteration``, for losses that warm up. A
resumed run goes on with the runner's count, so its warm-up goes on too.
"""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from oneformer3d.registry import HOOKS


@HOOKS.register_module()
class IterationHook(Hook):
    """Set ``iteration`` of the model, from 0."""

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Called by the runner."""
        _set_iteration(runner.model, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Called by the runner."""
        _set_iteration(runner.model, None)


def _set_iteration(model: nn.Module, iteration: int | None) -> None:
    """Of the model itself, whatever it is wrapped in."""
    inside: Any = model.module if is_model_wrapper(model) else model
    inside.iteration = iteration
