"""Superpoints of one frame from its depth image.

Enters: the surface at each pixel (h, w, 3) in camera coordinates, colours. Leaves: ids (h, w), -1
where there is no depth. The pixel grid tells the neighbours, so no nearest ones are searched for;
costs of edges are those of ``data.superpoints``: the angle of the normals, the step across the
planes, convex changes cheaper, and a change of colour. E edges.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from oneformer3d.data.superpoints import join_along_edges

_COLOR_SCALE = 40.0  # of 255
_MAX_STEP = 0.05  # of the depth; neighbours farther apart are no neighbours
_SMOOTH = 5  # pixels over which the surface is averaged
_REACH = 2  # pixels to the ones whose difference is a tangent


def depth_superpoints(
    surface: NDArray[np.float32],
    valid: NDArray[np.bool_],
    colors: NDArray | None = None,
    *,
    threshold: float = 0.2,
    min_points: int = 30,
    color_weight: float = 0.3,
) -> NDArray[np.int64]:
    """Over-segment a depth image.

    Args:
        surface: (h, w, 3) metres in camera coordinates; anything where not valid.
        valid: (h, w) bool.
        colors: (h, w, 3) 0–255.
        threshold: larger makes larger superpoints.
        min_points: superpoints of fewer pixels are joined to a neighbour.
        color_weight: cost of a saturated change of colour relative to a right angle.

    Returns:
        (h, w) int64 dense ids, -1 where not valid.
    """
    if not valid.any():
        return np.full(valid.shape, -1, np.int64)
    smooth = _smoothed(surface, valid)
    normals = _normals(smooth, valid)
    averaged = None if colors is None else _smoothed(colors.astype(np.float32), valid, 3)

    numbers = np.full(valid.shape, -1, np.int64)
    numbers[valid] = np.arange(int(valid.sum()))
    edges, weights = [], []
    for first, second in _neighbours(valid.shape):
        both = valid[first] & valid[second]
        depth = surface[first][..., 2]
        both &= np.abs(surface[second][..., 2] - depth) <= _MAX_STEP * depth
        cost = _costs(smooth, normals, averaged, first, second, both, color_weight)
        edges.append(np.stack([numbers[first][both], numbers[second][both]], axis=1))
        weights.append(cost)

    ids = join_along_edges(
        np.concatenate(edges),
        np.concatenate(weights),
        int(valid.sum()),
        threshold=threshold,
        min_points=min_points,
    )
    numbers[valid] = ids
    return numbers


def _neighbours(shape: tuple[int, ...]) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Right, below, and both diagonals: windows of the first and of the second pixel."""
    every, head, tail = slice(None), slice(None, -1), slice(1, None)
    return [
        ((every, head), (every, tail)),
        ((head, every), (tail, every)),
        ((head, head), (tail, tail)),
        ((head, tail), (tail, head)),
    ]


def _costs(
    smooth: NDArray[np.float32],
    normals: NDArray[np.float32],
    colors: NDArray[np.float32] | None,
    first: tuple[slice, slice],
    second: tuple[slice, slice],
    both: NDArray[np.bool_],
    color_weight: float,
) -> NDArray[np.float64]:
    """Cost (E,) of the edges between two windows."""
    normal_a, normal_b = normals[first][both], normals[second][both]
    direction = smooth[second][both] - smooth[first][both]
    length = np.maximum(np.linalg.norm(direction, axis=1), 1e-4)
    elevation = np.maximum(
        np.abs((normal_a * direction).sum(1)), np.abs((normal_b * direction).sum(1))
    )

    # w = min(1 − cos + sin², 1), squared where the surface is convex
    weights = np.minimum(1 - (normal_a * normal_b).sum(1) + (elevation / length) ** 2, 1)
    convex = ((normal_b - normal_a) * direction).sum(1) > 0
    weights = np.where(convex, weights**2, weights)
    if colors is not None:
        change = (((colors[first][both] - colors[second][both]) / _COLOR_SCALE) ** 2).sum(1)
        weights = weights + color_weight * change / (1 + change)
    return weights.astype(np.float64)


def _smoothed(
    values: NDArray[np.float32], valid: NDArray[np.bool_], size: int = _SMOOTH
) -> NDArray[np.float32]:
    """Means (h, w, 3) over the valid pixels of a window."""
    window = (size, size)
    weight = cv2.boxFilter(valid.astype(np.float32), -1, window, normalize=False)
    total = cv2.boxFilter(np.where(valid[..., None], values, 0), -1, window, normalize=False)
    return np.asarray(total / np.maximum(weight, 1)[..., None], np.float32)


def _normals(surface: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Unit normals (h, w, 3) towards the camera, of the differences of smoothed neighbours."""
    padded = np.pad(surface, ((_REACH, _REACH), (_REACH, _REACH), (0, 0)), mode='edge')
    there = np.pad(valid, _REACH)
    centre = slice(_REACH, -_REACH)

    # where one neighbour is missing, the pixel itself stands for it
    tangents = []
    for rows, columns in (
        ((centre, centre), (slice(2 * _REACH, None), slice(None, -2 * _REACH))),
        ((slice(2 * _REACH, None), slice(None, -2 * _REACH)), (centre, centre)),
    ):
        after = np.where(
            there[rows[0], columns[0]][..., None], padded[rows[0], columns[0]], surface
        )
        before = np.where(
            there[rows[1], columns[1]][..., None], padded[rows[1], columns[1]], surface
        )
        tangents.append(after - before)
    normals = np.cross(tangents[1], tangents[0])
    normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-12)
    facing = (normals * surface).sum(axis=2, keepdims=True) > 0
    return np.where(facing, -normals, normals).astype(np.float32)
