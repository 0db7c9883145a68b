"""Every config builds, and the published model settings are what the configs say."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from tests.helpers.reference_values import published_settings

CONFIGS = sorted((Path(__file__).parent.parent / 'configs').glob('*.py'))


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        yield


def datasets_of(cfg: Config) -> list:
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    return [d for loader in loaders for d in loader.dataset.get('datasets', [loader.dataset])]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_builds(path):
    cfg = Config.fromfile(path)
    model = MODELS.build(cfg.model)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
    METRICS.build(cfg.val_evaluator)
    METRICS.build(cfg.test_evaluator)
    for dataset in datasets_of(cfg):
        table = get_class_table(dataset.class_table)
        assert model.num_semantic_classes == table.num_classes
        if hasattr(model, 'instance_classes'):  # others are semantic only
            assert tuple(model.stuff_classes) == table.stuff
            assert tuple(model.instance_classes) == table.instance_classes
        DATASETS.build({**dataset, 'lazy_init': True})
        for transform in dataset.pipeline:
            TRANSFORMS.build(transform)


@pytest.mark.parametrize('name', ['scannet', 'scannet200', 's3dis'])
def test_published_settings(name):
    published = published_settings()
    cfg = Config.fromfile(CONFIGS[0].parent / f'oneformer3d_{name}.py')
    assert cfg.model.to_dict() == published[name]
