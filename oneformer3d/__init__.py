"""Segmentation of indoor 3D scenes from point clouds and the images they were scanned with.

Importing the package is light: names below are imported when they are used, and mmdet3d's
registries import the types that configs name when they are first asked for one. It needs no GPU, no
display, no open3d, and none of mmcv's compiled ops; where these are absent, ``import oneformer3d``
has to come before ``import mmdet3d``.

It shortens the time for which OpenMP threads spin while they wait, unless the environment says
otherwise: with the default, a machine whose cores are busy with something else trains a hundred
times slower; with passive waiting, an idle one three times slower. The runtime reads the setting
once, when torch is loaded.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from oneformer3d.openmmlab import install
from oneformer3d.version import __version__

if TYPE_CHECKING:
    from oneformer3d.inference.inferencer import OneFormer3DInferencer
    from oneformer3d.inference.inferencer import OneFormer3DInferencer as Inferencer
    from oneformer3d.mvpnet.segment_scan import segment_scan
    from oneformer3d.mvpnet.segmentor import FeatureLiftingSegmentation
    from oneformer3d.mvpnet.training import train_feature_lifting_model
    from oneformer3d.segmentor.oneformer3d import OneFormer3D

if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '20000')

install()

_HOMES = {
    'FeatureLiftingSegmentation': 'oneformer3d.mvpnet.segmentor.FeatureLiftingSegmentation',
    'Inferencer': 'oneformer3d.inference.inferencer.OneFormer3DInferencer',
    'OneFormer3D': 'oneformer3d.segmentor.oneformer3d.OneFormer3D',
    'OneFormer3DInferencer': 'oneformer3d.inference.inferencer.OneFormer3DInferencer',
    'segment_scan': 'oneformer3d.mvpnet.segment_scan.segment_scan',
    'train_feature_lifting_model': 'oneformer3d.mvpnet.training.train_feature_lifting_model',
}

__all__ = [
    'FeatureLiftingSegmentation',
    'Inferencer',
    'OneFormer3D',
    'OneFormer3DInferencer',
    '__version__',
    'segment_scan',
    'train_feature_lifting_model',
]


def __getattr__(name: str) -> Any:
    """Import a public name from its room when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module, _, attribute = _HOMES[name].rpartition('.')
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
