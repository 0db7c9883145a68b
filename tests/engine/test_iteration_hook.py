"""The iteration of training reaches losses that warm up, also after a resume."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

import oneformer3d  # noqa: F401
from oneformer3d.fusion.consistency import ClipConsCriterion

ROOT = Path(__file__).parents[2]


class WarmingModel(BaseModel):
    """A number that goes down by the warm-up factor of each iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))
        self.criterion = ClipConsCriterion(1, 1, warmup_iters=5)
        self.iteration = None
        self.factors = []

    def forward(self, inputs, data_samples=None, mode='loss'):
        self.factors.append(self.criterion.warmup(self.iteration))
        return {'loss': self.value * self.factors[-1]}


def train(work_dir: Path, num_epochs: int, resume: bool = False, hooks: bool = True):
    base = Config.fromfile(ROOT / 'configs' / '_base_' / 'default_runtime.py')
    default_hooks = dict(base.default_hooks)
    if not hooks:
        del default_hooks['iteration']
    runner = Runner(
        WarmingModel(),
        str(work_dir),
        train_dataloader={
            'dataset': [{'inputs': torch.zeros(1)}] * 2,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'batch_size': 1,
        },
        train_cfg={'by_epoch': True, 'max_epochs': num_epochs},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 1.0}},
        default_hooks=default_hooks,
        custom_hooks=base.custom_hooks,
        default_scope='mmdet3d',
        resume=resume,
        experiment_name=f'{work_dir.name}_{num_epochs}',
    )
    return runner.train()


def test_warm_up_goes_on_after_a_resume(tmp_path):
    straight = train(tmp_path / 'straight', 4)
    assert straight.factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])
    assert straight.iteration is None

    first = train(tmp_path / 'stopped', 1)
    second = train(tmp_path / 'stopped', 4, resume=True)
    assert [*first.factors, *second.factors] == straight.factors
    assert torch.equal(second.value, straight.value)


def test_a_warm_up_without_the_hook_is_named(tmp_path):
    with pytest.raises(ValueError, match='IterationHook'):
        train(tmp_path, 1, hooks=False)
