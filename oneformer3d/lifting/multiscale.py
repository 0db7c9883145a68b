"""Multi-scale image features as the documented dictionary.

Enters: images (B, 3, H, W) and a backbone that returns ``res2`` … ``res5``, or maps in order of
their stride. Leaves: ``{'feat_1/4': (B, C, H/4, W/4), …}``, finest first.
"""

from collections.abc import Mapping

from torch import Tensor, nn

_KEYS = {'res2': 'feat_1/4', 'res3': 'feat_1/8', 'res4': 'feat_1/16', 'res5': 'feat_1/32'}


def extract_multiscale_features(image: Tensor, backbone: nn.Module) -> dict[str, Tensor]:
    """Feature maps of four strides.

    Args:
        image: (B, 3, H, W) or (3, H, W) floating point, normalised as the backbone expects it.
        backbone: returns a mapping with ``res2`` … ``res5``, or four maps, finest first.

    Returns:
        Keys ``feat_1/4``, ``feat_1/8``, ``feat_1/16`` and ``feat_1/32``; each (B, C, h, w). A
        map covers the image exactly when its stride divides both sides.

    Raises:
        ValueError: not an image, or a backbone that returns something else.
    """
    if image.ndim == 3:
        image = image[None]
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ValueError(
            f'image must be floating point (B, 3, H, W), got {image.dtype} {tuple(image.shape)}'
        )
    maps = backbone(image)
    if not isinstance(maps, Mapping):
        maps = dict(zip(_KEYS, maps)) if len(maps) == len(_KEYS) else {}
    missing = [key for key in _KEYS if key not in maps]
    if missing:
        raise ValueError(f'the backbone gives no {", ".join(missing)}')
    return {name: maps[key] for key, name in _KEYS.items()}
