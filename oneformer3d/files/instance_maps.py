"""2D masks of objects, in any of the forms that segmenters write, as one map of ids.

Enters: an image of ids, arrays of masks, run lengths, or a folder of binary images. Leaves: an id
of each pixel (H, W) int64, 0 where no mask is. K masks.

    .png, .tif …   ids of an 8- or 16-bit image, 0 for none
    .npy           (H, W) ids, or (K, H, W) masks
    .npz           the same under the name ``masks`` or ``instance_map``
    .json          a list of {"segmentation": COCO run lengths}, as Segment Anything writes it
    a folder       one binary image for each mask, as Segment Anything's script writes it

Masks may overlap, then the smaller one lies on top: of a table and the cup on it each keeps what
shows it alone. Files of Python objects are never read.
"""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .images import MAX_PIXELS, read_ids

_NAMES = ('masks', 'instance_map')  # of arrays in a .npz
_IMAGES = ('.png', '.tif', '.tiff', '.bmp')


def read_instance_map(path: str | Path) -> NDArray[np.int64]:
    """Ids of the objects of an image (H, W), 1…K in the order of the file, 0 for none.

    An image of ids keeps its own.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, of another form, or masks of several sizes; names the file.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted((f for f in path.iterdir() if f.suffix.lower() in _IMAGES), key=_by_number)
        if not files:
            raise ValueError(f'{path}: a folder without images of masks')
        return overlaid((read_ids(file) > 0 for file in files), str(path))

    suffix = path.suffix.lower()
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such instance map')
    if suffix == '.json':
        return overlaid(_decoded(path), str(path))
    if suffix in ('.npy', '.npz'):
        array = _array_of(path)
        if array.ndim == 3 and array.dtype.kind in 'biu':
            return overlaid(iter(array > 0), str(path))
        if array.ndim == 2 and array.dtype.kind in 'iu':
            return array.astype(np.int64)
        raise ValueError(
            f'{path}: expected masks (K, H, W) or ids (H, W), got {array.dtype} {array.shape}'
        )
    return read_ids(path).astype(np.int64)


def overlaid(masks: Iterable[NDArray[np.bool_]], source: str) -> NDArray[np.int64]:
    """Masks (H, W), which may overlap → ids (H, W), 1…K; of two masks the smaller is on top.

    Args:
        masks: K bool arrays of one size, read one after another.
        source: what the masks came from, for errors.

    Raises:
        ValueError: no mask, or masks of several sizes.

    Example:
        >>> table = np.array([[True, True, True]])
        >>> overlaid([table, np.array([[False, True, False]])], 'example')
        array([[1, 2, 1]])
    """
    ids: NDArray[np.int64] | None = None
    area = np.zeros(1, np.int64)
    for number, mask in enumerate(masks, start=1):
        if ids is None:
            ids = np.zeros(mask.shape, np.int64)
        if mask.shape != ids.shape:
            raise ValueError(f'{source}: masks of several sizes, {ids.shape} and {mask.shape}')

        # a pixel is taken from no mask, or from a larger one
        area = np.append(area, np.count_nonzero(mask))
        free = (ids == 0) | (area[ids] > area[number])
        ids[mask & free] = number
    if ids is None:
        raise ValueError(f'{source}: holds no masks')
    return ids


def _by_number(file: Path) -> tuple[bool, int, str]:
    """Files 0, 1, … 10 by number, others behind them by name."""
    return (not file.stem.isdecimal(), int(file.stem) if file.stem.isdecimal() else 0, file.name)


def _array_of(path: Path) -> NDArray:
    """The array of a .npy, or the one of a .npz that holds masks."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = [name for name in _NAMES if name in loaded.files]
            if len(names) != 1:
                raise ValueError(f'expected one of {_NAMES} among {loaded.files}')
            return loaded[names[0]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path}: not a readable instance map ({error})') from error


def _decoded(path: Path) -> Iterable[NDArray[np.bool_]]:
    """The masks of Segment Anything's list, one after another."""
    try:
        records = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path}: not JSON ({error})') from error
    if not isinstance(records, list):
        raise ValueError(f'{path}: expected a list of masks, got {type(records).__name__}')

    for number, record in enumerate(records):
        found = record.get('segmentation') if isinstance(record, dict) else None
        try:
            yield _decode(found)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f'{path}: mask {number} is no run-length mask ({error})') from error


def _decode(found: object) -> NDArray[np.bool_]:
    """COCO run lengths, compressed or as a list of counts, → (H, W)."""
    if not isinstance(found, dict) or set(found) < {'size', 'counts'}:
        raise ValueError('expected {"size": [H, W], "counts": …}')
    height, width = (int(n) for n in found['size'])
    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
        raise ValueError(f'of {height}×{width} pixels')
    counts = found['counts']
    lengths = np.array(_unpacked(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f'counts of {lengths.sum()} pixels for {height}×{width}')
    inside = np.arange(len(lengths)) % 2 == 1  # begins with what is outside
    return np.repeat(inside, lengths).reshape(width, height).T  # column by column


def _unpacked(text: str) -> list[int]:
    """Run lengths of COCO's compressed text; pycocotools leaves short ones uninitialised.

    A number is given by characters of five bits, lowest first, with a bit for "goes on" and a
    sign; from the fourth on it is the difference to the one before the last.
    """
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError('not compressed run lengths')
        number |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    return lengths
