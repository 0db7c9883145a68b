"""The labels of a scene in a data root, to look at and to correct.

Enters: the point file of a scene that infos list. Leaves: ``SceneLabelFiles``, its labels as they
stand on disk; corrected ones go back to the same files, and what was there first is kept beside
them as ``<scene>.original.bin``. N points.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.names import resolve_in_root
from oneformer3d.lifting.shapes import expect_shape

from .infos import read_infos, write_infos
from .scene_files import read_labels, read_points
from .scenes import find_infos

KEPT = '.original.bin'
_FOLDERS = {'pts_semantic_mask_path': 'semantic_mask', 'pts_instance_mask_path': 'instance_mask'}


@dataclass(frozen=True, eq=False)
class SceneLabelFiles:
    """A labelled scene of a data root.

    Attributes:
        name: of the scene.
        root: the data root.
        class_table: that its infos name.
        points: (N, 6) float32.
        semantic: (N,) int64 class ids on disk.
        instance: (N,) int64 instance ids on disk.
        semantic_path, instance_path: where these labels lie.
    """

    name: str
    root: Path
    class_table: str
    points: NDArray[np.float32]
    semantic: NDArray[np.int64]
    instance: NDArray[np.int64]
    semantic_path: Path
    instance_path: Path


def find_scene_of(points_path: str | Path) -> tuple[Path, Mapping[str, Any], str | None] | None:
    """Data root, entry of the infos and class table of a point file; None if no infos list it.

    Raises:
        ValueError: broken infos.
    """
    path = Path(points_path).resolve()
    root = path.parent.parent
    if path.parent.name != 'points' or path.suffix != '.bin':
        return None
    for infos_path in find_infos(root):
        infos = read_infos(infos_path)
        for entry in infos['data_list']:
            if entry['lidar_points']['lidar_path'] == path.name:
                return root, entry, infos['metainfo'].get('dataset')
    return None


def read_scene_labels(points_path: str | Path) -> SceneLabelFiles | None:
    """The labels of a scene; None if its infos list none.

    Raises:
        FileNotFoundError: a file that the infos list is missing.
        ValueError: broken infos or files, or infos that do not say whose class ids these are.
    """
    found = find_scene_of(points_path)
    if found is None or not all(found[1].get(key) for key in _FOLDERS):
        return None
    root, entry, class_table = found
    if class_table is None:
        raise ValueError(f'{root}: the infos do not name the class table of their labels')

    points = read_points(points_path)
    semantic_path, instance_path = (
        resolve_in_root(root / folder, entry[key]) for key, folder in _FOLDERS.items()
    )
    semantic, instance = (read_labels(path, len(points)) for path in (semantic_path, instance_path))
    return SceneLabelFiles(
        entry['scene_id'],
        root,
        class_table,
        points,
        semantic,
        instance,
        semantic_path,
        instance_path,
    )


def write_scene_labels(
    labels: SceneLabelFiles, semantic: NDArray[np.int64], instance: NDArray[np.int64]
) -> SceneLabelFiles:
    """Put corrected labels in the place of those that are there, which are kept.

    The first correction of a scene keeps its files as ``<scene>.original.bin``; later ones leave
    these alone. The infos then say how many points are not as they were, and where the original
    lies (``num_corrected_points``, ``original_labels``).

    Args:
        labels: as they were read.
        semantic, instance: (N,) ids as on disk.

    Returns:
        The labels as they are now.

    Raises:
        ValueError: labels of another number of points; nothing is written.
    """
    num_points = len(labels.points)
    pairs = ((labels.semantic_path, semantic), (labels.instance_path, instance))
    for path, values in pairs:
        expect_shape(path.name, values, 'N', N=num_points)
    for path, _ in pairs:
        if not kept_path(path).is_file():
            atomic_write_bytes(kept_path(path), path.read_bytes())

    differs = np.zeros(num_points, bool)
    for path, values in pairs:
        atomic_write_bytes(path, np.ascontiguousarray(values, dtype='<i8').tobytes())
        differs |= read_labels(kept_path(path), num_points) != values
    _note(labels, int(differs.sum()))
    return replace(labels, semantic=semantic, instance=instance)


def kept_path(path: Path) -> Path:
    """Where the first labels of a file are kept."""
    return path.with_name(path.stem + KEPT)


def _note(labels: SceneLabelFiles, num_corrected: int) -> None:
    """Say in all infos that list the scene how much of its labels was corrected."""
    for path in find_infos(labels.root):
        infos = read_infos(path)
        entries = [entry for entry in infos['data_list'] if entry['scene_id'] == labels.name]
        if not entries:
            continue
        note = {
            'num_corrected_points': num_corrected,
            'original_labels': kept_path(labels.semantic_path).name,
        }
        data_list = [entry | note if entry in entries else entry for entry in infos['data_list']]
        write_infos(path, {**infos, 'data_list': data_list})
