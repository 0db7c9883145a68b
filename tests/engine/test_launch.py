"""Loaders without workers, and norms whose statistics several processes share."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model.utils import convert_sync_batchnorm
from torch.utils.data import DataLoader

from oneformer3d.engine.class_sizes import LOADERS
from oneformer3d.engine.launch import build_runner, without_idle_workers
from oneformer3d.registry import MODELS
from tests.helpers.small_models import random_scene, small_settings

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.name for path in (ROOT / 'configs').glob('*.py'))
OPTIONS = ('num_workers', 'persistent_workers', 'prefetch_factor')


@pytest.mark.parametrize('name', CONFIGS)
def test_no_workers(name: str) -> None:
    cfg = Config.fromfile(ROOT / 'configs' / name)
    loaders = [loader for loader in LOADERS if loader in cfg]
    assert loaders
    for loader in loaders:
        cfg[loader].num_workers = 0
    given = cfg.to_dict()

    adapted = without_idle_workers(cfg)
    assert cfg.to_dict() == given
    for loader in loaders:
        options = {k: v for k, v in adapted[loader].items() if k in OPTIONS}
        assert list(DataLoader([1, 2], **options))
        rest = {k: v for k, v in given[loader].items() if k not in OPTIONS}
        assert {k: v for k, v in adapted.to_dict()[loader].items() if k not in OPTIONS} == rest


def test_workers_stay_persistent() -> None:
    loader = {'num_workers': 2, 'persistent_workers': True}
    cfg = Config({'train_dataloader': loader})
    assert without_idle_workers(cfg).to_dict()['train_dataloader'] == loader


@pytest.mark.parametrize(
    ('launcher', 'fault'),
    [('none', 'one process has nobody'), ('pytorch', 'on GPUs only')],
)
def test_norms_that_nothing_synchronises_are_refused(launcher, fault, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    cfg = Config.fromfile(ROOT / 'configs' / 'oneformer3d_synthetic.py')
    cfg.merge_from_dict({'launcher': launcher, 'sync_bn': 'torch', 'work_dir': 'work'})
    with pytest.raises(ValueError, match=f'sync_bn=torch: .*{fault}'):
        build_runner(cfg)


def test_synchronised_norms_are_the_same_network() -> None:
    """As the runner converts it; in one process a synchronised norm is an ordinary one."""
    points, sample = random_scene()
    plain = MODELS.build(small_settings()).train()
    synchronised = convert_sync_batchnorm(copy.deepcopy(plain), 'torch')
    norms = [m for m in synchronised.modules() if isinstance(m, torch.nn.SyncBatchNorm)]
    assert len(norms) == sum(isinstance(m, torch.nn.BatchNorm1d) for m in plain.modules()) > 5
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in synchronised.modules())
    assert list(synchronised.state_dict()) == list(plain.state_dict())

    losses = []
    for model in (plain, synchronised):
        torch.manual_seed(0)
        losses.append(model.loss({'points': [points]}, [sample]))
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value)
