"""Small Bi-Fusion encoders and segmentors, as built and as if trained."""

import numpy as np
from torch import nn

from oneformer3d.fusion.encoder import BiFusionEncoder
from oneformer3d.registry import MODELS
from tests.helpers.fusion_scenes import encoder_settings, segmentor_settings
from tests.helpers.small_clips import SMALL_VIT

CONS = {'type': 'ClipConsCriterion', 'warmup_iters': 0}
CLIP = {'model': SMALL_VIT, 'weights': 'none'}


def build(**changes) -> BiFusionEncoder:
    return MODELS.build(encoder_settings(**changes)).eval()


def build_segmentor(**changes):
    return MODELS.build(segmentor_settings(**changes)).eval()


def opened(model: nn.Module) -> nn.Module:
    """The encoder or segmentor as if trained: what starts at zero is no longer zero."""
    for name, parameter in model.named_parameters():
        if name.endswith(('out.weight', '.side', '.early')) and not parameter.any():
            nn.init.normal_(parameter)
    return model


def assert_equal_predictions(first, second) -> None:
    for a, b in zip(first, second):
        for name in ('pts_semantic_mask', 'pts_instance_mask'):
            for x, y in zip(a.pred_pts_seg[name], b.pred_pts_seg[name]):
                assert np.array_equal(x, y)
        assert np.array_equal(a.pred_pts_seg.instance_scores, b.pred_pts_seg.instance_scores)
