"""The posed images of one scene as a field is fitted to them; each is read when it is needed.

``folder.py`` makes such a scene of files, ``arrays.py`` of what is in memory.

Enters: cameras, names, and a function that reads one view. Leaves: ``FieldScene``, and per view its
``ViewContent``.

Letters: V views, H × W pixels of a colour image, h × w cells of a feature map, D its width,
N points, C classes, S crop scales.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from oneformer3d.lifting import Camera
from oneformer3d.store import StoreStamp

from .labelled_points import IGNORE, LabelledPoints


@dataclass(frozen=True, eq=False)
class ViewContent:
    """What one view supervises; everything at the pixels of the colour image but the features.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth: (H, W) float32 z-depth in metres, 0 for missing, or None.
        semantics: (H, W) uint8 class, ``IGNORE`` for none, or None.
        instances: (H, W) int32 instance, -1 for none, or None.
        features: by type, such as 'CLIP': (h, w, D) float16 or float32 over the whole image.
        language: S of (h, w, D), embeddings of crops at S scales (``language.py``), or None.
    """

    rgb: Tensor
    depth: Tensor | None = None
    semantics: Tensor | None = None
    instances: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)
    language: tuple[Tensor, ...] | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes in memory."""
        tensors = [self.rgb, self.depth, self.semantics, self.instances]
        tensors += [*self.features.values(), *(self.language or ())]
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


@dataclass(frozen=True, eq=False)
class FieldScene:
    """Posed images of one scene.

    Attributes:
        name: of the scene, the first part of its keys in a feature store.
        frames: V names.
        camera: V views, colour's intrinsics.
        read: view index → its content.
        has_depth: whether views have depth.
        class_names: C names, none without labels.
        palette: (C, 3) uint8.
        things: classes that have instances.
        points: the scan's cloud, or None.
        stamps: of the features, by their type.
        language_stamp: of the crop embeddings, None without.
        language_scales: S crop sides as a share of the height.
    """

    name: str
    frames: tuple[str, ...]
    camera: Camera
    read: Callable[[int], ViewContent]
    has_depth: bool

    # labels
    class_names: tuple[str, ...] = ()
    palette: np.ndarray | None = None
    things: tuple[int, ...] = ()
    points: LabelledPoints | None = None

    # features
    stamps: Mapping[str, StoreStamp] = field(default_factory=dict)
    language_stamp: StoreStamp | None = None
    language_scales: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    def view_camera(self, view: int, content: ViewContent) -> Camera:
        """The camera of one view, of the size of its own image."""
        return replace(self.camera[view], image_size=tuple(content.rgb.shape[:2]))

    def split(self, every: int) -> tuple[list[int], list[int]]:
        """Views to train on and views held out: every so many-th, from the middle of the first.

        Args:
            every: 0 holds out none; of one or two views none is held out either.
        """
        views = list(range(len(self)))
        if every < 0 or every == 1:
            raise ValueError(f'holdout_every: expected 0, or 2 and more, got {every}')
        held_out = views[every // 2 :: every] if every and len(views) > 2 else []
        return [view for view in views if view not in held_out], held_out


def check_labels(semantics: Tensor, num_classes: int, source: str) -> None:
    """ValueError for a class beyond the C there are; ``IGNORE`` is none."""
    if num_classes > IGNORE:
        raise ValueError(f'{source}: {num_classes} classes, at most {IGNORE} are possible')
    wrong = semantics[(semantics >= num_classes) & (semantics != IGNORE)]
    if len(wrong):
        raise ValueError(
            f'{source}: class {int(wrong.max())} is out of range, expected 0…{num_classes - 1} or '
            f'{IGNORE} for none'
        )
