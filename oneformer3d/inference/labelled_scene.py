"""A labelled scene of a data root, opened as what labelled it: by hand or by a generator.

Enters: the point file of a scene. Leaves: an ``OpenedScene`` whose segmentation are the labels on
disk, and back: a corrected segmentation becomes ids on disk. N points, K instances, C classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.data.class_tables import ClassTable, get_class_table
from oneformer3d.data.posed_rgbd import load_posed_rgbd
from oneformer3d.data.samples.instance_ids import contiguous_instances
from oneformer3d.data.scene_labels import SceneLabelFiles, read_scene_labels
from oneformer3d.structures import Segmentation, SegmentationInfo
from oneformer3d.structures.instances import make_instance

from .opened_scene import OpenedScene

NO_INSTANCE = 0  # on disk


@dataclass(frozen=True, eq=False)
class LabelledScene:
    """A scene with its labels: as it is looked at, as they stand on disk, and whose they are."""

    opened: OpenedScene
    files: SceneLabelFiles
    table: ClassTable


def open_labelled_scene(points_path: str | Path) -> LabelledScene | None:
    """Open a scene of a data root with its labels, and its posed images where they lie there.

    Args:
        points_path: ``points/<scene>.bin`` of a data root.

    Returns:
        None where the file is not a labelled scene of a data root.

    Raises:
        FileNotFoundError, ValueError: as ``read_scene_labels``, ``get_class_table`` and
            ``load_posed_rgbd``.
    """
    files = read_scene_labels(points_path)
    if files is None:
        return None
    table = get_class_table(files.class_table)
    result, doubts = segmentation_of_labels(files, table)

    images = files.root / 'posed_images' / files.name
    recording = load_posed_rgbd(images) if images.is_dir() else None
    opened = OpenedScene(
        str(points_path),
        files.points,
        np.eye(3, dtype=np.float32),
        np.zeros(3),
        recording,
        result,
        doubts,
        str(points_path),
    )
    return LabelledScene(opened, files, table)


def segmentation_of_labels(
    files: SceneLabelFiles, table: ClassTable
) -> tuple[Segmentation, tuple[str, ...]]:
    """Labels on disk as a segmentation (unlabeled points have class C), and what is odd in them."""
    semantic = table.contiguous_from_raw(files.semantic)  # (N,) 0…C
    instance, doubts = contiguous_instances(files.instance, semantic, table, files.instance_path)

    instances = []
    for row in range(int(instance.max(initial=-1)) + 1):
        members = np.flatnonzero(instance == row)
        label = int(np.bincount(semantic[members]).argmax())
        made = make_instance(table.classes[label], label, 1.0, members, files.points[:, :3])
        instances.append(made)

    # things stand above all classes, so that no two segments share a number
    is_stuff = np.isin(semantic, table.stuff)
    panoptic = np.where(instance >= 0, table.num_classes + instance, -1)
    panoptic = np.where(is_stuff, semantic, panoptic)  # (N,)
    result = Segmentation(
        files.points,
        semantic,
        panoptic,
        semantic,
        tuple(instances),
        table.classes,
        table.raw_ids,
        table.palette,
        np.eye(3, dtype=np.float32),
        SegmentationInfo(source=str(files.root / 'points' / f'{files.name}.bin')),
    )
    return result, doubts


def ids_on_disk(
    labelled: LabelledScene, result: Segmentation
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Class and instance ids of a corrected segmentation; what was not touched keeps its own.

    Args:
        labelled: as it was opened.
        result: the same points, corrected.

    Returns:
        (N,) class ids, 0 for none, and (N,) instance ids, 0 for none.
    """
    before, files = labelled.opened.segmentation, labelled.files
    if before is None:
        raise ValueError(f'{files.name}: was opened without its labels')
    class_ids = labelled.table.raw_from_contiguous(result.semantic)
    semantic = np.where(result.semantic == before.semantic, files.semantic, class_ids)

    # an object keeps the id that most of its points have, unless another has it already
    instance = np.where(before.instance >= 0, NO_INSTANCE, files.instance)
    taken = {NO_INSTANCE}
    for row in range(len(result.instances)):
        mine = result.instance == row  # (N,)
        ids, counts = np.unique(files.instance[mine], return_counts=True)
        if not len(ids):
            continue
        kept = int(ids[counts.argmax()])
        if kept in taken:
            kept = max(*taken, int(files.instance.max())) + 1
        taken.add(kept)
        instance[mine] = kept
    return semantic, instance
