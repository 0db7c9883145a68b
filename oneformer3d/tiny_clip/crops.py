"""Crops and captions of posed images, for training a small CLIP.

Enters: a data root whose images have ``<frame>.semantic.png`` and ``<frame>.instance.png`` (the
synthetic rooms). Leaves: ``Regions``, the instances (and pieces of wall, floor, …) seen in each
image, and batches of square crops around them.

Letters: I images, R regions, K pixels kept per region, B crops of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from oneformer3d.data.class_tables import ClassTable, get_class_table
from oneformer3d.data.scenes import read_scenes
from oneformer3d.files.images import image_size, read_ids, read_image

NUM_PIXELS = 32
CLASS_SHARE = 0.4  # of a crop that its caption should be about, at least
_DRAWS = 6  # of a window, until its class has its share
_SKIP = 3  # pixels between those that are counted
_LEAST_SIDE, _MOST_SIDE = 32, 240  # of a crop, in pixels of the image


@dataclass(frozen=True)
class Regions:
    """What is to be seen in a set of images.

    Attributes:
        images: (I, H, W, 3) uint8 RGB.
        labels: (I, H, W) uint8 contiguous class of each pixel.
        image: (R,) row of ``images``.
        label: (R,) contiguous class.
        box: (R, 4) left, top, right, bottom in pixels, the last two exclusive.
        pixels: (R, K, 2) x, y of random pixels of the region.
        table: the classes.
    """

    images: np.ndarray
    labels: np.ndarray
    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    pixels: np.ndarray
    table: ClassTable

    def __len__(self) -> int:
        return len(self.label)


def read_regions(
    root: str | Path,
    split: str,
    max_images: int | None = None,
    min_pixels: int = 150,
    seed: int = 0,
) -> Regions:
    """Read the images of a split and list what is in them.

    Args:
        root: data root with ``oneformer3d_infos_<split>.json`` and ``posed_images/``.
        split: 'train' or 'val'.
        max_images: evenly spread over the split; None for all.
        min_pixels: of a region, fewer are left out.
        seed: of the pixels.

    Raises:
        FileNotFoundError: no infos, image or label image.
        ValueError: images of different sizes, or none.
    """
    scenes = read_scenes(root, split)
    frames = [frame for scene in scenes.values() for frame in scene.frames]
    if not frames:
        raise ValueError(f'{root}: the scenes of {split} have no images')

    named = frames[0].scene.class_table
    if named is None:
        raise ValueError(f'{root}: its infos do not say which class table the labels are of')
    table = get_class_table(named)
    if max_images is not None and len(frames) > max_images:
        frames = [frames[k] for k in np.linspace(0, len(frames) - 1, max_images).astype(int)]

    rng = np.random.default_rng(seed)
    images, labels, rows = [], [], []
    for frame in frames:
        color = read_image(frame.image_path, image_size(frame.image_path))
        semantic = read_ids(frame.label_path('.semantic.png'))
        instance = read_ids(frame.label_path('.instance.png'))
        if images and color.shape != images[0].shape:
            raise ValueError(
                f'{frame.image_path}: size {color.shape}, the others {images[0].shape}'
            )

        classes = table.contiguous_from_raw(semantic.astype(np.int64))
        rows += [
            (len(images), *region)
            for region in image_regions(classes, instance, table, min_pixels, rng)
        ]
        images.append(color)
        labels.append(classes.astype(np.uint8))
    if not rows:
        raise ValueError(f'{root}: the images of {split} show no region of {min_pixels} pixels')

    image, label, box, pixels = zip(*rows)
    return Regions(
        np.stack(images),
        np.stack(labels),
        np.array(image),
        np.array(label),
        np.stack(box),
        np.stack(pixels),
        table,
    )


def image_regions(
    labels: np.ndarray,
    instance: np.ndarray,
    table: ClassTable,
    min_pixels: int,
    rng: np.random.Generator,
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Instances, and stuff classes as one region each.

    Args:
        labels: (H, W) contiguous classes, C = unlabeled.
        instance: (H, W), 0 = none.
        table: the classes.
        min_pixels: of a region.
        rng: draws the pixels.

    Returns:
        Per region its class, box (4,) and pixels (K, 2).
    """
    # one id a region: instances as they are, stuff classes below zero, nothing where unlabeled
    num_classes = len(table.classes)
    is_stuff = np.isin(labels, table.stuff)
    region_ids = np.where(is_stuff, -1 - labels, instance.astype(np.int64))  # (H, W)
    region_ids[labels == num_classes] = 0

    regions = []
    for region_id in np.unique(region_ids[region_ids != 0]):
        ys, xs = np.nonzero(region_ids == region_id)
        if len(xs) < min_pixels:
            continue
        chosen = rng.integers(len(xs), size=NUM_PIXELS)
        label = int(np.bincount(labels[ys, xs]).argmax())
        box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        regions.append((label, box, np.stack([xs[chosen], ys[chosen]], axis=1)))
    return regions


def object_windows(
    regions: Regions, indices: np.ndarray, context: float = 1.1
) -> tuple[np.ndarray, np.ndarray]:
    """Square windows of the boxes' size, where most of the region is.

    Args:
        regions: R regions.
        indices: (B,) of them.
        context: side of the window in units of √(width · height) of the box.

    Returns:
        Windows (B, 3) left, top, side, and the share (B,) of each that has the region's class.
        Of the box's centre and some of the region's pixels the best centre is taken.
    """
    box = regions.box[indices].astype(float)
    side = context * np.sqrt((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]))
    windows = _inside(regions, (box[:, :2] + box[:, 2:]) / 2, side)
    share = class_share(regions, indices, windows)
    for pixel in range(8):
        others = _inside(regions, regions.pixels[indices, pixel], side)
        windows, share = _better(windows, share, others, class_share(regions, indices, others))
    return windows, share


def random_windows(
    regions: Regions, indices: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Square windows for training: objects of any scale, and pieces at the scale of whole images.

    Of things three quarters are of the box's size. The others, and stuff, are so scaled that an
    image of 320 pixels width would become 220 to 640: the scales at which whole images are
    encoded, where a tower must see what it has learnt on crops. A caption should be about what
    fills the crop: windows are drawn again where the class has less than its share.

    Args:
        regions: R regions.
        indices: (B,) of them.
        size: side of the crop after scaling.
        rng: source of randomness.

    Returns:
        (B, 3) left, top, side in pixels, inside the image.
    """
    windows = _draw_windows(regions, indices, size, rng)
    share = class_share(regions, indices, windows)
    for _ in range(_DRAWS - 1):
        again = np.flatnonzero(share < CLASS_SHARE)
        if not len(again):
            break
        others = _draw_windows(regions, indices[again], size, rng)
        other_share = class_share(regions, indices[again], others)
        windows[again], share[again] = _better(windows[again], share[again], others, other_share)
    return windows


def anywhere(regions: Regions, count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Windows (count, 3) of whatever is there, at the scales of ``random_windows``."""
    height, width = regions.images.shape[1:3]
    center = rng.random((count, 2)) * (width, height)
    scale = np.exp(rng.uniform(np.log(220 / width), np.log(640 / width), count))
    return _inside(regions, center, size / scale)


def class_share(regions: Regions, indices: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Share (B,) of the pixels of windows (B, 3) that have the class of the region."""
    share = np.empty(len(indices))
    for row, (index, (left, top, side)) in enumerate(zip(indices, windows)):
        labels = regions.labels[regions.image[index]]
        piece = labels[top : top + side : _SKIP, left : left + side : _SKIP]
        share[row] = (piece == regions.label[index]).mean()
    return share


def _draw_windows(
    regions: Regions, indices: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    count = len(indices)
    box = regions.box[indices].astype(float)
    extent = np.sqrt((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]))
    is_stuff = np.isin(regions.label[indices], regions.table.stuff)
    near = is_stuff | (rng.random(count) < 0.25)
    on_pixel = near | (rng.random(count) < 0.5)
    pixel = regions.pixels[indices, rng.integers(regions.pixels.shape[1], size=count)]
    jitter = (rng.random((count, 2)) - 0.5) * 0.3 * extent[:, None]
    center = np.where(on_pixel[:, None], pixel, (box[:, :2] + box[:, 2:]) / 2 + jitter)
    width = regions.images.shape[2]
    scale = np.exp(rng.uniform(np.log(220 / width), np.log(640 / width), count))
    side = np.where(near, size / scale, extent * rng.uniform(0.7, 1.4, count))
    return _inside(regions, center, side)


def _better(
    windows: np.ndarray, share: np.ndarray, others: np.ndarray, other_share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.where((other_share > share)[:, None], others, windows),
        np.maximum(share, other_share),
    )


def cut_crops(regions: Regions, indices: np.ndarray, windows: np.ndarray, size: int) -> np.ndarray:
    """Crops (B, size, size, 3) uint8 of the regions' images."""
    crops = np.empty((len(indices), size, size, 3), dtype=np.uint8)
    for row, (index, (left, top, side)) in enumerate(zip(indices, windows)):
        piece = regions.images[regions.image[index], top : top + side, left : left + side]
        shrink = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
        crops[row] = cv2.resize(piece, (size, size), interpolation=shrink)
    return crops


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Sampling probability (R,) of regions: classes by the square root of their number."""
    count = np.bincount(labels, minlength=num_classes)
    weight = 1 / np.sqrt(count[labels])
    return weight / weight.sum()


def augment(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror half of the crops and change colours: gains per channel and a common brightness.

    Args:
        crops: (B, h, w, 3) uint8.
        rng: source of randomness.

    Returns:
        (B, h, w, 3) float32 in 0–1.
    """
    count = len(crops)
    mirrored = np.where((rng.random(count) < 0.5)[:, None, None, None], crops[:, :, ::-1], crops)
    gain = rng.uniform(0.75, 1.25, (count, 1, 1, 3)) * rng.uniform(0.8, 1.2, (count, 1, 1, 1))
    return np.clip(mirrored / 255.0 * gain, 0, 1).astype(np.float32)


def _inside(regions: Regions, center: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Whole-pixel windows moved into the image; a side longer than the image is cut."""
    height, width = regions.images.shape[1:3]
    most = min(_MOST_SIDE, height, width)
    side = np.clip(side, min(_LEAST_SIDE, most), most).astype(int)
    corner = np.round(center - side[:, None] / 2).astype(int)
    left = np.clip(corner[:, 0], 0, width - side)
    top = np.clip(corner[:, 1], 0, height - side)
    return np.stack([left, top, side], axis=1)


def class_names(table: ClassTable) -> Sequence[str]:
    """Names as they are written in captions."""
    return [name.replace('_', ' ') for name in table.classes]
