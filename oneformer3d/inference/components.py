"""Instances without masks: what is no wall, floor or ceiling falls into connected pieces.

Enters: the points of a scan (N, ≥ 3) and what the network calls them. Leaves: the same prediction
with other instances, of the pieces alone or joined with the network's masks. Where masks of
unknown things are weak, the gaps between things are not.
"""

from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from .predictions import ScanPrediction

InstanceSource = Literal['masks', 'components', 'joined']
SOURCES: tuple[InstanceSource, ...] = get_args(InstanceSource)
# Smaller pieces are the rims of wrongly labelled points.
MIN_POINTS = 10
# Instances that share more of their union are one object.
SAME_OBJECT = 0.5


def with_instances(
    prediction: ScanPrediction,
    points: NDArray[np.floating],
    stuff: tuple[int, ...],
    source: InstanceSource,
    radius: float,
) -> ScanPrediction:
    """The prediction with instances of one source; its labels of points stay.

    Args:
        prediction: of the points, with the network's masks as instances.
        points: (N, ≥ 3), xyz first, in metres.
        stuff: classes without instances.
        source: 'masks' changes nothing; 'components' takes the pieces of all that is no stuff;
            'joined' takes both, of those that show one object the better-scored.
        radius: points at most so far apart belong to one piece, in metres.

    Example:
        >>> row = np.stack([np.r_[0:20, 40:60] * 0.05, np.zeros(40), np.zeros(40)], 1)
        >>> table = np.full(40, 2)
        >>> masks = ScanPrediction(table, table, table, (), np.zeros(0, int), np.zeros(0))
        >>> found = with_instances(masks, row, (0, 1), 'components', radius=0.08)
        >>> [len(members) for members in found.members]
        [20, 20]
    """
    if source == 'masks':
        return prediction
    pieces = component_instances(prediction, points, stuff, radius)
    return pieces if source == 'components' else joined(pieces, prediction)


def component_instances(
    prediction: ScanPrediction,
    points: NDArray[np.floating],
    stuff: tuple[int, ...],
    radius: float,
) -> ScanPrediction:
    """The connected pieces of all that is no stuff as instances, each of its most frequent class.

    Neighbouring things of two classes make one piece: a network is surer of what is a thing than
    of which. No confidence is known of a piece: the score only says that larger ones are surer,
    and is n / (n + 10) for n points. Arguments as of ``with_instances``.
    """
    thing = np.flatnonzero(~np.isin(prediction.semantic, stuff))  # (T,)
    component = connect(points[thing, :3], np.zeros(len(thing), np.int64), radius)  # (T,)

    order = np.argsort(component, kind='stable')
    pieces = np.split(thing[order], np.flatnonzero(np.diff(component[order])) + 1)
    members = [piece for piece in pieces if len(piece) >= MIN_POINTS]
    members.sort(key=len, reverse=True)

    sizes = np.array([len(piece) for piece in members], dtype=float)
    classes = [np.bincount(prediction.semantic[piece]).argmax() for piece in members]
    return replace(
        prediction,
        members=tuple(members),
        classes=np.array(classes, dtype=np.int64),
        scores=sizes / (sizes + MIN_POINTS),
    )


def joined(first: ScanPrediction, second: ScanPrediction) -> ScanPrediction:
    """Instances of two predictions of the same points; of those of one object the best-scored.

        |a ∩ b| / |a ∪ b| > 0.5   →   a and b are one object

    Equal scores prefer the first.
    """
    members = (*first.members, *second.members)
    classes = np.concatenate([first.classes, second.classes])
    scores = np.concatenate([first.scores, second.scores])
    overlap = _overlaps(members, len(first.semantic))  # (K, K)

    kept: list[int] = []
    for row in np.argsort(-scores, kind='stable'):
        if not kept or overlap[row, kept].max() <= SAME_OBJECT:
            kept.append(int(row))
    return replace(
        first,
        members=tuple(members[row] for row in kept),
        classes=classes[kept],
        scores=scores[kept],
    )


def connect(
    xyz: NDArray[np.floating], labels: NDArray[np.integer], radius: float
) -> NDArray[np.int64]:
    """Component (N,) of each point: chains of points of one label, no step above the radius."""
    pairs = KDTree(xyz).query_pairs(radius, output_type='ndarray')  # (P, 2)
    a, b = pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]].T

    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(xyz), len(xyz)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _overlaps(members: tuple[NDArray[np.int64], ...], num_points: int) -> NDArray[np.float64]:
    """Intersection over union (K, K) of instances given by their rows."""
    sizes = np.array([len(rows) for rows in members], dtype=np.int64)
    columns = np.concatenate([np.zeros(0, np.int64), *members])
    starts = np.concatenate([[0], sizes.cumsum()])
    masks = csr_array(
        (np.ones(len(columns)), columns, starts), shape=(len(members), max(num_points, 1))
    )
    shared = (masks @ masks.T).toarray()  # (K, K)
    return shared / np.maximum(sizes[:, None] + sizes - shared, 1)
