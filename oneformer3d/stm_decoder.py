"""Spatio-temporal mixing: the names of the STM decoder in one place.

The functions and modules of the stand-alone decoder (Wu et al., "STMixer: A One-Stage Sparse Action
Detector", CVPR 2023) and ``STMQueryDecoder``, whose queries read the posed images of a room the
same way. See ``oneformer3d.stm``.
"""

from oneformer3d.stm.boxes import refine_xyzr
from oneformer3d.stm.decoder import STMDecoder
from oneformer3d.stm.image_pyramids import ClipPyramid, FPNPyramid
from oneformer3d.stm.mixing import AdaptiveMixing
from oneformer3d.stm.published import load_stmixer
from oneformer3d.stm.pyramids import MapPyramid
from oneformer3d.stm.query_decoder import STMQueryDecoder
from oneformer3d.stm.sampling import (
    MHAQ3D,
    SAMPLE4D,
    level_table,
    make_sample_points,
    translate_to_linear_weight,
)
from oneformer3d.stm.stage import AdaptiveSTSamplingMixing, AMStage

__all__ = [
    'MHAQ3D',
    'SAMPLE4D',
    'AMStage',
    'AdaptiveMixing',
    'AdaptiveSTSamplingMixing',
    'ClipPyramid',
    'FPNPyramid',
    'MapPyramid',
    'STMDecoder',
    'STMQueryDecoder',
    'level_table',
    'load_stmixer',
    'make_sample_points',
    'refine_xyzr',
    'translate_to_linear_weight',
]
