"""Segmentation of indoor 3D scenes from point clouds and the images they were scanned with.

Importing the package registers its modules in mmdet3d's registries, so that configs find
them; it needs no GPU, no display and no open3d.

It shortens the time for which OpenMP threads spin while they wait, unless the environment says
otherwise: with the default, a machine whose cores are busy with something else trains a hundred
times slower; with passive waiting, an idle one three times slower. The runtime reads the setting
once, when torch is loaded.
"""

import os

if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '20000')

from oneformer3d import (
    bi_fusion_encoder,
    bife_clip_loss,
    criterion,
    lifting_encoder,
    matching,
    mvpnet,
    published,
    query_decoder,
    stm_decoder,
    tiny_sa,
    view_segmentation,
    voxel_encoder,
)
from oneformer3d.backbones import res16unet, spconv_unet
from oneformer3d.data import (
    dataset,
    loading,
    packing,
    preprocessor,
    transforms,
    view_images,
    views,
)
from oneformer3d.engine import amp, checkpoint_hook, launch, visualization_hook
from oneformer3d.inferencer import OneFormer3DInferencer
from oneformer3d.metrics import unified
from oneformer3d.mvpnet_training import train_feature_lifting_model
from oneformer3d.oneformer3d import OneFormer3D
from oneformer3d.scan_segmentation import segment_scan
from oneformer3d.version import __version__

__all__ = [
    'OneFormer3D',
    'OneFormer3DInferencer',
    '__version__',
    'amp',
    'bi_fusion_encoder',
    'bife_clip_loss',
    'checkpoint_hook',
    'criterion',
    'dataset',
    'launch',
    'lifting_encoder',
    'loading',
    'matching',
    'mvpnet',
    'packing',
    'preprocessor',
    'published',
    'query_decoder',
    'res16unet',
    'segment_scan',
    'spconv_unet',
    'stm_decoder',
    'tiny_sa',
    'train_feature_lifting_model',
    'transforms',
    'unified',
    'view_images',
    'view_segmentation',
    'views',
    'visualization_hook',
    'voxel_encoder',
]
