"""The surface around each point of a cloud: neighbours, local planes, averaged colour.

Enters: points (M, 3) in metres, their colours (M, 3). Leaves: ``Surfaces`` with unit normals,
points moved onto their local planes and colours averaged along them.

Letters: M points, k neighbours, B points of one chunk.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

_CHUNK = 65536  # points whose neighbourhoods are held in memory at a time
_TINY = 1e-12


class Surfaces(NamedTuple):
    """What is known of the surface at each of M points.

    Attributes:
        points: (M, 3) as measured.
        smooth: (M, 3) points moved along their normals onto their local planes.
        normals: (M, 3) unit.
        oriented: whether the normals' sign means the scanned side.
        colors: (M, 3) as measured, or None.
        mean_colors: (M, 3) averaged along the surface, or None.
    """

    points: NDArray
    smooth: NDArray
    normals: NDArray
    oriented: bool
    colors: NDArray | None
    mean_colors: NDArray | None


def local_surfaces(
    points: NDArray, neighbors: NDArray, spacing: float, colors: NDArray | None
) -> Surfaces:
    """Local plane of each point, and the mean colour of the neighbours lying on it.

    Planes are fitted to whole neighbourhoods first. Every point then takes, of its own and its
    neighbours' planes, the one that is thinnest and passes nearest to it (as the filter of
    Kuwahara et al., 1976, picks the most uniform window), so next to a corner a plane belongs to
    one side and is not the mean of both.
    """
    centres, normals, thickness = _fit_planes(points, neighbors)
    centres, normals = _pick_planes(points, neighbors, centres, normals, thickness)
    # the way along the normal onto the plane: (c − x) · n
    offset = ((centres - points) * normals).sum(1, keepdims=True)
    mean_colors = None if colors is None else np.empty_like(points)
    for chunk in _chunks(len(points)) if colors is not None else ():
        around = _with_self(neighbors, chunk)  # (B, 1 + k)
        height = ((points[around] - centres[chunk, None]) @ normals[chunk, :, None])[..., 0]

        # neighbours off the plane belong to another surface
        weights = np.exp(-((height / (0.3 * spacing)) ** 2)) + _TINY
        weights /= weights.sum(1, keepdims=True)
        if colors is not None and mean_colors is not None:
            mean_colors[chunk] = (weights[..., None] * colors[around]).sum(1)
    return Surfaces(points, points + offset * normals, normals, False, colors, mean_colors)


def normals_of_neighbors(points: NDArray, num_neighbors: int = 10) -> NDArray[np.float64]:
    """Unoriented unit normals (N, 3) of a cloud (N, 3) from robust local planes."""
    points = checked_rows('points', points, None)
    if len(points) < 3:
        return np.tile([0.0, 0.0, 1.0], (len(points), 1))
    distances, neighbors = nearest_neighbors(points, num_neighbors)
    return local_surfaces(points, neighbors, surface_spacing(distances), None).normals


def mesh_vertex_normals(vertices: NDArray, faces: NDArray) -> NDArray[np.float64]:
    """Unit vertex normals (N, 3), the area-weighted mean of the faces; zero where there is none."""
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return unit(scatter_sum(faces.reshape(-1), np.repeat(face_normals, 3, 0), len(vertices)))


def nearest_neighbors(points: NDArray, num_neighbors: int) -> tuple[NDArray, NDArray]:
    """Distances and indices (M, k) of the nearest other points."""
    count = min(num_neighbors, len(points) - 1)
    found = KDTree(points).query(points, k=count + 1, workers=-1)
    distances, indices = (np.asarray(x) for x in found)  # (M, 1 + k), the point itself first
    return distances[:, 1:], indices[:, 1:]


def surface_spacing(distances: NDArray) -> float:
    """Side of the square one point stands for: k neighbours fill a disc, ``k s^2 = pi r^2``."""
    count = distances.shape[1]
    return max(float(np.median(distances[:, -1])) * np.sqrt(np.pi / count), _TINY)


def unit(vectors: NDArray) -> NDArray[np.float64]:
    """Vectors (N, 3) scaled to length one; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)


def scatter_sum(indices: NDArray, values: NDArray, num_rows: int) -> NDArray[np.float64]:
    """Sums (num_rows, C) of the rows of ``values`` (N, C) that share an index (N,)."""
    columns = [np.bincount(indices, column, minlength=num_rows) for column in values.T]
    return np.stack(columns, axis=1, dtype=np.float64)


def checked_rows(name: str, values: NDArray, num_rows: int | None) -> NDArray[np.float64]:
    """Values as float64 (N, 3); ValueError for other shapes, row counts, NaN or infinity."""
    values = np.asarray(values)
    if values.ndim != 2 or values.shape[1] != 3 or not np.issubdtype(values.dtype, np.number):
        raise ValueError(f'{name} must be numbers (N, 3), got {values.dtype} {values.shape}')
    if num_rows is not None and len(values) != num_rows:
        raise ValueError(f'{name} must have {num_rows} rows like the points, got {len(values)}')
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f'{name} hold NaN or infinite values')
    return values


def _fit_planes(points: NDArray, neighbors: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Principal components: centre (M, 3), normal (M, 3), thickness (M,) of neighbourhoods."""
    centres, normals = np.empty_like(points), np.empty_like(points)
    thickness = np.empty(len(points))
    for chunk in _chunks(len(points)):
        around = points[_with_self(neighbors, chunk)]
        centres[chunk] = around.mean(1)
        centred = around - centres[chunk, None]
        values, vectors = np.linalg.eigh(centred.transpose(0, 2, 1) @ centred / around.shape[1])
        normals[chunk], thickness[chunk] = vectors[:, :, 0], np.sqrt(np.maximum(values[:, 0], 0))
    return centres, normals, thickness


def _pick_planes(
    points: NDArray, neighbors: NDArray, centres: NDArray, normals: NDArray, thickness: NDArray
) -> tuple[NDArray, NDArray]:
    picked = np.empty(len(points), dtype=np.int64)
    for chunk in _chunks(len(points)):
        around = _with_self(neighbors, chunk)
        height = ((points[chunk, None] - centres[around]) * normals[around]).sum(2)
        best = np.argmin(thickness[around] + np.abs(height), axis=1)
        picked[chunk] = np.take_along_axis(around, best[:, None], axis=1)[:, 0]
    return centres[picked], normals[picked]


def _with_self(neighbors: NDArray, chunk: slice) -> NDArray[np.int64]:
    """Indices (B, 1 + k) of the points of a chunk and of their neighbours."""
    return np.concatenate((np.arange(len(neighbors))[chunk, None], neighbors[chunk]), axis=1)


def _chunks(num_points: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, num_points, _CHUNK)]
