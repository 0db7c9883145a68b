"""The smallest upright box around points.

Enters: points (n, 3) in metres, z up. Leaves: ``UprightBox``: centre, size, and its turn
about the vertical.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError


@dataclass(frozen=True)
class UprightBox:
    """A box that stands upright.

    Attributes:
        centre: (x, y, z) metres.
        size: (length, width, height) metres, length ≥ width.
        yaw: radians from the x axis to the length, counter-clockwise seen from above, within
            [−π/2, π/2).
    """

    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float

    @property
    def corners(self) -> NDArray[np.float64]:
        """(8, 3) float64, the four at the bottom first."""
        signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
        plan = signs * self.size[:2] @ _turn(self.yaw).T + self.centre[:2]  # (4, 2)

        bottom, top = (np.full((4, 1), self.centre[2] + s * self.size[2] / 2) for s in (-1, 1))
        return np.concatenate([np.hstack([plan, bottom]), np.hstack([plan, top])])  # (8, 3)


def fit_upright_box(points: np.ndarray) -> UprightBox:
    """The upright box of least area in plan that holds all points.

    One side of it lies on a side of the points' convex hull (Freeman and Shapira 1975), so every
    side of the hull is tried.

    Args:
        points: (n, 3) metres, z up, n ≥ 1.

    Raises:
        ValueError: no points.

    Example:
        >>> box = fit_upright_box(np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 3.0]]))
        >>> box.size, box.yaw
        ((2.0, 1.0, 3.0), 0.0)
    """
    if len(points) == 0:
        raise ValueError('a box needs at least one point')
    xyz = np.asarray(points, dtype=np.float64)
    hull = _hull(xyz[:, :2])  # (h, 2)

    # extents along and across every side
    sides = np.roll(hull, -1, axis=0) - hull
    angles = np.arctan2(sides[:, 1], sides[:, 0]) % (np.pi / 2)
    angles = np.unique(np.where(angles < np.pi / 2, angles, 0.0))  # (a,)
    along = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ hull.T  # (a, h)
    across = np.stack([-np.sin(angles), np.cos(angles)], axis=1) @ hull.T
    extent = np.stack([np.ptp(along, axis=1), np.ptp(across, axis=1)], axis=1)  # (a, 2)

    # the least area; of points in a line the least perimeter
    best = np.lexsort([extent.sum(1), extent.prod(1).round(12)])[0]
    middle = np.array([_middle(along[best]), _middle(across[best])])
    yaw = float(angles[best])
    centre = _turn(yaw) @ middle

    length, width = extent[best]
    if width > length:
        length, width, yaw = width, length, yaw - np.pi / 2
    low, high = float(xyz[:, 2].min()), float(xyz[:, 2].max())
    return UprightBox(
        (float(centre[0]), float(centre[1]), (low + high) / 2),
        (float(length), float(width), high - low),
        yaw,
    )


def _hull(plan: np.ndarray) -> np.ndarray:
    """Corners of the convex hull (h, 2); of points in a line, or of few, the points' ends."""
    try:
        return plan[ConvexHull(plan).vertices]
    except (QhullError, ValueError):
        direction = np.linalg.svd(plan - plan.mean(axis=0), full_matrices=False)[2][0]
        position = plan @ direction
        return plan[[position.argmin(), position.argmax()]]


def _middle(values: np.ndarray) -> float:
    return float(values.min() + values.max()) / 2


def _turn(angle: float) -> np.ndarray:
    """(2, 2) rotation, counter-clockwise."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
