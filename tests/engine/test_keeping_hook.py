"""The best checkpoint is kept by any metric, through resumes, stops, moves and failed writes."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.engine import checkpoint_hook
from oneformer3d.metrics.unified import UnifiedSegMetric

ROOT = Path(__file__).parents[2]
STEPS = 2


class Counter(BaseModel):
    """A weight that is the number of steps made so far."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))

    def forward(self, inputs, data_samples=None, mode='loss'):
        if mode == 'predict':
            return [{'epoch': round(self.value.item() / STEPS)}]
        return {'loss': -self.value + 100}


class Scripted(BaseMetric):
    """The score of each epoch is told beforehand; a signal may come while it is measured."""

    def __init__(self, name: str, scores: list[float], signal_at: int | None = None) -> None:
        super().__init__()
        self.name, self.scores, self.signal_at = name, scores, signal_at

    def process(self, data_batch, data_samples) -> None:
        (sample,) = data_samples
        self.results.append(sample['epoch'])
        if sample['epoch'] == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def compute_metrics(self, results) -> dict:
        return {self.name: self.scores[results[-1] - 1], 'other': 0.0}


def train(work_dir: Path, metric: BaseMetric, num_epochs: int = 3, by_epoch=True, **checkpoint):
    base = Config.fromfile(ROOT / 'configs' / '_base_' / 'default_runtime.py')
    hooks = dict(base.default_hooks)
    hooks['checkpoint'] = {**hooks['checkpoint'], 'by_epoch': by_epoch, **checkpoint}
    length = {'max_epochs': num_epochs} if by_epoch else {'max_iters': num_epochs * STEPS}
    rows = {'dataset': [{'inputs': torch.zeros(1)}] * STEPS, 'batch_size': 1}
    runner = Runner(
        Counter(),
        str(work_dir),
        train_dataloader={**rows, 'sampler': {'type': 'ResumableSampler', 'shuffle': False}},
        val_dataloader={**rows, 'sampler': {'type': 'DefaultSampler', 'shuffle': False}},
        val_evaluator=Evaluator(metric),
        val_cfg={},
        train_cfg={'by_epoch': by_epoch, 'val_interval': 1 if by_epoch else STEPS, **length},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 1.0}},
        default_hooks=hooks,
        custom_hooks=base.custom_hooks,
        default_scope='mmdet3d',
        resume=(work_dir / 'last_checkpoint').exists(),
        experiment_name=f'{work_dir.name}_{len(list(work_dir.glob("*")))}',
    )
    runner.train()
    return runner


def best_files(work_dir: Path) -> dict[str, float]:
    """The files' names and the weight in each."""
    return {
        path.name: torch.load(path, weights_only=True)['state_dict']['value'].item()
        for path in work_dir.glob('best_*.pth')
    }


def names_of_metrics() -> list[str]:
    """All that an evaluation prints, of every class too."""
    metric = UnifiedSegMetric('rooms', min_region_size=1, per_class=True)
    labels, table = np.arange(20) % 4, get_class_table('rooms')
    label = {c: k for k, c in enumerate(table.instance_classes)}[3]
    prediction = {
        'pts_semantic_mask': [labels, labels],
        'pts_instance_mask': [(labels == 3)[None], labels],
        'instance_labels': np.array([label]),
        'instance_scores': np.array([0.5]),
    }
    truth = {'pts_semantic_mask': labels, 'pts_instance_mask': np.where(labels == 3, 0, -1)}
    metric.process({}, [{'pred_pts_seg': prediction, 'eval_ann_info': truth}])
    return list(metric.evaluate(1))


def test_every_metric_that_is_printed_can_choose_the_best(tmp_path):
    names = names_of_metrics()
    assert {'semantic/mIoU', 'instance/AP', 'panoptic/PQ_things', 'semantic/IoU/chair'} < {*names}
    hook_settings = Config.fromfile(ROOT / 'configs/_base_/default_runtime.py').default_hooks
    for name in names:
        hook = checkpoint_hook.HOOKS.build({**hook_settings.checkpoint, 'save_best': name})
        assert hook.rules == ['greater'], name


@pytest.mark.parametrize('name', ['instance/AP50', 'panoptic/PQ', 'semantic/IoU/night stand'])
def test_the_best_epoch_is_kept(tmp_path, name):
    train(tmp_path, Scripted(name, [0.2, 0.5, 0.3]), save_best=name)
    stem = name.replace('/', '_')
    assert best_files(tmp_path) == {f'best_{stem}_epoch_2.pth': 2 * STEPS}
    assert (tmp_path / 'epoch_3.pth').is_file()


def test_the_best_of_each_of_several_metrics_is_kept(tmp_path):
    metric = Scripted('semantic/mIoU', [0.2, 0.5, 0.3])
    train(tmp_path, metric, save_best=['semantic/mIoU', 'other'])
    assert best_files(tmp_path) == {
        'best_semantic_mIoU_epoch_2.pth': 2 * STEPS,
        'best_other_epoch_1.pth': STEPS,
    }


@pytest.mark.parametrize('by_epoch', [True, False])
def test_an_evaluation_that_was_ended_is_made_on_resume(tmp_path, by_epoch):
    name, scores = 'instance/AP50', [0.2, 0.5, 0.3]
    with pytest.raises(SystemExit):
        train(tmp_path, Scripted(name, scores, signal_at=2), by_epoch=by_epoch)
    first = {True: 'best_instance_AP50_epoch_1.pth', False: f'best_instance_AP50_iter_{STEPS}.pth'}
    assert best_files(tmp_path) == {first[by_epoch]: STEPS}

    runner = train(tmp_path, Scripted(name, scores), by_epoch=by_epoch)
    (weight,) = best_files(tmp_path).values()
    assert weight == 2 * STEPS
    assert runner.model.value.item() == 3 * STEPS


def test_a_copied_training_leaves_the_first_folder_alone(tmp_path):
    first, second = tmp_path / 'first', tmp_path / 'second'
    metric = Scripted('instance/AP50', [0.2, 0.5, 0.7])
    train(first, metric, num_epochs=2)
    shutil.copytree(first, second)
    train(second, metric)
    assert best_files(first) == {'best_instance_AP50_epoch_2.pth': 2 * STEPS}
    assert best_files(second) == {'best_instance_AP50_epoch_3.pth': 3 * STEPS}


def test_where_the_best_file_is_gone_it_is_chosen_anew(tmp_path):
    train(tmp_path, Scripted('instance/AP50', [0.9, 0.5, 0.3]), num_epochs=2)
    (tmp_path / 'best_instance_AP50_epoch_1.pth').unlink()
    train(tmp_path, Scripted('instance/AP50', [0.9, 0.5, 0.3]))
    assert best_files(tmp_path) == {'best_instance_AP50_epoch_3.pth': 3 * STEPS}


def test_the_former_best_stays_until_the_new_one_is_written(tmp_path, monkeypatch):
    write = checkpoint_hook.atomic_write_bytes

    def fail(path, content):
        if Path(path).name.startswith('best_') and Path(path).stem.endswith('_2'):
            raise OSError(28, 'No space left on device', str(path))
        write(path, content)

    monkeypatch.setattr(checkpoint_hook, 'atomic_write_bytes', fail)
    with pytest.raises(OSError, match='No space'):
        train(tmp_path, Scripted('instance/AP50', [0.2, 0.5, 0.3]))
    assert best_files(tmp_path) == {'best_instance_AP50_epoch_1.pth': STEPS}


def test_a_score_that_is_no_number_is_not_the_best(tmp_path):
    train(tmp_path, Scripted('instance/AP50', [float('nan'), 0.1, float('nan')]))
    assert best_files(tmp_path) == {'best_instance_AP50_epoch_2.pth': 2 * STEPS}


def test_a_metric_that_is_not_measured_is_refused_before_the_first_step(tmp_path):
    metric = UnifiedSegMetric('rooms', tasks=('semantic',))
    with pytest.raises(ValueError, match=r"save_best=instance/AP50: .*tasks=\('semantic',\)"):
        train(tmp_path, metric)
    assert not list(tmp_path.glob('*.pth'))
