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
from PIL import Image
from scipy.spatial import cKDTree
from torch import Tensor

from oneformer3d.data.class_tables import MAX_RAW_ID, ClassTable, distinct_colors
from oneformer3d.data.posed_rgbd import PosedSequence
from oneformer3d.files.names import validate_scene_name
from oneformer3d.files.ply import read_ply
from oneformer3d.lifting import Camera

IGNORE = 255  # a pixel or point of no class
_MAX_DISTANCE = 0.1  # a pixel takes the label of a point within so many metres
_IMAGE_SUFFIXES = ('.semantic.png', '.png')

ReadLabels = Callable[[str, Camera, Tensor], tuple[Tensor, Tensor | None]]


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


def image_label_maps(sequence: PosedSequence, table: ClassTable | None) -> LabelMaps | None:
    """The ``.semantic.png`` (and ``.instance.png``) beside the colour images, None without any.

    Raises:
        ValueError: there are some, but no class table says what they mean, or not for all frames.
    """
    folder, names = sequence.folder, [frame.name for frame in sequence.frames]
    found = [(folder / f'{name}.semantic.png').is_file() for name in names]
    if not any(found):
        return None
    if not all(found):
        missing = names[found.index(False)]
        raise ValueError(f'{folder}: {found.count(False)} frames have no labels, first {missing}')
    if table is None:
        raise ValueError(f'{folder}: has label images; give the class table that they are of')

    def read(frame: str, camera: Camera, depth: Tensor) -> tuple[Tensor, Tensor | None]:
        raw = _read_ids(folder / f'{frame}.semantic.png', camera.image_size)
        semantics = _ignoring(table.contiguous_from_raw(raw), table)
        path = folder / f'{frame}.instance.png'
        if not path.is_file():
            return semantics, None
        instances = torch.from_numpy(_read_ids(path, camera.image_size).astype(np.int32))
        is_thing = torch.isin(semantics, torch.tensor(table.instance_classes, dtype=torch.uint8))
        return semantics, torch.where(is_thing & (instances > 0), instances, -1)

    return LabelMaps(read, table.classes, table.palette, table.instance_classes)


def label_maps_from(path: Path, sequence: PosedSequence, table: ClassTable | None) -> LabelMaps:
    """Labels from elsewhere.

    Args:
        path: a folder of ``<frame>.png`` or ``<frame>.semantic.png``, 8 or 16 bit: raw ids of the
            class table, or without a table the classes themselves, 255 for none; or an ``.npz`` or
            ``.ply`` of labelled points, such as the segmentor's ``predictions.npz`` and
            ``segmentation.ply``, whose classes are contiguous.
        sequence: the frames.
        table: class table; without one classes are numbered.

    Raises:
        FileNotFoundError: no such file or folder, or a frame without a label image.
        ValueError: labels that cannot be read; names the file.
    """
    if path.is_dir():
        return _folder_label_maps(path, sequence, table)
    points, semantic, instance, names = read_labelled_points(path)
    if table is not None:
        names = table.classes
    known = semantic[semantic != IGNORE]
    num_classes = len(names) or 1 + int(known.max(initial=0))
    if len(known) and not 0 <= known.min() <= known.max() < num_classes:
        raise ValueError(f'{path}: classes must be within 0…{num_classes - 1}, or {IGNORE}')
    names = tuple(names) or tuple(map(str, range(num_classes)))
    palette = distinct_colors(num_classes) if table is None else table.palette
    things = () if table is None else table.instance_classes
    return LabelMaps(point_labels_reader(points, semantic, instance), names, palette, things)


def point_labels_reader(
    points: np.ndarray,
    semantic: np.ndarray,
    instance: np.ndarray | None = None,
    max_distance: float = _MAX_DISTANCE,
) -> ReadLabels:
    """Label images by looking up each pixel's measured place among labelled points.

    Args:
        points: (N, 3) metres.
        semantic: (N,) classes, ``IGNORE`` for none.
        instance: (N,) ids, -1 for none.
        max_distance: a pixel farther from all points has no label, metres.
    """
    tree = cKDTree(points)
    semantic = np.append(semantic, IGNORE).astype(np.uint8)
    instance = None if instance is None else np.append(instance, -1).astype(np.int32)

    def read(frame: str, camera: Camera, depth: Tensor) -> tuple[Tensor, Tensor | None]:
        places = camera.unproject(depth)[depth > 0].numpy()
        _, nearest = tree.query(places, distance_upper_bound=max_distance)
        semantics = torch.full(depth.shape, IGNORE, dtype=torch.uint8)
        semantics[depth > 0] = torch.from_numpy(semantic[nearest])
        if instance is None:
            return semantics, None
        instances = torch.full(depth.shape, -1, dtype=torch.int32)
        instances[depth > 0] = torch.from_numpy(instance[nearest])
        return semantics, instances

    return read


def read_labelled_points(
    path: Path,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Points (N, 3), classes (N,), instances (N,) or None, and class names of a file, if any.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or without points and ``semantic``.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file or folder of labels')
    names: tuple[str, ...] = ()
    if path.suffix == '.ply':
        points, _, columns = read_ply(path)
    elif path.suffix == '.npz':
        try:
            with np.load(path, allow_pickle=False) as arrays:
                columns = {key: arrays[key] for key in arrays.files}
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f'{path}: not a readable .npz file ({error})') from error
        points = columns.pop('points', np.empty((0, 0)))[:, :3]
        names = tuple(map(str, columns.get('class_names', ())))
    else:
        raise ValueError(f'{path}: labels are a folder, an .npz or a .ply file')
    semantic, instance = columns.get('semantic'), columns.get('instance')
    if semantic is None or points.shape != (len(semantic), 3):
        raise ValueError(f'{path}: expected points (N, 3) and semantic (N,)')
    semantic = semantic.astype(np.int64)
    semantic = np.where((semantic < 0) | (names != () and semantic >= len(names)), IGNORE, semantic)
    return points.astype(np.float32), semantic, instance, names


def _folder_label_maps(
    folder: Path, sequence: PosedSequence, table: ClassTable | None
) -> LabelMaps:
    paths = {frame.name: _label_image(folder, frame.name) for frame in sequence.frames}
    if table is None:
        known = [ids[ids != IGNORE] for ids in (_read_ids(path) for path in paths.values())]
        num_classes = 1 + max(int(ids.max(initial=0)) for ids in known)
        names, palette, things = map(str, range(num_classes)), distinct_colors(num_classes), ()
    else:
        names, palette, things = table.classes, table.palette, table.instance_classes

    def read(frame: str, camera: Camera, depth: Tensor) -> tuple[Tensor, None]:
        ids = _read_ids(paths[frame], camera.image_size)
        if table is not None:
            return _ignoring(table.contiguous_from_raw(ids), table), None
        if ids.max() > IGNORE:
            raise ValueError(f'{paths[frame]}: class {ids.max()} is out of range, at most {IGNORE}')
        return torch.from_numpy(ids.astype(np.uint8)), None

    return LabelMaps(read, tuple(names), palette, tuple(things))


def _label_image(folder: Path, frame: str) -> Path:
    validate_scene_name(frame)
    for suffix in _IMAGE_SUFFIXES:
        if (folder / f'{frame}{suffix}').is_file():
            return folder / f'{frame}{suffix}'
    raise FileNotFoundError(f'{folder}: no label image {frame}.png')


def _read_ids(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Ids (H, W) int64 of an 8- or 16-bit image, nearest pixels where the size differs."""
    try:
        with Image.open(path) as image:
            ids = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:  # what PIL raises for broken files
        raise ValueError(f'{path}: not a readable image ({error})') from error
    if ids.ndim != 2 or ids.dtype.kind not in 'iu' or ids.min() < 0 or ids.max() > MAX_RAW_ID:
        raise ValueError(f'{path}: expected an 8- or 16-bit image of ids, got {ids.dtype}')
    if size is not None and ids.shape != tuple(size):
        rows, columns = (
            np.minimum(((np.arange(to) + 0.5) * from_ / to).astype(np.int64), from_ - 1)
            for to, from_ in zip(size, ids.shape)
        )
        ids = ids[rows[:, None], columns]
    return ids.astype(np.int64)


def _ignoring(labels: np.ndarray, table: ClassTable) -> Tensor:
    return torch.from_numpy(np.where(labels == table.ignore_index, IGNORE, labels).astype(np.uint8))


@dataclass(frozen=True, eq=False)
class ScanPoints:
    """The scan's own cloud: xyz (N, 3) float32, rgb (N, 3) uint8, semantic and instance (N,)
    int64 with ``IGNORE`` and -1 for none, or None."""

    xyz: Tensor
    rgb: Tensor
    semantic: Tensor | None = None
    instance: Tensor | None = None


def read_scan_points(root: Path, scene: str, table: ClassTable | None) -> ScanPoints | None:
    """The cloud of a scene in a data root with its labels, as far as they are there."""
    path = root / 'points' / f'{scene}.bin'
    if not path.is_file():
        return None
    points = np.fromfile(path, dtype=np.float32)
    if points.size % 6:
        raise ValueError(f'{path}: {points.size} numbers are no whole points of 6')
    points = points.reshape(-1, 6)
    labels = {}
    for folder in ('semantic_mask', 'instance_mask'):
        file = root / folder / f'{scene}.bin'
        if file.is_file():
            labels[folder] = np.fromfile(file, dtype=np.int64)
            if len(labels[folder]) != len(points):
                raise ValueError(f'{file}: {len(labels[folder])} labels of {len(points)} points')
    semantic = instance = None
    if table is not None and 'semantic_mask' in labels:
        semantic = torch.from_numpy(table.contiguous_from_raw(labels['semantic_mask']))
        semantic = torch.where(semantic == table.ignore_index, IGNORE, semantic)
        if 'instance_mask' in labels:
            instance = torch.from_numpy(labels['instance_mask'])
            is_thing = torch.isin(semantic, torch.tensor(table.instance_classes))
            instance = torch.where(is_thing & (instance > 0), instance, -1)
    xyz = torch.from_numpy(points[:, :3].copy())
    return ScanPoints(xyz, torch.from_numpy(points[:, 3:].astype(np.uint8)), semantic, instance)
