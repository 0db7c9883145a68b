"""Which checkpoints of a training are kept: the latest, and the best of those evaluated.

Enters: mmengine's settings of ``CheckpointHook``, and the metrics of each evaluation. Leaves:
``epoch_N.pth`` (``iter_N.pth``), and ``best_<metric>_epoch_N.pth`` with ``save_best``. No file goes
before the one that takes its place is written, and none outside of the training's own folder.
"""

import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from oneformer3d.metrics.unified import UnifiedSegMetric
from oneformer3d.registry import HOOKS

_FIRST = 'auto'  # mmengine's word for the first metric that an evaluation gives


@HOOKS.register_module()
class KeepingCheckpointHook(CheckpointHook):
    """mmengine's, but an old checkpoint is removed when the new one is written, not before."""

    def before_train(self, runner: Runner) -> None:
        """Take up what a resumed training has; look whether ``save_best`` is measured.

        Raises:
            ValueError: the evaluation leaves out the task of the metric.
        """
        super().before_train(runner)
        for metric in self._best_metrics():
            _check_measured(metric, runner)
            self._find_best(metric, runner)

    def _find_best(self, metric: str, runner: Runner) -> None:
        """The best file of a resumed training, wherever its folder is now."""
        former = self._best_path(metric)
        if former is None:
            return
        path = Path(self.out_dir, Path(former).name)
        self._set_best_path(metric, str(path) if path.is_file() else None)
        if not path.is_file():
            runner.logger.warning(f'{path} is not there: the best {metric} is chosen anew')
            single = len(self._best_metrics()) == 1
            runner.message_hub.pop_info('best_score' if single else f'best_score_{metric}', None)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = None
        if self.max_keep_ckpts > 0:
            kept: deque[int] = self.keep_ckpt_ids
            if len(kept) == self.max_keep_ckpts and kept[-1] != step:
                outdated = kept.popleft()

        super()._save_checkpoint_with_step(runner, step, meta)
        if outdated is not None and is_main_process():
            Path(self.out_dir, self.filename_tmpl.format(outdated)).unlink(missing_ok=True)

    def _save_best_checkpoint(self, runner: Runner, metrics: Mapping[str, float]) -> None:
        if self._best_metrics() == (_FIRST,):
            self._init_rule(self.rules, [next(iter(metrics))])
        scores = {metric: metrics.get(metric, math.nan) for metric in self._best_metrics()}
        for metric, score in scores.items():
            if math.isnan(score):
                fault = 'is NaN' if metric in metrics else 'was not measured'
                runner.logger.warning(f'save_best: {metric} {fault}, so this epoch is not the best')

        # mmengine would remove a former best that it knows of before it writes the new one
        former = {metric: self._best_path(metric) for metric in scores}
        for metric in scores:
            self._set_best_path(metric, None)
        super()._save_best_checkpoint(runner, {**metrics, **scores})

        for metric, path in former.items():
            if self._best_path(metric) is None:
                self._set_best_path(metric, path)
            elif path is not None and path != self._best_path(metric) and is_main_process():
                Path(path).unlink(missing_ok=True)

    def _best_metrics(self) -> tuple[str, ...]:
        return () if self.save_best is None else tuple(self.key_indicators)

    def _best_path(self, metric: str) -> str | None:
        single = len(self._best_metrics()) == 1
        return self.best_ckpt_path if single else self.best_ckpt_path_dict.get(metric)

    def _set_best_path(self, metric: str, path: str | None) -> None:
        if len(self._best_metrics()) == 1:
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[metric] = path


def _check_measured(name: str, runner: Runner) -> None:
    """Of our own evaluation one knows beforehand; of others after the first one."""
    evaluator = getattr(runner.val_loop, 'evaluator', None)
    metrics = () if evaluator is None else evaluator.metrics
    known = all(isinstance(metric, UnifiedSegMetric) for metric in metrics)
    if not metrics or not known or name == _FIRST:
        return

    tasks = tuple(task for metric in metrics for task in metric.tasks)
    if name.partition('/')[0] not in tasks:
        raise ValueError(
            f'default_hooks.checkpoint.save_best={name}: is not measured, for val_evaluator has '
            f'tasks={tasks}'
        )
