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

# what registers itself, room by room
from oneformer3d.backbones import res16unet, spconv_unet
from oneformer3d.data.samples import (
    dataset,
    loading,
    packing,
    preprocessor,
    transforms,
    view_images,
    views,
)
from oneformer3d.engine import amp, checkpoint_hook, iteration_hook, launch, visualization_hook
from oneformer3d.fusion import consistency, encoder, tiny_sa
from oneformer3d.inference.inferencer import OneFormer3DInferencer
from oneformer3d.metrics import unified
from oneformer3d.mvpnet import encoder as lifting_encoder
from oneformer3d.mvpnet import image_segmentor, segmentor
from oneformer3d.mvpnet.segment_scan import segment_scan
from oneformer3d.mvpnet.segmentor import FeatureLiftingSegmentation
from oneformer3d.mvpnet.training import train_feature_lifting_model
from oneformer3d.segmentor import criterion, matching, published, query_decoder, voxel_encoder
from oneformer3d.segmentor.oneformer3d import OneFormer3D
from oneformer3d.stm import image_pyramids, pyramids
from oneformer3d.stm import query_decoder as stm_query_decoder
from oneformer3d.version import __version__

Inferencer = OneFormer3DInferencer

__all__ = [
    'FeatureLiftingSegmentation',
    'Inferencer',
    'OneFormer3D',
    'OneFormer3DInferencer',
    '__version__',
    'segment_scan',
    'train_feature_lifting_model',
]
