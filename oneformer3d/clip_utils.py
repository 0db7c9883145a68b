"""Helpers of the CLIP branch under their documented names.

Enters: points in metres, OpenCV cameras (``extrinsics`` is camera to world), CLIP feature maps, the
visual tower of an ``open_clip`` model. Leaves: pixels and validity of points, sampled features,
the 64 raw numbers of the geometric encoding, and a tower that trains only its last blocks.
"""

from .clip.freezing import freeze_clip_except_last_blocks
from .fusion.geo_pe import build_geo_pe
from .lifting.uv import build_uv_index, build_uv_index_batch, sample_img_feat

__all__ = [
    'build_geo_pe',
    'build_uv_index',
    'build_uv_index_batch',
    'freeze_clip_except_last_blocks',
    'sample_img_feat',
]
