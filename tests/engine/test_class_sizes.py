"""A model of another size than its class table is refused; every config that is shipped fits."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config

from oneformer3d.engine.class_sizes import check_class_sizes

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'configs').glob('**/*.py'))


@pytest.mark.parametrize('name', CONFIGS)
def test_shipped_configs_fit_their_tables(name: str) -> None:
    check_class_sizes(Config.fromfile(ROOT / name))


def own_table(folder: Path) -> str:
    """Four classes of someone's own data, two of them stuff."""
    table = {'classes': ['wall', 'floor', 'box', 'pipe'], 'stuff': ['wall', 'floor']}
    path = folder / 'classes.json'
    path.write_text(json.dumps(table))
    return str(path)


@pytest.mark.parametrize('loader', ['train_dataloader', 'val_dataloader', 'test_dataloader'])
def test_own_table_with_a_model_of_other_size(tmp_path: Path, loader: str) -> None:
    cfg = Config.fromfile(ROOT / 'configs/oneformer3d_synthetic.py')
    cfg = Config({'model': cfg.model, loader: cfg[loader]})
    cfg[loader].dataset.class_table = own_table(tmp_path)
    with pytest.raises(ValueError, match=f'{loader} has 4 semantic .* = 16'):
        check_class_sizes(cfg)

    model = cfg.model
    model.num_semantic_classes = model.decoder.num_semantic_classes = 4
    model.criterion.num_semantic_classes = 4
    with pytest.raises(ValueError, match=r'2 instance classes, .*num_instance_classes = 13'):
        check_class_sizes(cfg)

    model.decoder.num_instance_classes = model.criterion.inst_criterion.num_classes = 2
    with pytest.raises(ValueError, match=r'stuff classes \[0, 1\], .*stuff_classes = \[0, 1, 2\]'):
        check_class_sizes(cfg)

    model.stuff_classes = [0, 1]
    check_class_sizes(cfg)


@pytest.mark.parametrize(
    'wrap', [lambda data: {'dataset': data}, lambda data: {'datasets': [data]}]
)
def test_table_within_a_wrapper(tmp_path: Path, wrap: Callable[[dict], dict]) -> None:
    loader = {'dataset': {'type': 'Wrapper', **wrap({'class_table': own_table(tmp_path)})}}
    with pytest.raises(ValueError, match=r'has 4 semantic classes, .* = 16'):
        check_class_sizes(Config({'model': {'num_classes': 16}, 'train_dataloader': loader}))


def test_own_table_with_adapted_model(tmp_path: Path) -> None:
    sizes = {'num_semantic_classes': 4, 'num_instance_classes': 2}
    loader = {'dataset': {'class_table': own_table(tmp_path)}}
    check_class_sizes(Config({'model': {'decoder': sizes}, 'train_dataloader': loader}))
