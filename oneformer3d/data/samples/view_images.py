"""Images of a scene with the class of every pixel, for training a network on pictures alone.

Enters: ``results`` with ``scene`` and ``class_table``, as the dataset leaves them. Leaves, packed:
``inputs = dict(points=(0, 6), view_images=(V, 3, H, W) uint8, view_labels=(V, H, W) int64 in
0…C)`` and an empty data sample; points are not read.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample

from oneformer3d.files.images import read_ids, read_image
from oneformer3d.registry import TRANSFORMS

from ..class_tables import ClassTable, get_class_table
from ..scenes import Frame, Scene
from .view_selection import evenly_spread
from .views import image_sides

SELECTIONS = ('random', 'even', 'first')


@TRANSFORMS.register_module()
class LoadViewImages:
    """Load some images of a scene with their classes.

    Args:
        num_views: at most so many, None for all.
        select: 'random', 'even' or 'first'.
        suffix: ending of the pictures of class ids beside the images.
        flip: how often an image is mirrored.
        image_size: (H, W) that images are squashed to, classes by nearest pixel; None keeps
            their size.
        crop: (H, W) of a random window that is cut from each image; None takes all of it. Many
            small crops teach more than few whole images of as many pixels.

    Raises:
        ValueError: an unknown setting; a scene without images; a picture of another size or
            kind than expected; a crop that does not fit in the images.
        FileNotFoundError: a missing image or picture of classes.
    """

    def __init__(
        self,
        num_views: int | None = None,
        select: str = 'random',
        suffix: str = '.semantic.png',
        flip: float = 0.5,
        image_size: Sequence[int] | None = None,
        crop: Sequence[int] | None = None,
    ) -> None:
        if select not in SELECTIONS:
            raise ValueError(f'select: expected one of {SELECTIONS}, got {select!r}')
        if num_views is not None and num_views < 1:
            raise ValueError(f'num_views must be positive, got {num_views}')
        if not 0 <= flip <= 1:
            raise ValueError(f'flip must be within 0…1, got {flip}')
        self.num_views = num_views
        self.select = select
        self.suffix = suffix
        self.flip = flip
        self.image_size = None if image_size is None else image_sides(image_size)
        self.crop = None if crop is None else tuple(crop)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with ``view_images`` and ``view_labels``."""
        scene: Scene = results['scene']
        if not scene.frames:
            raise ValueError(f'{scene.name}: has no images')
        size = self.image_size or scene.image_size
        if self.crop is not None and not (
            0 < self.crop[0] <= size[0] and 0 < self.crop[1] <= size[1]
        ):
            raise ValueError(f'crop {self.crop} does not fit in images of {size}')

        table = get_class_table(results['class_table'])
        drawn = [
            self._read(scene.frames[index], size, table) for index in self._draw(len(scene.frames))
        ]
        images, labels = (np.stack(arrays) for arrays in zip(*drawn))
        return {**results, 'view_images': images.transpose(0, 3, 1, 2), 'view_labels': labels}

    def _draw(self, num_images: int) -> np.ndarray:
        """Rows of the images to take."""
        count = num_images if self.num_views is None else min(self.num_views, num_images)
        if self.select == 'random':
            return np.sort(np.random.choice(num_images, count, replace=False))
        if self.select == 'even':
            return evenly_spread(num_images, count)
        return np.arange(count)

    def _read(
        self, frame: Frame, size: tuple[int, int], table: ClassTable
    ) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and labels (H, W) of a frame: resized, mirrored and cropped alike."""
        full_size = frame.scene.image_size
        image = read_image(frame.image_path, size, full_size)
        labels = self._read_labels(frame, table)
        if size != full_size:
            labels = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST)

        if self.flip and np.random.rand() < self.flip:
            image, labels = image[:, ::-1], labels[:, ::-1]
        if self.crop is not None:
            top, left = (np.random.randint(a - b + 1) for a, b in zip(size, self.crop))
            window = np.s_[top : top + self.crop[0], left : left + self.crop[1]]
            image, labels = image[window], labels[window]
        return image, labels

    def _read_labels(self, frame: Frame, table: ClassTable) -> np.ndarray:
        """(H, W) int16 labels 0…C."""
        path, size = frame.label_path(self.suffix), frame.scene.image_size
        ids = read_ids(path)
        if ids.shape != size:
            raise ValueError(f'{path}: expected class ids {size}, got {ids.dtype} {ids.shape}')
        return table.contiguous_from_raw(ids.astype(np.int64)).astype(np.int16)


@TRANSFORMS.register_module()
class PackViewImages:
    """Pack images and classes of pixels; there are no points."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return the sample."""
        images = np.ascontiguousarray(results['view_images'])
        labels = np.ascontiguousarray(results['view_labels'], dtype=np.int64)
        return {
            'inputs': {
                'points': torch.zeros(0, 6),
                'view_images': torch.from_numpy(images),
                'view_labels': torch.from_numpy(labels),
            },
            'data_samples': Det3DDataSample(metainfo={'scene_id': results.get('scene_id', '')}),
        }
