"""Steps and hooks that do to a training what machines do: hang, die, lose a number."""

import os
import signal
import time

import torch
from mmcv.transforms import BaseTransform
from mmengine.hooks import Hook

from oneformer3d.registry import HOOKS, TRANSFORMS


@TRANSFORMS.register_module()
class Trouble(BaseTransform):
    """Kills or hangs the data worker at the scene whose name ends in ``at``."""

    def __init__(self, kind: str, at: str) -> None:
        self.kind, self.at = kind, at

    def transform(self, results):
        if results['scene_id'].endswith(self.at):
            if self.kind == 'die':
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1000)
        return results


@HOOKS.register_module()
class LoseNumber(Hook):
    """Makes one weight infinite before a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.step:
            with torch.no_grad():
                runner.model.decoder.out_cls[0].weight.fill_(torch.inf)


@HOOKS.register_module()
class TellToEnd(Hook):
    """Sends this process SIGTERM after a step, once: not in the run that goes on from there."""

    priority = 'HIGH'  # before the hook that listens looks

    def __init__(self, step: int) -> None:
        self.step = step

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
