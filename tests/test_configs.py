"""Every config builds, and the published model settings are what the configs say."""

import math
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.experiments.ablation_results import read_results
from oneformer3d.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
from oneformer3d.segmentor.postprocess import PostprocessSettings
from tests.helpers.reference_values import published_settings

CONFIG_DIR = Path(__file__).parent.parent / 'configs'
CONFIGS = sorted([*CONFIG_DIR.glob('*.py'), *CONFIG_DIR.glob('ablations/*.py')])
FUSED = ('synthetic', 'late_synthetic', 'residual_synthetic', 'scannet', 'scannet200')


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        yield


def without_files(model: dict) -> dict:
    """The model with a random CLIP where it has CLIP inside: its weights need not be here."""
    if 'clip' in model.get('encoder', {}):
        model.encoder.clip.weights = 'none'
    return model


def datasets_of(cfg: Config) -> list:
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    return [d for loader in loaders for d in loader.dataset.get('datasets', [loader.dataset])]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_builds(path):
    cfg = Config.fromfile(path)
    model = MODELS.build(without_files(cfg.model))
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


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_keeps_its_best_epoch_by_what_it_measures(path):
    cfg = Config.fromfile(path)
    hook = HOOKS.build(cfg.default_hooks.checkpoint)
    tasks = METRICS.build(cfg.val_evaluator).tasks
    wanted = 'instance/AP50' if 'instance' in tasks else 'semantic/mIoU'
    assert (hook.key_indicators, hook.rules) == ([wanted], ['greater'])


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_sees_its_test_scenes_as_they_are_and_mirrored(path):
    cfg = Config.fromfile(path)
    assert cfg.tta_pipeline[:-1] == cfg.test_dataloader.dataset.pipeline[:-1]
    assert TRANSFORMS.build(cfg.tta_pipeline[-1]).subroutines
    views = cfg.tta_pipeline[-1].transforms
    assert views[-1] == [cfg.test_dataloader.dataset.pipeline[-1]]

    # the first of each is the scene as it is
    assert (views[0][0].prob_x, views[0][0].prob_y) == (0, 0)
    turns = [[turn.rot_range[0] for turn in turns] for turns in views[1:-1]]
    turns_fully = cfg.move.rot_range[1] > 3
    assert turns == ([[0.0, pytest.approx(math.pi / 2)]] if turns_fully else [])
    if cfg.tta_model is not None:
        MODELS.build({**cfg.tta_model, 'module': without_files(cfg.model)})


PUBLISHED = ('scannet', 'scannet200', 's3dis')


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_settings(name):
    published = published_settings()
    cfg = Config.fromfile(CONFIG_DIR / 'published' / f'{name}.py')
    assert cfg.model.to_dict() == published[name]


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_and_native_settings_build_the_same_model(name):
    """All parameters, all other attributes of all modules, and how often which module is there.

    Training grids that begin at random places are ours alone.
    """
    published, native = (
        MODELS.build(Config.fromfile(CONFIG_DIR / path).model)
        for path in (f'published/{name}.py', f'oneformer3d_{name}.py')
    )
    shapes = [{k: v.shape for k, v in model.state_dict().items()} for model in (published, native)]
    assert shapes[0] == shapes[1]
    assert repr(published) == repr(native)
    for ours, theirs in zip(native.modules(), published.modules(), strict=True):
        for key, value in plain_attributes(theirs).items():
            if key != 'random_grid_start':
                assert plain_attributes(ours)[key] == value, f'{type(ours).__name__}.{key}'


def plain_attributes(module: torch.nn.Module) -> dict:
    """What a module keeps besides tensors, modules and hooks."""
    return {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str | tuple | PostprocessSettings)
    }


def test_default_and_its_variants_say_what_they_are():
    """The measured default of docs/results.md, on every dataset; variants differ where they say."""
    models = {name: Config.fromfile(CONFIG_DIR / f'bifusion_{name}.py') for name in FUSED}
    parts = ('mode', 'train_without_views', 'use_tiny_sa_3d', 'clip_cons')
    rates = {'side': 10, 'image_branch': 3, 'image_branch.head.neck': 0.3, 'fusion_gate': 3}
    dropout = {'synthetic': 0.1, 'scannet': 0.1, 'scannet200': 0.7}
    for name in ('synthetic', 'scannet', 'scannet200'):
        cfg = models[name]
        assert [cfg.model.encoder[part] for part in parts] == ['concat', True, True, None]
        assert cfg.model.encoder.point_semantic.num_classes == cfg.model.num_semantic_classes
        keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
        assert {key: keys[key].lr_mult for key in keys} == {**rates, 'token_gates': 10}
        assert cfg.model.encoder.clip_store == cfg.clip_store
        assert cfg.model.decoder.clip_store == cfg.clip_store
        assert cfg.model.decoder.token_dropout == dropout[name]
    residual = models['residual_synthetic'].model
    assert (residual.encoder.mode, residual.decoder.side_channels) == ('residual', 0)


OBJECTS = 'ObjectTokenDecoder'

# What the tables of docs/results.md compared: of each, a row, the row without what it adds, the
# way of testing, the setting in question, and what it is in the first and in the second row.
COMPARISONS = {
    'bifusion': [
        ('twice', 'concat', 'no views', 'model.encoder.train_without_views', True, False),
        ('classes', 'twice', 'with images', 'model.encoder.point_semantic.loss_weight', 1.0, None),
        ('full', 'classes', 'with images', 'image_branch', 3, 1),
        ('full', 'classes', 'with images', 'fusion_gate', 3, 1),
        ('full', 'rates', 'with images', 'model.encoder.point_semantic.loss_weight', 1.0, None),
        ('tiny_sa_3d', 'full', 'with images', 'model.encoder.use_tiny_sa_3d', True, False),
        ('tiny_sa_2d_slow', 'tiny_sa_2d', 'with images', 'image_branch.head.neck', 0.3, 3),
        ('clip_cons', 'full', 'with images', 'model.encoder.clip_cons', 'on', None),
        ('full', 'residual', 'with images', 'model.encoder.mode', 'concat', 'residual'),
        ('full', 'gate', 'with images', 'model.encoder.mode', 'concat', 'gate'),
    ],
    'fusion2': [
        ('objects', 'sub_pixel', 'with images', 'model.decoder.type', OBJECTS, 'QueryDecoder'),
        ('stm', 'objects', 'with images', 'model.decoder.type', 'STMQueryDecoder', OBJECTS),
        ('sub_pixel', 'cells', 'with images', 'model.encoder.sub_pixel', None, 1),
    ],
}


@pytest.mark.parametrize('table', COMPARISONS)
@pytest.mark.parametrize('name', ['synthetic', 'scannet', 'scannet200'])
def test_fused_configs_have_what_the_tables_found_better(name, table):
    results = read_results(CONFIG_DIR.parent / 'docs' / 'results' / f'{table}.jsonl')
    cfg = Config.fromfile(CONFIG_DIR / f'bifusion_{name}.py')
    rates = cfg.optim_wrapper.paramwise_cfg.custom_keys

    def miou(cell, test):
        found = [r['metrics'][test]['semantic/mIoU'] for (c, _), r in results.items() if c == cell]
        assert len(found) >= 3
        return sum(found) / len(found)

    for row, without, test, setting, value, other in COMPARISONS[table]:
        node = rates[setting].lr_mult if setting in rates else cfg
        for part in setting.split('.') if node is cfg else ():
            node = None if node is None else node.get(part)
        better = value if miou(row, test) > miou(without, test) else other
        assert node == better, f'{setting}: {row} against {without}'


@pytest.mark.parametrize('name', ['scannet', 'scannet200'])
def test_points_alone_train_as_the_fused_model_does(name):
    """The control of a fused config: its 3D network, data, batches and schedule, without views."""
    fused = Config.fromfile(CONFIG_DIR / f'bifusion_{name}.py')
    points = Config.fromfile(CONFIG_DIR / f'bifusion_{name}_points.py')
    assert points.model.encoder == fused.model.encoder.encoder_3d
    of_views = {'side_channels', 'clip_store', *fused.object_tokens}
    fused_decoder, points_decoder = (
        {key: value for key, value in cfg.model.decoder.items() if key not in of_views}
        for cfg in (fused, points)
    )
    assert fused_decoder == points_decoder
    assert issubclass(*(MODELS.get(cfg.model.decoder.type) for cfg in (fused, points)))
    for key in ('train_cfg', 'param_scheduler', 'val_evaluator', 'auto_scale_lr', 'randomness'):
        assert points[key] == fused[key]
    for key in ('optimizer', 'clip_grad'):
        assert points.optim_wrapper[key] == fused.optim_wrapper[key]

    loaders = (points.train_dataloader, fused.train_dataloader)
    assert len({loader.batch_size for loader in loaders}) == 1
    pipelines = [loader.dataset.pipeline for loader in loaders]
    assert [step for step in pipelines[1] if step.type != 'LoadPosedViews'] == pipelines[0]


def test_files_say_nothing_by_index():
    for path in CONFIG_DIR.rglob('*'):
        if path.suffix in ('.py', '.yaml'):
            assert not re.search(r'pipeline(\[\d|\.\d)', path.read_text()), path
