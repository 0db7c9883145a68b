"""PLY and PCD files, and meshes, whose surface is sampled.

Enters: a ``.ply``, ``.pcd``, ``.glb``, ``.gltf``, ``.obj``, ``.stl`` or ``.off`` file. Leaves: a
``CloudFile``.
"""

from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from trimesh.sample import sample_surface
from trimesh.visual import TextureVisuals

from oneformer3d.files.errors import foreign_parser
from oneformer3d.files.pcd import read_pcd
from oneformer3d.files.ply import read_ply_vertices

from .record import CloudFile, find_colors, find_columns, stack

MESH_SUFFIXES = ('.glb', '.gltf', '.obj', '.stl', '.off')
_SAMPLES_PER_AREA = 1 / 0.02**2  # a point for each 2 × 2 cm
_MAX_SAMPLES = 500_000
_MIN_SAMPLES = 1000
_SEED = 0
# The constant term of spherical harmonics, 1 / (2 √π): colours of Gaussian splats.
_Y00 = 0.28209479177387814
_SPLAT_COLORS = ('f_dc_0', 'f_dc_1', 'f_dc_2')


def read_ply_cloud(path: Path) -> CloudFile:
    """The vertices of a PLY file, of meshes and Gaussian splats too.

    Raises:
        ValueError: not a readable PLY file with x, y and z.
    """
    vertex = read_ply_vertices(path)
    names = vertex.dtype.names or ()
    xyz = find_columns(names, ('x', 'y', 'z'))
    if xyz is None:
        missing = [name for name in 'xyz' if find_columns(names, (name,)) is None]
        raise ValueError(f'{path}: the vertices have no property {", ".join(missing)}')

    colors, splats = find_colors(names), find_columns(names, _SPLAT_COLORS)
    if colors is None and splats is not None:
        # rgb = ½ + Y₀₀ f
        rgb = (0.5 + _Y00 * stack(vertex, splats)).clip(0, 1)
        note = 'these are Gaussian splats: their centres and mean colours were taken'
        return CloudFile(stack(vertex, xyz), rgb, 'a PLY file of Gaussian splats', (note,))
    rgb = None if colors is None else stack(vertex, colors)
    return CloudFile(stack(vertex, xyz), rgb, 'a PLY file')


def read_pcd_cloud(path: Path) -> CloudFile:
    """The points of a PCD file; raises ValueError as ``read_pcd``."""
    xyz, rgb = read_pcd(path)
    return CloudFile(xyz, rgb, 'a PCD file')


def read_mesh(path: Path) -> CloudFile:
    """Points drawn evenly from the surface of a mesh, the same ones each time.

    Raises:
        ValueError: not a readable mesh, or one without a surface.
    """
    with foreign_parser(path, 'mesh'):
        mesh = trimesh.load_scene(path).to_mesh()
        has_surface = len(mesh.faces) > 0 and np.isfinite(mesh.area) and mesh.area > 0
    if not has_surface:
        raise ValueError(f'{path}: the mesh has no surface')

    count = int(np.clip(mesh.area * _SAMPLES_PER_AREA, _MIN_SAMPLES, _MAX_SAMPLES))
    xyz, face, *_ = sample_surface(mesh, count, seed=_SEED)
    # glTF defines y as up, the others nothing
    up = 'y' if path.suffix.lower() in ('.glb', '.gltf') else None
    note = f'{count} points were drawn from the surface of {len(mesh.faces)} triangles'
    return CloudFile(xyz, _mesh_colors(mesh, xyz, face), 'a mesh', (note,), up)


def _mesh_colors(
    mesh: trimesh.Trimesh, xyz: NDArray[np.float64], face: NDArray[np.int64]
) -> NDArray[np.uint8] | None:
    """(N, 3) colours of points on a mesh's faces, None where it has none."""
    visual = mesh.visual
    if isinstance(visual, TextureVisuals):
        if visual.uv is None or visual.material is None:
            return None
        visual = visual.to_color()
    elif visual is None or visual.kind not in ('vertex', 'face'):
        return None
    elif visual.kind == 'face':
        return np.asarray(visual.face_colors)[face, :3]
    colors = np.asarray(visual.vertex_colors)[mesh.faces[face]]  # (N, 3, 4)

    weights = trimesh.triangles.points_to_barycentric(mesh.triangles[face], xyz)  # (N, 3)
    blended = np.einsum('nv,nvc->nc', weights, colors[..., :3].astype(np.float64))
    return blended.round().clip(0, 255).astype(np.uint8)
