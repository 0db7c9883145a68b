"""The scan's own cloud with its labels, where a scene's folder stands in a data root.

In: files in the layout of docs/data.md. Out: `ScanPoints`. Letters: N points.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oneformer3d.data.class_tables import ClassTable

from .label_maps import IGNORE


@dataclass(frozen=True, eq=False)
class ScanPoints:
    """The scan's own cloud: xyz (N, 3) float32, rgb (N, 3) uint8, semantic and instance (N,)
    int64 with `IGNORE` and -1 for none, or None."""

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
