"""Colour and depth images, read with their faults named and written atomically.

Enters: JPEG or PNG files, arrays. Leaves: (H, W, 3) uint8 colours, (H, W) float32 metres, files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .atomic import atomic_path

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # as PIL raises
MAX_PIXELS = 100_000_000  # a photograph of today's largest cameras
# images that are nearly empty may be this large; the others have a byte for so many pixels at least
_LARGE_PIXELS = 12_000_000
_PIXELS_PER_BYTE = 16
MISSING_DEPTH = 65535  # what 7-Scenes writes where there is no depth


def read_image(
    path: str | Path, size: tuple[int, int], expected_size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """An image squashed to a size; a JPEG of twice the size or more is decoded at 1/2, 1/4 or 1/8.

    Args:
        path: JPEG or PNG.
        size: (H, W) of the result.
        expected_size: (H, W) that the file must have.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        OSError, ValueError: missing, damaged, cut short or of another size; names the file.
    """
    try:
        with open_image(path) as image:
            _check_size(image, expected_size)
            image.draft('RGB', (size[1], size[0]))
            pixels = to_rgb(image)
            if pixels.size != (size[1], size[0]):
                pixels = pixels.resize((size[1], size[0]), Image.Resampling.BICUBIC)
            return np.asarray(pixels)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path}: no such image') from error
    except UNREADABLE as error:
        raise ValueError(f'{path}: {error}') from error


def to_rgb(image: Image.Image) -> Image.Image:
    """An image as RGB of 8 bits; Pillow alone makes grey of 16 bits white where it exceeds 255."""
    if image.mode.startswith('I'):
        values = np.asarray(image)
        scale = 257 if values.max(initial=0) > 255 else 1
        image = Image.fromarray((values // scale).clip(0, 255).astype(np.uint8))
    return image.convert('RGB')


@contextmanager
def open_image(
    source: str | Path | BinaryIO,
    formats: tuple[str, ...] | None = None,
    pixels_per_byte: int = _PIXELS_PER_BYTE,
) -> Iterator[Image.Image]:
    """Pillow's ``Image.open``, which refuses an image of too many pixels before it is decoded.

    Pillow's own limit is a setting of the whole process, and importing nuscenes, as mmdet3d does,
    switches it off; a file of 2 MB may hold 900 million pixels.

    Args:
        source: an image.
        formats: that are taken; None takes all.
        pixels_per_byte: of a file beyond 12 million pixels at most.

    Raises:
        ValueError: more pixels than that, or than ``MAX_PIXELS``.
    """
    most = MAX_PIXELS
    if isinstance(source, str | Path) and Path(source).is_file():
        most = min(most, _LARGE_PIXELS + pixels_per_byte * Path(source).stat().st_size)
    with Image.open(source, formats=formats) as image:
        if image.width * image.height > most:
            raise ValueError(
                f'is {image.height}×{image.width} pixels, more than the {most / 1e6:.3g} million '
                'that are taken of such a file'
            )
        yield image


def read_ids(path: str | Path) -> NDArray:
    """Ids of an 8- or 16-bit image (H, W), whole or not at all.

    Raises:
        FileNotFoundError: no such image.
        ValueError: damaged, cut short, or of another kind; names the file.
    """
    try:
        with open_image(path) as image:
            ids = np.asarray(image)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path}: no such image') from error
    except UNREADABLE as error:
        raise ValueError(f'{path}: not a readable image ({error})') from error
    if ids.ndim != 2 or ids.dtype.kind not in 'iu':
        raise ValueError(f'{path}: not an image of ids, but {ids.dtype} {ids.shape}')
    return ids


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) of an image file, from its header."""
    with open_image(path) as image:
        return image.height, image.width


def read_depth(
    path: str | Path, expected_size: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Depth (h, w) in metres, 0 for missing, from a 16-bit image in millimetres.

    Raises:
        OSError, ValueError: missing, damaged, of another kind or size; names the file.
    """
    try:
        with open_image(path) as image:
            _check_size(image, expected_size)
            depth = np.asarray(image)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path}: no such depth image') from error
    except UNREADABLE as error:
        raise ValueError(f'{path}: {error}') from error
    if depth.ndim != 2 or depth.dtype == np.uint8:
        raise ValueError(f'{path}: expected 16-bit depth, got {depth.dtype} {depth.shape}')
    return np.where(depth == MISSING_DEPTH, 0, depth).astype(np.float32) / np.float32(1000)


def _check_size(image: Image.Image, expected: tuple[int, int] | None) -> None:
    if expected is not None and image.size != (expected[1], expected[0]):
        raise ValueError(
            f'is {image.height}×{image.width} pixels, the infos say {expected[0]}×{expected[1]}'
        )


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB image.

    Raises:
        ValueError: Not (H, W, 3) uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f'{path}: expected (H, W, 3) uint8, got {image.shape} {image.dtype}')
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format='PNG')
