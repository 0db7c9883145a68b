"""Images of the frames that the doctor looks at, at one size.

Enters: ``SourceFrame`` records, depth (F, H, W). Leaves: depth and brightness of one size, and what
depth shows of itself: outlines of things, values that stand for "farther". H×W the depth image.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oneformer3d.files.images import UNREADABLE, open_image

from ..layouts.pixels import read_depth_values
from .records import SourceFrame

_EDGE = 0.03  # of depth between pixels two apart: between them lies the outline of a thing
_OUTLINE = 0.08  # of depth, between neighbours


def read_images(
    frame: SourceFrame,
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, int]] | None:
    """Raw depth, brightness at its size, and the size of the colour image; None if broken."""
    try:
        depth = read_depth_values(frame.depth_path).astype(np.float32)
        with open_image(frame.color_path) as image:
            color_size = (image.height, image.width)
            image.draft('L', (depth.shape[-1], depth.shape[0]))  # JPEG is decoded smaller
            grey = image.convert('L').resize(
                (depth.shape[1], depth.shape[0]), Image.Resampling.BILINEAR
            )
    except UNREADABLE:
        return None
    return depth, np.asarray(grey, dtype=np.float32), color_size


def to_size(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """The nearest pixels of an image at another size (H, W)."""
    if image.shape == size:
        return image
    rows = ((np.arange(size[0]) + 0.5) * image.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * image.shape[1] / size[1]).astype(int)
    return image[rows][:, columns]


def sample_pixels(depth: NDArray, count: int, seed: int) -> NDArray[np.int64]:
    """(count, 2) pixels (x, y) with depth, drawn evenly; repeated where there are fewer."""
    rng = np.random.default_rng(seed)
    places = np.flatnonzero(depth > 0)
    if len(places) == 0:
        return np.zeros((count, 2), dtype=np.int64)
    chosen = rng.choice(places, count, replace=len(places) < count)
    row, column = np.unravel_index(chosen, depth.shape)
    return np.stack([column, row], axis=1)


def find_edges(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels (F, H, W) at the outlines of things, where depth of a pixel is a matter of chance."""
    edge = np.zeros(depth.shape, dtype=bool)
    for axis in (1, 2):
        near, far = [slice(None)] * 3, [slice(None)] * 3
        near[axis], far[axis] = slice(None, -2), slice(2, None)
        a, b = depth[tuple(near)], depth[tuple(far)]
        jump = np.abs(a - b) > _EDGE * np.minimum(a, b)
        edge[tuple(near)] |= jump
        edge[tuple(far)] |= jump
    return edge


def near_side(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels (F, H, W) with a neighbour much farther away; missing depth is no outline."""
    near = np.zeros(depth.shape, dtype=bool)
    for axis in (1, 2):
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        a, b = depth[tuple(low)], depth[tuple(high)]
        near[tuple(low)] |= (a > 0) & (b > (1 + _OUTLINE) * a)
        near[tuple(high)] |= (b > 0) & (a > (1 + _OUTLINE) * b)
    return near


def clipped_value(depth: NDArray[np.float32]) -> float:
    """The largest value if so many pixels have it that depth must have been cut off there."""
    known = depth[:, ::4, ::4]
    largest = float(known.max())
    num_known = int((known > 0).sum())
    return largest if (known == largest).sum() > 0.02 * num_known else 0.0
