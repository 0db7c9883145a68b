"""Pictures on disk: (H, W, 3) uint8 → PNG, whole or not at all."""

from pathlib import Path

import numpy as np
from PIL import Image

from oneformer3d.data.infos import atomic_path


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB image.

    Raises:
        ValueError: Not (H, W, 3) uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f'{path}: expected (H, W, 3) uint8, got {image.shape} {image.dtype}')
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format='PNG')
