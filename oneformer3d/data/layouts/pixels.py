"""Pixels of posed frames: colour as RGB, depth in metres, lens distortion taken out.

Enters: a ``PosedFrame``, or the path of an image. Leaves: (H, W, 3) uint8, (h, w) float32 metres.
Depth is an integer or floating point PNG, PGM, TIFF or NPY; 0, 65535, inf and nan are missing.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags

from oneformer3d.files.images import MISSING_DEPTH, UNREADABLE, open_image, to_rgb

from .records import Distortion, Matrix, PosedFrame, Size

COLOR_SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm')
_DEPTH_PIXELS_PER_BYTE = 2  # depth is noise in its last bits, which no format makes smaller
DEPTH_SUFFIXES = ('.png', '.pgm', '.tif', '.tiff', '.npy')


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about itself.

    Attributes:
        size: (H, W) of the pixels as they are stored.
        is_float: of depth, whether it is floating point.
        orientation: of colour, how EXIF wants the pixels turned or mirrored; 1 is as stored.
    """

    size: Size
    is_float: bool = False
    orientation: int = 1


def read_color(frame: PosedFrame) -> NDArray[np.uint8]:
    """Colour (H, W, 3) of a frame as a pinhole with ``frame.K`` sees it.

    Raises:
        ValueError: the image cannot be read; names it.
    """
    try:
        with open_image(frame.image_path) as image:
            color = np.asarray(to_rgb(image))
    except UNREADABLE as error:
        raise ValueError(f'{frame.image_path}: {error}') from error
    if frame.distortion is None:
        return color
    return undistort(color, frame.K, frame.distortion, cv2.INTER_LINEAR)


def read_depth(frame: PosedFrame) -> NDArray[np.float32] | None:
    """Depth (h, w) of a frame in metres, 0 where missing; None without a depth image.

    Raises:
        ValueError: the image cannot be read, or is not depth; names it.
    """
    if frame.depth_path is None:
        return None
    values = read_depth_values(frame.depth_path)
    depth = values.astype(np.float32) / frame.depth_scale
    if frame.distortion is None or frame.depth_intrinsics is None:
        return depth
    return undistort(depth, frame.depth_intrinsics, frame.distortion, cv2.INTER_NEAREST)


def read_depth_values(path: Path) -> NDArray:
    """Depth (h, w) in the units of its file, 0 where missing; raises as ``read_depth``."""
    try:
        if path.suffix.lower() == '.npy':
            values = np.load(path, allow_pickle=False)
            values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
        else:
            with open_image(path, pixels_per_byte=_DEPTH_PIXELS_PER_BYTE) as image:
                values = np.asarray(image)
    except (*UNREADABLE, EOFError) as error:
        raise ValueError(f'{path}: {error}') from error

    if values.ndim != 2 or values.dtype.kind not in 'uif' or values.dtype.itemsize == 1:
        raise ValueError(
            f'{path}: expected a 16-bit depth image, got {values.dtype} {values.shape}'
        )
    if values.dtype.kind == 'f':
        return np.where(np.isfinite(values) & (values > 0), values, 0)
    return np.where((values == MISSING_DEPTH) | (values < 0), 0, values)


def undistort(image: NDArray, K: Matrix, distortion: Distortion, interpolation: int) -> NDArray:
    """The image (H, W) or (H, W, 3) without lens distortion, under the same K."""
    size = image.shape[1::-1]
    coefficients = np.asarray(distortion.coefficients, dtype=np.float64)
    remaps = cv2.fisheye if distortion.fisheye else cv2
    maps = remaps.initUndistortRectifyMap(K, coefficients, np.eye(3), K, size, cv2.CV_32FC1)
    return cv2.remap(image, *maps, interpolation)


def color_header(path: Path) -> ImageHeader:
    """Size of a colour image, from its header; raises as ``read_color``."""
    try:
        with open_image(path) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            return ImageHeader((image.height, image.width), orientation=orientation)
    except UNREADABLE as error:
        raise ValueError(f'{path}: {error}') from error


def depth_header(path: Path) -> ImageHeader:
    """Size and kind of a depth image, from its header; raises as ``read_depth``."""
    try:
        if path.suffix.lower() == '.npy':
            values = np.load(path, allow_pickle=False, mmap_mode='r')
            return ImageHeader(tuple(values.shape[:2]), values.dtype.kind == 'f')
        with open_image(path, pixels_per_byte=_DEPTH_PIXELS_PER_BYTE) as image:
            return ImageHeader((image.height, image.width), image.mode == 'F')
    except (*UNREADABLE, EOFError) as error:
        raise ValueError(f'{path}: {error}') from error
