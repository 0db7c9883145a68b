"""Instances without masks: what is no wall, floor or ceiling falls into connected pieces.

Enters: the points of a scan (N, ≥ 3) and what the network calls them. Leaves: the same prediction
with other instances. Where masks of unknown things are weak, the gaps between things are not.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from .predictions import ScanPrediction

# Smaller pieces are the rims of wrongly labelled points; in the panoptic labels they stay.
MIN_POINTS = 10


def instances_from_components(
    prediction: ScanPrediction,
    points: NDArray[np.floating],
    stuff: tuple[int, ...],
    radius: float,
) -> ScanPrediction:
    """Take the connected components of each thing class for instances, in place of the masks.

    No confidence is known of a component: the score only says that larger ones are surer, and is
    n / (n + 10) for n points.

    Args:
        prediction: of the points.
        points: (N, ≥ 3), xyz first, in metres.
        stuff: classes without instances.
        radius: points of one class at most so far apart belong together, in metres.

    Example:
        >>> row = np.stack([np.r_[0:20, 40:60] * 0.05, np.zeros(40), np.zeros(40)], 1)
        >>> table = np.full(40, 2)
        >>> masks = ScanPrediction(table, table, table, (), np.zeros(0, int), np.zeros(0))
        >>> found = instances_from_components(masks, row, stuff=(0, 1), radius=0.08)
        >>> [len(members) for members in found.members]
        [20, 20]
    """
    thing = np.flatnonzero(~np.isin(prediction.semantic, stuff))  # (T,)
    labels = prediction.semantic[thing]
    component = connect(points[thing, :3], labels, radius)  # (T,)

    # ids above the last stuff class are things
    panoptic = prediction.semantic.copy()
    panoptic[thing] = component + max(stuff, default=-1) + 1

    order = np.argsort(component, kind='stable')
    pieces = np.split(thing[order], np.flatnonzero(np.diff(component[order])) + 1)
    members = [piece for piece in pieces if len(piece) >= MIN_POINTS]
    members.sort(key=len, reverse=True)

    sizes = np.array([len(piece) for piece in members], dtype=float)
    classes = np.array([prediction.semantic[piece[0]] for piece in members], dtype=np.int64)
    return replace(
        prediction,
        panoptic_semantic=prediction.semantic,
        panoptic=panoptic,
        members=tuple(members),
        classes=classes,
        scores=sizes / (sizes + MIN_POINTS),
    )


def connect(
    xyz: NDArray[np.floating], labels: NDArray[np.integer], radius: float
) -> NDArray[np.int64]:
    """Component (N,) of each point: chains of points of one label, no step above the radius."""
    pairs = KDTree(xyz).query_pairs(radius, output_type='ndarray')  # (P, 2)
    a, b = pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]].T

    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(xyz), len(xyz)))
    return connected_components(graph, directed=False)[1].astype(np.int64)
