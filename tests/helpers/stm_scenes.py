"""Small segmentors with the STM decoder, and scenes for them."""

import torch

from oneformer3d.registry import MODELS
from tests.helpers.fusion_scenes import CHANNELS, INTRINSICS, scene, segmentor_settings
from tests.helpers.small_models import small_settings

PYRAMID = {'type': 'MapPyramid', 'clip_channels': CHANNELS, 'channels': 8}


def decoder_settings(**changes) -> dict:
    """Settings of a small STM decoder."""
    return {
        **small_settings()['decoder'],
        'type': 'STMQueryDecoder',
        'pyramid': PYRAMID,
        'num_view_points': 3,
        'num_view_slots': 2,
        'num_view_groups': 2,
        'out_multiplier': 2,
        **changes,
    }


def stm_segmentor(**changes) -> torch.nn.Module:
    """A small segmentor of plain points with the STM decoder."""
    return MODELS.build(small_settings(decoder=decoder_settings(**changes)))


def fused_segmentor(**changes) -> torch.nn.Module:
    """A small segmentor of fused points with the STM decoder."""
    return MODELS.build({**segmentor_settings(), 'decoder': decoder_settings(**changes)})


def posed_scene(seed: int = 0, num_views: int = 3, **changes):
    """Points, views with intrinsics and data sample of one scene."""
    points, views, sample = scene(seed, num_views=num_views)
    return points, type(views)(**{**vars(views), 'intrinsics': INTRINSICS, **changes}), sample


def open_gates(model: torch.nn.Module, value: float = 0.5) -> torch.nn.Module:
    """The model as after some training: gates open, mixing and points depend on the query."""
    with torch.no_grad():
        for gate in model.decoder.view_gates:
            gate.fill_(value)
        for layer in model.decoder.view_layers:
            for weight in (
                layer.sampling_offset.weight,
                layer.spatial_mixing.parameter_generator[0].weight,
                layer.temporal_mixing.parameter_generator[0].weight,
            ):
                torch.nn.init.normal_(weight, std=0.05)
    return model
