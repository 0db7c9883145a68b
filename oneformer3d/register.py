"""Importing this module registers every type that a config may name, room by room.

Nobody needs to: mmdet3d's registries import it when they are first asked for a type
(``openmmlab.py`` tells them to).
"""

from oneformer3d.backbones import res16unet, spconv_unet
from oneformer3d.data.samples import (
    dataset,
    loading,
    order,
    packing,
    preprocessor,
    scan_transforms,
    transforms,
    view_images,
    views,
)
from oneformer3d.engine import (
    amp,
    checkpoint_hook,
    data_workers,
    iteration_hook,
    keeping_hook,
    stop_hook,
    visualization_hook,
)
from oneformer3d.fusion import consistency, encoder, tiny_sa
from oneformer3d.metrics import unified
from oneformer3d.mvpnet import encoder as lifting_encoder
from oneformer3d.mvpnet import image_segmentor, segmentor
from oneformer3d.mvpnet import tta as lifting_tta
from oneformer3d.segmentor import (
    criterion,
    matching,
    oneformer3d,
    published,
    query_decoder,
    tta,
    voxel_encoder,
)
from oneformer3d.stm import image_pyramids, object_decoder, pyramids
from oneformer3d.stm import query_decoder as stm_query_decoder
