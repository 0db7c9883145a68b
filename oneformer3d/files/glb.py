"""Coloured points as a GLB file that browsers and 3D programs open.

Enters: named parts, each points (n, 3) in metres with z up and colors (n, 3) uint8. Leaves: a
binary glTF 2.0 file, one node a part; glTF's y is up, so (x, y, z) is stored as (x, z, −y).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import trimesh

from .atomic import atomic_write_bytes

_GLTF_FROM_Z_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=np.float32)


def write_glb(path: str | Path, parts: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write the parts; the file appears whole or not at all.

    Args:
        path: the file to write.
        parts: name of a node → points (n, 3) and colors (n, 3) uint8; parts without points are
            left out.

    Raises:
        ValueError: nothing to write.
    """
    scene = trimesh.Scene()
    for name, (points, colors) in parts.items():
        if len(points):
            cloud = trimesh.PointCloud(points @ _GLTF_FROM_Z_UP.T, colors=colors)
            scene.add_geometry(cloud, node_name=name, geom_name=name)

    if not scene.geometry:
        raise ValueError(f'{path}: there are no points to write')
    content = scene.export(file_type='glb')
    assert isinstance(content, bytes)
    atomic_write_bytes(path, content)
