"""Points with classes and instances: a scan's own cloud, or somebody's labels of one.

Enters: the files of a data root, or an ``.npz`` or ``.ply`` of labelled points. Leaves:
``LabelledPoints``.

Letters: N points, C classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oneformer3d.data.class_tables import ClassTable
from oneformer3d.data.scene_files import read_labels, read_points
from oneformer3d.files.ply import read_ply

IGNORE = 255  # a pixel or point of no class


@dataclass(frozen=True, eq=False)
class LabelledPoints:
    """Points and what they are called.

    Attributes:
        xyz: (N, 3) float32 metres.
        semantic: (N,) int64 class, ``IGNORE`` for none, or None.
        instance: (N,) int64, -1 for none, or None.
        class_names: C names, none where the file gives none.
    """

    xyz: Tensor
    semantic: Tensor | None = None
    instance: Tensor | None = None
    class_names: tuple[str, ...] = ()


def read_scan_points(root: Path, scene: str, table: ClassTable | None) -> LabelledPoints | None:
    """The cloud of a scene in a data root with its labels, as far as they are there.

    Raises:
        ValueError: broken points, or another number of labels; names the file.
    """
    path = root / 'points' / f'{scene}.bin'
    if not path.is_file():
        return None
    xyz = torch.from_numpy(read_points(path)[:, :3].copy())

    raw, instance = (
        read_labels(mask, len(xyz)) if mask.is_file() else None
        for mask in (
            root / folder / f'{scene}.bin' for folder in ('semantic_mask', 'instance_mask')
        )
    )
    if table is None or raw is None:
        return LabelledPoints(xyz)
    semantic = torch.from_numpy(table.contiguous_from_raw(raw))
    semantic = torch.where(semantic == table.ignore_index, IGNORE, semantic)
    if instance is not None:
        instance = thing_instances(torch.from_numpy(instance), semantic, table)
    return LabelledPoints(xyz, semantic, instance, table.classes)


def read_labelled_points(path: str | Path) -> LabelledPoints:
    """Points with at least a class each, from an ``.npz`` or ``.ply`` file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or without points and ``semantic``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file or folder of labels')
    if path.suffix == '.ply':
        points, _, columns = read_ply(path)
    elif path.suffix == '.npz':
        columns = read_arrays(path)
        points = columns.pop('points', np.empty((0, 0)))[:, :3]
    else:
        raise ValueError(f'{path}: labels are a folder, an .npz or a .ply file')

    semantic, instance = columns.get('semantic'), columns.get('instance')
    if semantic is None or points.shape != (len(semantic), 3):
        raise ValueError(f'{path}: expected points (N, 3) and semantic (N,)')
    names = tuple(map(str, columns.get('class_names', ())))
    semantic = semantic.astype(np.int64)
    is_none = (semantic < 0) | (names != () and semantic >= len(names))
    return LabelledPoints(
        torch.from_numpy(points.astype(np.float32)),
        torch.from_numpy(np.where(is_none, IGNORE, semantic)),
        None if instance is None else torch.from_numpy(instance.astype(np.int64)),
        names,
    )


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file.

    Raises:
        ValueError: not such a file; names it.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f'{path}: not a readable .npz file ({error})') from error


def thing_instances(instances: Tensor, semantics: Tensor, table: ClassTable) -> Tensor:
    """Instances of a data root, which count from 1, of the classes that have some; -1 elsewhere."""
    is_thing = torch.isin(semantics, torch.tensor(table.instance_classes, dtype=semantics.dtype))
    return torch.where(is_thing & (instances > 0), instances, -1)
