"""Without workers every config's loaders can be built."""

from pathlib import Path

import pytest
from mmengine.config import Config
from torch.utils.data import DataLoader

from oneformer3d.engine.class_sizes import LOADERS
from oneformer3d.engine.launch import without_idle_workers

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
