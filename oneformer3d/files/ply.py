"""Labelled point clouds as PLY files that every 3D viewer opens.

Enters and leaves: points (N, 3) float32 in metres, colors (N, 3) uint8, labels: named per-point
columns (N,). On disk: binary little-endian PLY, one ``vertex`` element with x, y, z, red, green,
blue and one property for each label.
"""

import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import plyfile

from .atomic import atomic_path
from .errors import foreign_parser

_XYZ, _RGB = ('x', 'y', 'z'), ('red', 'green', 'blue')
_BOM = b'\xef\xbb\xbf'
_MAX_HEADER_BYTES = 1 << 16
_END_OF_HEADER = re.compile(rb'(?m)^end_header[ \t]*(\r\n|\n|\r(?!\n))')
_PROPERTY_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')


def write_ply(
    path: str | Path,
    points: np.ndarray,
    colors: np.ndarray | None = None,
    labels: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a point cloud; the file appears whole or not at all.

    Args:
        path: the file to write.
        points: (N, 3) real, metres; stored as float32.
        colors: (N, 3) uint8.
        labels: property name → (N,) integers or floats. PLY has no 64-bit types: integers are
            stored as int32, floats as float32, 8-bit and 16-bit integers as they are.

    Raises:
        ValueError: Shapes differ, a name is no PLY property name, or an integer exceeds int32.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f'{path}: expected points (N, 3), got {points.shape}')

    # one column a property, in the order of the file
    columns = {name: points[:, axis].astype('<f4') for axis, name in enumerate(_XYZ)}
    if colors is not None:
        colors = np.asarray(colors)
        if colors.shape != points.shape or colors.dtype != np.uint8:
            raise ValueError(
                f'{path}: expected colors {points.shape} uint8, got {colors.shape} {colors.dtype}'
            )

        columns |= {name: colors[:, channel] for channel, name in enumerate(_RGB)}
    for name, values in (labels or {}).items():
        if name in columns or not _PROPERTY_NAME.fullmatch(name):
            raise ValueError(f'{path}: {name!r} cannot name a label property')
        columns[name] = _storable(np.asarray(values), len(points), f'{path}: label {name!r}')

    table = np.empty(len(points), dtype=[(name, c.dtype) for name, c in columns.items()])
    for name, column in columns.items():
        table[name] = column

    element = plyfile.PlyElement.describe(table, 'vertex')
    with atomic_path(path) as temporary:
        plyfile.PlyData([element], text=False, byte_order='<').write(str(temporary))


def read_ply(path: str | Path) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
    """Read what ``write_ply`` wrote.

    Returns:
        points (N, 3) float32; colors (N, 3) uint8 or None; all other properties by name.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a PLY file with x, y, z.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such file')
    table = read_ply_vertices(path)
    names = table.dtype.names or ()
    if not set(_XYZ) <= set(names):
        raise ValueError(f'{path}: the vertices have no x, y, z')

    points = np.stack([table[name] for name in _XYZ], axis=1).astype(np.float32)
    colors = None
    if set(_RGB) <= set(names):
        colors = np.stack([table[name] for name in _RGB], axis=1).astype(np.uint8)

    drawn = {*_XYZ, *(_RGB if colors is not None else ())}
    labels = {name: np.array(table[name]) for name in names if name not in drawn}
    return points, colors, labels


def _storable(values: np.ndarray, num_points: int, name: str) -> np.ndarray:
    if values.shape != (num_points,):
        raise ValueError(f'{name}: expected shape ({num_points},), got {values.shape}')
    if values.dtype.kind == 'f':
        return values.astype('<f4')
    if values.dtype.kind == 'b':
        return values.astype(np.uint8)
    if values.dtype.kind not in 'iu':
        raise ValueError(f'{name}: expected numbers, got dtype {values.dtype}')
    if values.dtype.itemsize <= 2:
        return values

    limit = np.iinfo(np.int32)
    if len(values) and (int(values.min()) < limit.min or int(values.max()) > limit.max):
        raise ValueError(f'{name}: values beyond 32 bits')
    return values.astype('<i4')


def read_ply_vertices(path: str | Path) -> np.ndarray:
    """The vertex table of a PLY file as a structured (N,) array.

    Raises:
        ValueError: Not a PLY file, cut short, or without vertices; names the file.
    """
    with foreign_parser(path, 'PLY file'):
        source = _with_plain_header(Path(path))
        # Triangle meshes map straight to memory; other polygons take plyfile's slow way.
        try:
            ply = plyfile.PlyData.read(
                source, known_list_len={'face': {'vertex_indices': 3, 'vertex_index': 3}}
            )
        except plyfile.PlyElementParseError:
            if isinstance(source, BytesIO):
                source.seek(0)
            ply = plyfile.PlyData.read(source)

    if 'vertex' not in ply:
        raise ValueError(f'{path}: the PLY file has no element "vertex"')
    vertices = np.asarray(ply['vertex'].data)
    lists = [name for name in vertices.dtype.names or () if vertices.dtype[name].kind == 'O']
    if lists:
        raise ValueError(f'{path}: vertices with a list "{lists[0]}" cannot be read')
    return vertices


def _with_plain_header(path: Path) -> str | BytesIO:
    """The path, or the content with an ASCII header where comments, a byte-order mark or
    line ends of another system stand in the header.
    """
    with open(path, 'rb') as file:
        head = file.read(_MAX_HEADER_BYTES)
    begin = len(_BOM) if head.startswith(_BOM) else 0
    found = _END_OF_HEADER.search(head)
    if found is None:
        raise ValueError('no end_header')

    header = head[begin : found.end()]
    body_begins_with_mark = head.startswith(_BOM, found.end())
    if not begin and header.isascii() and b'\r' not in header and not body_begins_with_mark:
        return str(path)
    lines = header.decode('latin-1').replace('\r\n', '\n').replace('\r', '\n').split('\n')
    plain = '\n'.join(line for line in lines if not line.startswith(('comment', 'obj_info')))
    body = path.read_bytes()[found.end() :]
    if b'format ascii' in header:
        body = body.removeprefix(_BOM)
    return BytesIO(plain.encode('ascii', 'replace') + body)
