"""Points that belong to no surface: flying pixels, reflections, what a scanner invents.

Enters: a scan's points (N, ≥ 3) in metres. Leaves: which of them stand alone. One such point is
enough to move the grids, the centre and the extent of a scan, so they go before all of these.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

# A surface has some eighty points within five times its spacing: π 5² neighbours of unit density.
NUM_NEIGHBOURS = 3
NUM_SPACINGS = 5.0


def find_isolated(points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Points with fewer than three others within five times the cloud's spacing.

    The spacing is the median distance to the nearest other point, so the rule needs no unit and no
    threshold in metres. Points near a surface are not isolated, on whichever side they lie. Clouds
    of so few points that each would be isolated have none.

    Args:
        points: (N, ≥ 3), xyz first; thinned, so that density says nothing about the sensor.

    Returns:
        (N,) bool.

    Example:
        >>> surface = np.stack(np.meshgrid(range(5), range(5), [0.0]), -1).reshape(-1, 3)
        >>> find_isolated(np.concatenate([surface, [[2, 2, -9.0]]])).nonzero()
        (array([25]),)
    """
    xyz = points[:, :3]
    if len(xyz) <= NUM_NEIGHBOURS:
        return np.zeros(len(xyz), bool)

    # the first neighbour of a point is itself
    distance, _ = KDTree(xyz).query(xyz, k=NUM_NEIGHBOURS + 1)  # (N, 4)
    spacing = np.median(distance[:, 1])
    isolated = distance[:, -1] > NUM_SPACINGS * spacing
    return isolated & ~isolated.all()
