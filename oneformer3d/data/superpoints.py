"""Superpoints: over-segmentation of a point cloud or mesh into small homogeneous patches.

Enters: points (N, 3) in metres, optional colours (N, 3) in 0-255; or vertices (N, 3) and faces
(F, 3). Leaves: superpoint ids (N,) int64, dense 0...S-1, numbered by first appearance.

Letters: N points, M cells of the thinned cloud, k neighbours, E edges, F faces, S superpoints.

Graph-based segmentation after Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image
Segmentation", IJCV 2004: edges of a neighbour graph (or mesh) are visited from the most to the
least similar pair, and two segments join when the edge costs no more than either's internal
difference plus ``threshold / size``. An edge costs what a change of surface costs: the angle
between the normals, the step across the local planes (an object lying on a wall has the wall's
normal but not its plane) and the change of locally averaged colour. All lengths are counted in
the cloud's own spacing, so sparse and dense clouds share their parameters. Deterministic.
"""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from oneformer3d.files.signals import held_signals

from .local_surfaces import (
    Surfaces,
    checked_rows,
    local_surfaces,
    mesh_vertex_normals,
    nearest_neighbors,
    scatter_sum,
    surface_spacing,
    unit,
)

_COLOR_SCALE = 40.0  # of 255; changes of colour well below it mean nothing
_MAX_EDGE = 4.0  # spacings; longer edges cross a gap
_TINY = 1e-12


def superpoints_from_points(
    points: NDArray,
    colors: NDArray | None = None,
    normals: NDArray | None = None,
    *,
    threshold: float = 0.2,
    min_points: int = 8,
    min_area: float = 0.01,
    num_neighbors: int = 10,
    color_weight: float = 0.3,
    min_spacing: float = 0.02,
) -> NDArray[np.int64]:
    """Over-segment a point cloud.

    Clouds denser than ``min_spacing`` are segmented on the means of cells of that size, where
    the noise of depth sensors averages out and cost is bounded; every point takes its cell's id.

    Args:
        points: (N, 3) metres.
        colors: (N, 3) 0-255.
        normals: (N, 3) oriented unit normals, estimated from the neighbourhood when absent. Only
            oriented ones tell a convex edge, which then costs less.
        threshold: larger makes larger superpoints.
        min_points: superpoints of fewer cells are joined to others.
        min_area: square metres, superpoints covering less are joined to others.
        num_neighbors: edges per point.
        color_weight: cost of a saturated change of colour relative to a right angle; 0 leaves
            colour aside.
        min_spacing: metres; 0 segments every distinct point as it is.

    Returns:
        (N,) int64 ids, dense from 0.

    Raises:
        ValueError: wrong shapes, NaN or infinite values.
    """
    points = checked_rows('points', points, None)
    colors = None if colors is None else checked_rows('colors', colors, len(points))
    normals = None if normals is None else checked_rows('normals', normals, len(points))

    cell_ids = _cell_ids(points, min_spacing)
    if len(points) == 0 or cell_ids.max() == 0:
        return np.zeros(len(points), dtype=np.int64)
    cells = _cell_means(cell_ids, points)  # (M, 3)
    colors = None if colors is None or not color_weight else _cell_means(cell_ids, colors)

    distances, neighbors = nearest_neighbors(cells, num_neighbors)  # (M, k)
    spacing = surface_spacing(distances)
    surfaces = local_surfaces(cells, neighbors, spacing, colors)
    if normals is not None:
        surfaces = surfaces._replace(normals=unit(_cell_means(cell_ids, normals)), oriented=True)

    edges = _neighbor_edges(neighbors, distances, _MAX_EDGE * spacing)  # (E, 2)
    min_points = _least_size(min_points, min_area, spacing, len(cells))
    labels = _segment(edges, surfaces, spacing, threshold, min_points, color_weight)
    return _dense_by_appearance(labels[cell_ids])


def superpoints_from_mesh(
    vertices: NDArray,
    faces: NDArray,
    colors: NDArray | None = None,
    *,
    threshold: float = 0.2,
    min_points: int = 8,
    min_area: float = 0.01,
    color_weight: float = 0.1,
) -> NDArray[np.int64]:
    """Over-segment the vertices of a triangle mesh along its edges.

    Args:
        vertices: (N, 3) metres.
        faces: (F, 3) integer vertex indices, counter-clockwise seen from the scanned side.
        colors: (N, 3) 0-255.
        threshold, min_points, min_area, color_weight: as in ``superpoints_from_points``.

    Returns:
        (N,) int64 ids, dense from 0.

    Raises:
        ValueError: wrong shapes, NaN or infinite values, indices outside the vertices.
    """
    vertices = checked_rows('vertices', vertices, None)
    colors = None if colors is None else checked_rows('colors', colors, len(vertices))
    faces = _checked_faces(faces, len(vertices))
    if len(vertices) <= 1:
        return np.zeros(len(vertices), dtype=np.int64)

    normals = mesh_vertex_normals(vertices, faces)
    edges = _unique_edges(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), len(vertices))
    lengths = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    spacing = max(float(np.median(lengths)) if len(lengths) else 0.0, _TINY)

    colors = colors if color_weight else None
    mean_colors = None if colors is None else _mesh_mean_colors(edges, colors)
    surfaces = Surfaces(vertices, vertices, normals, True, colors, mean_colors)

    min_points = _least_size(min_points, min_area, spacing, len(vertices))
    labels = _segment(edges, surfaces, spacing, threshold, min_points, color_weight)
    return _dense_by_appearance(labels)


def join_along_edges(
    edges: NDArray,
    weights: NDArray,
    num_points: int,
    *,
    threshold: float = 0.2,
    min_points: int = 8,
) -> NDArray[np.int64]:
    """Superpoints of any graph: joined by the predicate above, small ones then along the cheapest.

    Args:
        edges: (E, 2) rows of points.
        weights: (E,) cost of each edge.
        num_points: N.
        threshold: larger makes larger superpoints.
        min_points: smaller superpoints are joined to a neighbour, if they have one.

    Returns:
        (N,) int64 ids, dense from 0 by first appearance.

    Example:
        >>> edges = np.array([[0, 1], [1, 2], [2, 3]])
        >>> join_along_edges(edges, np.array([0.0, 9.0, 0.0]), 4, min_points=2)
        array([0, 0, 1, 1])
    """
    parent, size = np.arange(num_points), np.ones(num_points, dtype=np.int64)
    _merge_along(edges, weights, parent, size, threshold, 0)
    if min_points > 1:
        _merge_along(edges, weights, parent, size, threshold, min_points)
    return _dense_by_appearance(parent)


def _segment(
    edges: NDArray,
    surfaces: Surfaces,
    spacing: float,
    threshold: float,
    min_points: int,
    color_weight: float,
) -> NDArray[np.int64]:
    """Label (M,) of each point, not dense."""
    points = surfaces.points
    parent, size = np.arange(len(points)), np.ones(len(points), dtype=np.int64)
    weights = _edge_weights(edges, surfaces, spacing, color_weight)
    _merge_along(edges, weights, parent, size, threshold, 0)

    # What is left over lies on edges and corners, where normals are uncertain. Its points go to
    # the segment on whose plane they lie and whose colour they have.
    left_over = size[parent] < min_points
    edges = edges[left_over[edges].any(1)]
    costs = np.zeros(len(edges))
    for point, target in (edges.T, edges.T[::-1]):
        cost = _membership_cost(point, target, surfaces, spacing)
        costs = np.maximum(costs, np.where(left_over[point], cost, 0))
    _merge_along(edges, costs, parent, size, threshold, min_points)

    small = size[parent] < min(min_points, size[parent].max())
    if small.any():  # islands without any edge to the rest
        _, nearest = KDTree(points[~small]).query(points[small], workers=-1)
        parent[small] = parent[~small][nearest]
    return parent


def _least_size(min_points: int, min_area: float, spacing: float, num_points: int) -> int:
    return max(1, min_points, int(np.ceil(min(min_area / spacing**2, num_points))))


def _edge_weights(
    edges: NDArray, surfaces: Surfaces, spacing: float, color_weight: float
) -> NDArray[np.float64]:
    """Cost (E,) of a change of surface: ``1 - cos(angle) + sin^2(elevation)`` and colour.

    The geometric part is clipped to 1, the cost of a right angle, and squared where the surface
    is convex: the sides of one object meet convexly, an object and its support do not.
    """
    a, b = edges.T
    normal_a, normal_b = surfaces.normals[a], surfaces.normals[b]
    direction = surfaces.smooth[b] - surfaces.smooth[a]
    length = np.maximum(np.linalg.norm(direction, axis=1), spacing)
    cosine = (normal_a * normal_b).sum(1)
    elevation = np.maximum(
        np.abs((normal_a * direction).sum(1)), np.abs((normal_b * direction).sum(1))
    )
    cosine = cosine if surfaces.oriented else np.abs(cosine)

    # w = min(1 − cos + sin², 1)
    weights = np.minimum(1 - cosine + (elevation / length) ** 2, 1)
    if surfaces.oriented:
        convex = ((normal_b - normal_a) * direction).sum(1) > 0
        weights = np.where(convex, weights**2, weights)
    if surfaces.mean_colors is not None:
        weights += color_weight * _color_change(surfaces.mean_colors[a], surfaces.mean_colors[b])
    return weights


def _membership_cost(
    point: NDArray, target: NDArray, surfaces: Surfaces, spacing: float
) -> NDArray[np.float64]:
    """Cost (E,) of putting a point on the plane and to the colour of a target; no angles."""
    height = (surfaces.points[point] - surfaces.smooth[target]) * surfaces.normals[target]
    cost = (height.sum(1) / spacing) ** 2
    if surfaces.colors is not None and surfaces.mean_colors is not None:
        cost += _color_change(surfaces.colors[point], surfaces.mean_colors[target])
    return cost


def _color_change(color_a: NDArray, color_b: NDArray) -> NDArray[np.float64]:
    """Squared difference (E,) relative to ``_COLOR_SCALE``, saturating at 1."""
    change = (((color_a - color_b) / _COLOR_SCALE) ** 2).sum(1)
    return change / (1 + change)


def _merge_along(
    edges: NDArray,
    weights: NDArray,
    parent: NDArray,
    size: NDArray,
    threshold: float,
    min_points: int,
) -> None:
    """Join segments along edges, cheapest first; writes ``parent`` and ``size``."""
    order = np.argsort(weights, kind='stable')
    edges = np.ascontiguousarray(edges[order], np.int64)
    weights = np.ascontiguousarray(weights[order], np.float64)
    _compiled_merge()(edges, weights, parent, size, threshold, min_points)


@functools.cache
def _compiled_merge() -> Callable[..., None]:
    # Compiled at first use, about a second per process. numba's cache=True would need a writable
    # folder beside the module or in the home and fails without one, so it is not used. A signal's
    # exception in the midst of compiling would take the process down.
    with held_signals():
        import numba

        types = 'void(int64[:,::1], float64[::1], int64[::1], int64[::1], float64, int64)'
        return numba.njit(types, nogil=True)(_merge)


def _merge(edges, weights, parent, size, threshold, min_points):  # pragma: no cover (compiled)
    """Join segments along edges sorted by weight; parent and size are updated and left flat.

    With min_points 0 by the predicate of Felzenszwalb and Huttenlocher, else wherever one of the
    two is smaller than min_points.
    """
    limit = np.full(len(parent), threshold)
    for index in range(len(edges)):
        a, b = edges[index]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a == b:
            continue

        if min_points:
            join = size[a] < min_points or size[b] < min_points
        else:
            join = weights[index] <= min(limit[a], limit[b])
        if join:
            parent[b] = a
            size[a] += size[b]
            limit[a] = weights[index] + threshold / size[a]

    for index in range(len(parent)):
        root = index
        while parent[root] != root:
            root = parent[root]
        parent[index] = root


def _mesh_mean_colors(edges: NDArray, colors: NDArray) -> NDArray[np.float64]:
    both = np.concatenate((edges, edges[:, ::-1]))
    total = colors + scatter_sum(both[:, 0], colors[both[:, 1]], len(colors))
    return total / (1 + np.bincount(both[:, 0], minlength=len(colors)))[:, None]


def _neighbor_edges(neighbors: NDArray, distances: NDArray, longest: float) -> NDArray[np.int64]:
    a = np.repeat(np.arange(len(neighbors)), neighbors.shape[1])
    edges = np.stack((a, neighbors.reshape(-1)), axis=1)
    return _unique_edges(edges[distances.reshape(-1) <= longest], len(neighbors))


def _unique_edges(edges: NDArray, num_points: int) -> NDArray[np.int64]:
    edges = np.sort(edges, axis=1).astype(np.int64)
    edges = edges[edges[:, 0] != edges[:, 1]]
    keys = np.unique(edges[:, 0] * num_points + edges[:, 1])
    return np.stack(np.divmod(keys, num_points), axis=1)


def _cell_ids(points: NDArray, cell_size: float) -> NDArray[np.int64]:
    """Dense id (N,) of each point's cubic cell; of each distinct point for size 0."""
    if len(points) == 0:
        return np.zeros(0, dtype=np.int64)
    cells = points - points.min(0)
    if cell_size > 0:
        cells = np.floor(cells / cell_size).astype(np.int64)
    ids = np.zeros(len(points), dtype=np.int64)
    for axis in range(3):
        _, axis_ids = np.unique(cells[:, axis], return_inverse=True)
        _, ids = np.unique(ids * (axis_ids.max() + 1) + axis_ids, return_inverse=True)
    return ids


def _cell_means(cell_ids: NDArray, values: NDArray) -> NDArray[np.float64]:
    counts = np.bincount(cell_ids)
    return scatter_sum(cell_ids, values, len(counts)) / counts[:, None]


def _dense_by_appearance(labels: NDArray) -> NDArray[np.int64]:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _checked_faces(faces: NDArray, num_vertices: int) -> NDArray[np.int64]:
    faces = np.asarray(faces)
    if faces.ndim != 2 or faces.shape[1] != 3 or not np.issubdtype(faces.dtype, np.integer):
        raise ValueError(f'faces must be integers (F, 3), got {faces.dtype} {faces.shape}')
    faces = faces.astype(np.int64)
    if faces.size and (faces.min() < 0 or faces.max() >= num_vertices):
        raise ValueError(
            f'faces name vertices {faces.min()}...{faces.max()}, there are {num_vertices}'
        )
    return faces
