"""Test-time augmentation by mmdet3d's names: ``tta_model`` and ``tta_pipeline`` of a config.

Enters: a config of a test run. Leaves: the config of a run in which ``tta_model`` stands around the
model, and the test data come in the views of ``tta_pipeline``.
"""

from collections.abc import Iterable
from typing import cast

from mmengine.config import Config
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

_STEPS = 'test_dataloader.dataset.pipeline'


def with_tta(cfg: Config, options: Iterable[str] = ()) -> Config:
    """The config of a run with test-time augmentation.

    Args:
        cfg: has ``tta_model``, and ``tta_pipeline`` whose last step makes the views.
        options: dotted keys of settings that were overridden.

    Raises:
        ValueError: the config has no ``tta_model`` or no ``tta_pipeline``, or an option is for a
            step that the run would not have.
    """
    for name in ('tta_model', 'tta_pipeline'):
        if not cfg.get(name):
            raise ValueError(f'{cfg.filename}: has no {name}, which test-time augmentation needs')
    ignored = [key for key in options if key.startswith(_STEPS)]
    if ignored:
        step = ignored[0].removeprefix(_STEPS)
        raise ValueError(f'{ignored[0]}: with --tta the steps are those of tta_pipeline{step}')

    augmented = Config(cfg._cfg_dict.copy(), filename=cfg.filename)
    augmented.model = {**cfg.tta_model, 'module': cfg.model}
    dataset = {**cfg.test_dataloader.dataset, 'pipeline': cfg.tta_pipeline}
    augmented.test_dataloader = {**cfg.test_dataloader, 'dataset': dataset}
    return augmented


def inner_model(model: nn.Module) -> nn.Module:
    """The segmentor within what stands around it: several processes, test-time augmentation."""
    if is_model_wrapper(model):
        model = cast(nn.Module, model.module)
    return cast(nn.Module, model.module) if isinstance(model, BaseTTAModel) else model
