"""Configs with test-time augmentation, and what keeps one from having it."""

import pytest
from mmengine.config import Config

from oneformer3d.engine.tta import with_tta
from tests.conftest import REPOSITORY


def read(name: str) -> Config:
    return Config.fromfile(REPOSITORY / 'configs' / f'{name}.py')


def test_the_model_is_put_into_another_and_the_views_are_made_last():
    cfg = read('rooms_points')
    augmented = with_tta(cfg)
    assert augmented.model.type == 'OneFormer3DTTA'
    assert augmented.model.module == cfg.model
    assert augmented.test_dataloader.dataset.pipeline == cfg.tta_pipeline
    assert augmented.val_dataloader == cfg.val_dataloader
    assert cfg.model.type == 'OneFormer3D', 'the config itself stays'


def test_a_config_without_it_is_named():
    with pytest.raises(ValueError, match=r'mvpnet_2d_synthetic\.py: has no tta_model'):
        with_tta(read('mvpnet_2d_synthetic'))


def test_an_option_for_a_step_that_is_not_run_is_refused():
    option = 'test_dataloader.dataset.pipeline.LoadPosedViews.hide'
    with pytest.raises(ValueError, match=r'those of tta_pipeline\.LoadPosedViews\.hide'):
        with_tta(read('bifusion_synthetic'), [option])
