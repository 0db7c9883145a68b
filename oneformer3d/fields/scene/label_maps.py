"""Class and instance images of a scene's views, whoever made them.

Enters: label images beside the colour images (ground truth), a folder of label images, or labelled
points (a segmentor's prediction, an annotated scan). Leaves: ``LabelMaps``, which reads one view's
semantics (H, W) uint8 and instances (H, W) int32 at the pixels of its camera.

Letters: H × W pixels, N points, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from oneformer3d.data.class_tables import MAX_RAW_ID, ClassTable, distinct_colors
from oneformer3d.data.posed_rgbd import PosedFolder
from oneformer3d.files.images import open_image
from oneformer3d.files.names import validate_scene_name
from oneformer3d.lifting import Camera
from oneformer3d.lifting.visibility import nearest_pixel

from .labelled_points import IGNORE, LabelledPoints, read_labelled_points, thing_instances

_MAX_DISTANCE = 0.1  # a pixel takes the label of a point within so many metres
_IMAGE_SUFFIXES = ('.semantic.png', '.png')

ReadLabels = Callable[[str, Camera, Tensor | None], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """Label images of a scene.

    Attributes:
        read: frame name, its camera, its depth (H, W) → semantics (H, W) uint8 and instances
            (H, W) int32 or None.
        class_names: C names.
        palette: (C, 3) uint8.
        things: classes with instances.
    """

    read: ReadLabels
    class_names: tuple[str, ...]
    palette: np.ndarray
    things: tuple[int, ...] = ()


def read_label_maps(
    labels: str | Path, sequence: PosedFolder, table: ClassTable | None
) -> LabelMaps | None:
    """Labels from wherever they are.

    Args:
        labels: 'none'; 'auto' for the ``.semantic.png`` (and ``.instance.png``) beside the colour
            images, if there are any; a folder of ``<frame>.png`` or ``<frame>.semantic.png``, 8 or
            16 bit: raw ids of the class table, or without a table the classes themselves, 255 for
            none; or an ``.npz`` or ``.ply`` of labelled points, such as the segmentor's
            ``predictions.npz`` and ``segmentation.ply``, whose classes are contiguous.
        sequence: the frames.
        table: class table; without one classes are numbered.

    Raises:
        FileNotFoundError: no such file or folder, or a frame without a label image.
        ValueError: labels that cannot be read, or label images whose class table is not known;
            names the file.
    """
    if str(labels) == 'none':
        return None
    if str(labels) == 'auto':
        return _maps_beside_images(sequence, table)
    if Path(labels).is_dir():
        return _maps_of_folder(Path(labels), sequence, table)
    return _maps_of_points(Path(labels), table)


def point_labels_reader(points: LabelledPoints, max_distance: float = _MAX_DISTANCE) -> ReadLabels:
    """Label images by looking up the measured position of each pixel among labelled points.

    Args:
        points: with classes.
        max_distance: a pixel farther from all points has no label, metres.
    """
    if points.semantic is None:
        raise ValueError('the points have no classes')
    tree = KDTree(points.xyz.numpy())
    # row N is what the tree gives pixels without a near point
    semantic = torch.cat((points.semantic, torch.tensor([IGNORE]))).to(torch.uint8)
    instance = points.instance
    if instance is not None:
        instance = torch.cat((instance, torch.tensor([-1]))).to(torch.int32)

    def read(frame: str, camera: Camera, depth: Tensor | None) -> tuple[Tensor, Tensor | None]:
        semantics = torch.full(camera.image_size, IGNORE, dtype=torch.uint8)
        instances = torch.full(camera.image_size, -1, dtype=torch.int32)
        if depth is not None:  # without it no pixel has a position
            measured = depth > 0
            positions = camera.unproject(depth)[measured].numpy()
            _, rows = tree.query(positions, distance_upper_bound=max_distance)
            nearest = torch.from_numpy(np.asarray(rows))
            semantics[measured] = semantic[nearest]
            if instance is not None:
                instances[measured] = instance[nearest]
        return semantics, None if instance is None else instances

    return read


def _maps_beside_images(sequence: PosedFolder, table: ClassTable | None) -> LabelMaps | None:
    folder, names = sequence.folder, [frame.name for frame in sequence.frames]
    missing = [name for name in names if not (folder / f'{name}.semantic.png').is_file()]
    if len(missing) == len(names):
        return None
    if missing:
        raise ValueError(f'{folder}: {len(missing)} frames have no labels, first {missing[0]}')
    if table is None:
        raise ValueError(f'{folder}: has label images; give the class table that they are of')

    def read(frame: str, camera: Camera, depth: Tensor | None) -> tuple[Tensor, Tensor | None]:
        semantics = _contiguous(
            _read_ids(folder / f'{frame}.semantic.png', camera.image_size), table
        )
        path = folder / f'{frame}.instance.png'
        if not path.is_file():
            return semantics, None
        instances = torch.from_numpy(_read_ids(path, camera.image_size).astype(np.int32))
        return semantics, thing_instances(instances, semantics, table)

    return _named(read, table)


def _maps_of_folder(folder: Path, sequence: PosedFolder, table: ClassTable | None) -> LabelMaps:
    paths = {frame.name: _label_image(folder, frame.name) for frame in sequence.frames}
    num_classes = 0
    if table is None:
        known = [ids[ids != IGNORE] for ids in map(_read_ids, paths.values())]
        num_classes = 1 + max(int(ids.max(initial=0)) for ids in known)

    def read(frame: str, camera: Camera, depth: Tensor | None) -> tuple[Tensor, None]:
        ids = _read_ids(paths[frame], camera.image_size)
        if table is not None:
            return _contiguous(ids, table), None
        if ids.max() > IGNORE:
            raise ValueError(f'{paths[frame]}: class {ids.max()} is out of range, at most {IGNORE}')
        return torch.from_numpy(ids.astype(np.uint8)), None

    return _named(read, table, tuple(map(str, range(num_classes))))


def _maps_of_points(path: Path, table: ClassTable | None) -> LabelMaps:
    points = read_labelled_points(path)
    if points.semantic is None:
        raise ValueError(f'{path}: its points have no classes')
    known = points.semantic[points.semantic != IGNORE]
    largest = int(known.max()) if len(known) else 0
    names = points.class_names if table is None else table.classes
    names = names or tuple(map(str, range(largest + 1)))
    if largest >= len(names):
        raise ValueError(f'{path}: classes must be within 0…{len(names) - 1}, or {IGNORE}')
    return _named(point_labels_reader(points), table, names)


def _named(read: ReadLabels, table: ClassTable | None, names: tuple[str, ...] = ()) -> LabelMaps:
    """Label maps of a class table, or without one of the given names."""
    if table is None:
        return LabelMaps(read, names, distinct_colors(len(names)))
    return LabelMaps(read, table.classes, table.palette, table.instance_classes)


def _label_image(folder: Path, frame: str) -> Path:
    validate_scene_name(frame)
    for suffix in _IMAGE_SUFFIXES:
        if (folder / f'{frame}{suffix}').is_file():
            return folder / f'{frame}{suffix}'
    raise FileNotFoundError(f'{folder}: no label image {frame}.png')


def _read_ids(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Ids (H, W) int64 of an 8- or 16-bit image, nearest pixels where the size differs."""
    try:
        with open_image(path) as image:
            ids = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:  # what PIL raises for broken files
        raise ValueError(f'{path}: not a readable image ({error})') from error
    if ids.ndim != 2 or ids.dtype.kind not in 'iu' or ids.min() < 0 or ids.max() > MAX_RAW_ID:
        raise ValueError(f'{path}: expected an 8- or 16-bit image of ids, got {ids.dtype}')

    ids = ids.astype(np.int64)
    if size is None or ids.shape == tuple(size):
        return ids

    rows, columns = (torch.arange(length, dtype=torch.float64) for length in size)
    v, u = torch.meshgrid(rows, columns, indexing='ij')  # (H, W)
    return nearest_pixel(torch.from_numpy(ids), u.flatten(), v.flatten(), size).view(size).numpy()


def _contiguous(raw: np.ndarray, table: ClassTable) -> Tensor:
    """Classes (H, W) uint8 of raw ids, ``IGNORE`` for what the table does not know."""
    labels = table.contiguous_from_raw(raw)
    labels = np.where(labels == table.ignore_index, IGNORE, labels)
    return torch.from_numpy(labels.astype(np.uint8))
