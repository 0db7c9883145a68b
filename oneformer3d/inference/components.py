"""Instances without masks: what is no wall, floor or ceiling falls into pieces of one class.

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
# Pieces that are smaller, 0.2 m² of a cloud thinned to 5 cm, are part of what they touch: chosen on
# generated rooms (docs/real_scans.md).
PART_POINTS = 80
# Points that vote on the class of one, itself among them.
NUM_VOTES = 9
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
        source: 'masks' changes nothing; 'components' takes pieces of one class that is no stuff;
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
    """The connected pieces of one class that is no stuff as instances.

    Single points that are called otherwise than their neighbours do not split a piece, and small
    pieces join what they touch most: a network is surer of what is a thing than of which. No
    confidence is known of a piece: the score only says that larger ones are surer, and is
    n / (n + 10) for n points. Arguments as of ``with_instances``.
    """
    thing = np.flatnonzero(~np.isin(prediction.semantic, stuff))  # (T,)
    xyz = points[thing, :3]
    pairs = pairs_within(xyz, radius)
    piece = connect(len(thing), pairs, voted(xyz, prediction.semantic[thing]))
    component = absorb_parts(piece, pairs, PART_POINTS)  # (T,)

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


def pairs_within(xyz: NDArray[np.floating], radius: float) -> NDArray[np.int64]:
    """Rows (P, 2) of points (N, 3) that are no farther apart than the radius, each pair once."""
    if not len(xyz):
        return np.zeros((0, 2), np.int64)
    return KDTree(xyz).query_pairs(radius, output_type='ndarray')


def voted(xyz: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """The most frequent label (N,) among a point and the nearest others; the lowest of equals."""
    if not len(xyz):
        return np.zeros(0, np.int64)
    nearest = KDTree(xyz).query(xyz, min(NUM_VOTES, len(xyz)))[1].reshape(len(xyz), -1)  # (N, 9)

    names, label = np.unique(labels, return_inverse=True)
    votes = np.zeros((len(xyz), len(names)), np.int64)
    for column in nearest.T:  # one vote of each point
        votes[np.arange(len(xyz)), label[column]] += 1
    return names[votes.argmax(1)].astype(np.int64)


def connect(
    num_points: int, pairs: NDArray[np.integer], labels: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Component (N,) of each point: chains of pairs (P, 2) of points that have one label (N,)."""
    a, b = pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]].T

    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(num_points, num_points))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def absorb_parts(
    piece: NDArray[np.int64], pairs: NDArray[np.integer], part_points: int
) -> NDArray[np.int64]:
    """Pieces (N,) of points, of which small ones have joined the larger one they touch most.

    Args:
        piece: (N,) 0 … K − 1.
        pairs: (P, 2) points that touch.
        part_points: smaller pieces look for another; again, until all that can have found one.
    """
    while True:
        sizes = np.bincount(piece)  # (K,)
        a, b = piece[pairs].T
        a, b = np.r_[a, b], np.r_[b, a]
        # of equal ones the later joins the earlier, so that no two join each other
        larger = (sizes[b] > sizes[a]) | ((sizes[b] == sizes[a]) & (b < a))
        joins = larger & (sizes[a] < part_points)
        if not joins.any():
            return piece

        links, counts = np.unique(np.stack([a, b])[:, joins], axis=1, return_counts=True)
        a, b = links[:, np.lexsort((counts, links[0]))]
        most = np.r_[a[1:] != a[:-1], True]  # the last of each part
        graph = coo_array((np.ones(most.sum(), bool), (a[most], b[most])), shape=(len(sizes),) * 2)
        piece = connected_components(graph, directed=False)[1].astype(np.int64)[piece]


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
