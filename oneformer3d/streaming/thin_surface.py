"""One layer of points: where noise fills several voxels across a surface, one stands for it.

Enters: mean points of voxels (M, 3), how many points each is the mean of. Leaves: which stand, and
the one that stands for each. Noise of depth and a grid that lies askew fill about twice as many
voxels as a surface crosses, a density that no scan has that a model was trained on.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree


class Standing(NamedTuple):
    """Which of M points stand for the surface.

    Attributes:
        rows: (m,) ascending.
        of_point: (M,) position in ``rows`` of the nearest that stands.
    """

    rows: NDArray[np.int64]
    of_point: NDArray[np.int64]


def thin_surface(xyz: NDArray, counts: NDArray[np.int64], spacing: float) -> Standing:
    """Leave out points that lie closer than the spacing to one that was measured more often.

    The result is that of going through the points by descending count, earlier rows first, and
    keeping each that has no kept one within the spacing.

    Args:
        xyz: (M, 3) metres.
        counts: (M,) measurements of each.
        spacing: metres; no two points that stand are closer.

    Example:
        >>> thin_surface(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.array([1, 2, 1]), 1.5)
        Standing(rows=array([1]), of_point=array([0, 0, 0]))
    """
    num = len(xyz)
    if num == 0:
        return Standing(np.zeros(0, np.int64), np.zeros(0, np.int64))
    tree = KDTree(xyz)
    pairs = tree.query_pairs(spacing, output_type='ndarray')  # (P, 2)
    rank = np.empty(num, np.int64)
    rank[np.lexsort((np.arange(num), -counts))] = np.arange(num)

    # of each pair: the one that is asked first, and the other
    ahead = rank[pairs[:, 0]] < rank[pairs[:, 1]]
    first, second = np.where(ahead[:, None], pairs, pairs[:, ::-1]).T
    keep, open_ = np.zeros(num, bool), np.ones(num, bool)
    while open_.any():
        # those without an open one ahead of them stand, and shut out the ones behind them
        waits = np.zeros(num, bool)
        waits[second[open_[first] & open_[second]]] = True
        now = open_ & ~waits
        keep |= now
        open_ &= ~now
        open_[second[now[first]]] = False

    rows = np.flatnonzero(keep)
    _, nearest = KDTree(xyz[rows]).query(xyz)  # (N,)
    return Standing(rows, np.asarray(nearest, np.int64))
