"""Point-cloud files of any origin → one array in the package's units.

Enters: a ``.ply`` (ascii or binary, meshes too), ``.pcd`` (ascii, binary, binary_compressed),
``.npy`` (N×3 or N×6) or ``.bin`` (float32 N×6) file. Leaves: (N, 6) float32 = xyz in metres and
rgb 0–255. N points, C columns.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.logging import MMLogger

from oneformer3d.files.errors import one_line
from oneformer3d.files.pcd import read_pcd
from oneformer3d.files.ply import read_ply_vertices

GREY = 127.0  # what a point without colour gets: zero after the usual normalisation

# Float32 keeps a millimetre up to here; beyond it the file is in millimetres or geo-referenced.
MAX_COORDINATE = 8192.0

_COLOR_NAMES = (
    ('red', 'green', 'blue'),
    ('r', 'g', 'b'),
    ('diffuse_red', 'diffuse_green', 'diffuse_blue'),
)


def read_point_cloud(path: str | Path) -> np.ndarray:
    """Read a point cloud, whatever of the four formats it is in.

    Colours are taken as they are when stored as 8-bit integers and divided by 257 when stored
    as 16-bit integers. Stored as floats they are 0–255, unless no value exceeds 1: then they
    are 0–1 and are multiplied by 255. A cloud without colour becomes grey (127) with a
    warning. Points with a value that is not finite are dropped with a counted warning.

    Args:
        path: the file; its suffix names the format.

    Returns:
        (N, 6) float32: xyz in metres, rgb 0–255.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken, empty, of another format, or its values are out of
            range. The message is one line and names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f'{path}: unknown point-cloud format {path.suffix!r}, expected one of '
            f'{", ".join(sorted(_READERS))}'
        )
    xyz, rgb = reader(path)
    return merge_xyz_rgb(xyz, rgb, name=str(path))


def as_point_cloud(points: np.ndarray, name: str = 'points') -> np.ndarray:
    """Check an array of points and bring it to the package's units.

    Args:
        points: (N, 3) xyz or (N, 6) xyz + rgb, any real dtype; the same colour rule as
            ``read_point_cloud``.
        name: what the messages call it.

    Returns:
        (N, 6) float32: xyz in metres, rgb 0–255.

    Raises:
        ValueError: wrong shape or dtype, empty, or values out of range.
    """
    points = np.asarray(points)
    if points.dtype.kind not in 'fiu':
        raise ValueError(f'{name}: expected real numbers, got dtype {points.dtype}')
    if points.ndim != 2 or points.shape[1] not in (3, 6):
        raise ValueError(f'{name}: expected shape (N, 3) or (N, 6), got {points.shape}')
    return merge_xyz_rgb(points[:, :3], points[:, 3:] if points.shape[1] == 6 else None, name)


def merge_xyz_rgb(xyz: np.ndarray, rgb: np.ndarray | None, name: str) -> np.ndarray:
    """Coordinates (N, 3) and colours (N, 3) or None → checked (N, 6) float32.

    Raises:
        ValueError: nothing left, coordinates too large for float32, colours out of range.
    """
    logger = MMLogger.get_current_instance()
    if len(xyz) == 0:
        raise ValueError(f'{name}: the cloud has no points')

    finite = np.isfinite(xyz).all(axis=1)
    if rgb is not None and rgb.dtype.kind == 'f':
        finite &= np.isfinite(rgb).all(axis=1)
    num_dropped = int(len(finite) - finite.sum())
    if num_dropped == len(finite):
        raise ValueError(f'{name}: none of the {len(finite)} points is finite')
    if num_dropped:
        logger.warning(f'{name}: dropped {num_dropped} of {len(finite)} points (not finite)')
        xyz, rgb = xyz[finite], None if rgb is None else rgb[finite]

    largest = float(np.abs(xyz).max())
    if largest > MAX_COORDINATE:
        raise ValueError(
            f'{name}: coordinates reach {largest:.6g}, expected metres within '
            f'{MAX_COORDINATE:g} of the origin (scale or shift the cloud)'
        )

    points = np.empty((len(xyz), 6), dtype=np.float32)
    points[:, :3] = xyz
    if rgb is None:
        logger.warning(f'{name}: no colours, all points are taken as grey')
        points[:, 3:] = GREY
    else:
        points[:, 3:] = _colors_to_255(rgb, name)
    return points


def _colors_to_255(rgb: np.ndarray, name: str) -> np.ndarray:
    if rgb.dtype == np.uint8:
        return rgb
    if rgb.dtype == np.uint16:
        return rgb / 257.0
    low, high = float(rgb.min()), float(rgb.max())
    if low < 0 or high > 255:
        raise ValueError(
            f'{name}: colours reach from {low:g} to {high:g}, expected 0 to 255 or 0 to 1'
        )
    if rgb.dtype.kind == 'f' and high <= 1:
        return rgb * 255.0
    return rgb


def _read_bin(path: Path) -> tuple[np.ndarray, np.ndarray]:
    num_bytes = path.stat().st_size
    if num_bytes % 24:
        raise ValueError(
            f'{path}: {num_bytes} bytes are no whole number of points (float32 x 6 = 24 bytes)'
        )
    points = np.fromfile(path, dtype=np.float32).reshape(-1, 6)
    return points[:, :3], points[:, 3:]


def _read_npy(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        # Mapped, so that a header which promises more than the file holds cannot claim memory.
        points = np.load(path, mmap_mode='r', allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        raise ValueError(f'{path}: not a readable .npy array ({one_line(error)})') from error
    if not isinstance(points, np.ndarray) or points.dtype.kind not in 'fiu':
        raise ValueError(f'{path}: expected an array of real numbers')
    if points.ndim != 2 or points.shape[1] not in (3, 6):
        raise ValueError(f'{path}: expected shape (N, 3) or (N, 6), got {points.shape}')
    return points[:, :3], points[:, 3:] if points.shape[1] == 6 else None


def _read_ply(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    vertex = read_ply_vertices(path)
    names = vertex.dtype.names or ()
    missing = [name for name in 'xyz' if name not in names]
    if missing:
        raise ValueError(f'{path}: the vertices have no property {", ".join(missing)}')
    xyz = _columns(vertex, ('x', 'y', 'z'))
    for colors in _COLOR_NAMES:
        if all(name in names for name in colors):
            return xyz, _columns(vertex, colors)
    return xyz, None


def _columns(table: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    return np.stack([table[name] for name in names], axis=1)


_READERS: dict[str, Callable[[Path], tuple[np.ndarray, np.ndarray | None]]] = {
    '.bin': _read_bin,
    '.npy': _read_npy,
    '.pcd': read_pcd,
    '.ply': _read_ply,
}
