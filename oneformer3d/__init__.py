"""Segmentation of indoor 3D scenes from point clouds and the images they were scanned with.

Importing the package registers its modules in mmdet3d's registries, so that configs find
them; it needs no GPU, no display and no open3d.
"""

from oneformer3d import criterion, matching, published, query_decoder, voxel_encoder
from oneformer3d.backbones import res16unet, spconv_unet
from oneformer3d.data import dataset, loading, packing, preprocessor, transforms
from oneformer3d.engine import amp, checkpoint_hook, launch, visualization_hook
from oneformer3d.inferencer import OneFormer3DInferencer
from oneformer3d.metrics import unified
from oneformer3d.oneformer3d import OneFormer3D
from oneformer3d.version import __version__

__all__ = [
    'OneFormer3D',
    'OneFormer3DInferencer',
    '__version__',
    'amp',
    'checkpoint_hook',
    'criterion',
    'dataset',
    'launch',
    'loading',
    'matching',
    'packing',
    'preprocessor',
    'published',
    'query_decoder',
    'res16unet',
    'spconv_unet',
    'transforms',
    'unified',
    'visualization_hook',
    'voxel_encoder',
]
