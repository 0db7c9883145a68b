"""Where the maps of the views come from: a network on the images, or a feature store.

Enters: settings. Leaves: the network, if there is one, and a function from ``PosedViews`` to maps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from oneformer3d.backbones.fpn import FeaturePyramid

from .frozen_maps import FrozenMaps
from .lift_views import MapsOf, PyramidMaps, stored_maps


def build_image_net(
    image_net: Mapping[str, Any] | None,
    clip_channels: int | None,
    map_store: str | None,
    map_bytes: int,
) -> tuple[FeaturePyramid | None, MapsOf, int]:
    """The image network or None, what gives the maps of views, and their channels.

    A network in which nothing trains computes each map once (``FrozenMaps``).

    Raises:
        ValueError: both a network and the channels of stored maps.
    """
    if clip_channels is not None:
        if image_net is not None:
            raise ValueError('clip_channels is for models without image_net')
        return None, stored_maps, clip_channels

    network = FeaturePyramid(**(image_net or {}))
    frozen = network.frozen and network.fuse == 'sum'
    if map_store is not None and not frozen:
        raise ValueError("map_store holds the summed map of a frozen image_net: frozen, 'sum'")
    maps_of = FrozenMaps(network, map_store, map_bytes) if frozen else PyramidMaps(network)
    return network, maps_of, network.out_channels


def named_settings(
    backbone: str | None, channels: int | None, image_net: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Settings of ``FeaturePyramid`` of the two that have arguments of their own.

    Raises:
        ValueError: these and ``image_net`` as well.
    """
    named = {
        name: value
        for name, value in (('backbone', backbone), ('channels', channels))
        if value is not None
    }
    if not named:
        return image_net
    if image_net is not None:
        raise ValueError(
            'image_net holds all settings of the image network: give backbone_2d and '
            'lifted_feature_dim as its backbone and channels'
        )
    return named


def check_feature_dims(feature_dims: Sequence[int] | None, network: FeaturePyramid | None) -> None:
    """The channels that a caller expects of the four maps, against those of the backbone.

    Raises:
        ValueError: other channels, or no backbone.
    """
    if feature_dims is None:
        return
    found = None if network is None else list(network.backbone_2d.channels)
    if found != list(feature_dims):
        raise ValueError(f'feature_dims are {list(feature_dims)}, the backbone has {found}')
