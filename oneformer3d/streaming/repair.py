"""Tracks that fall apart, tracks that overlap.

Enters: votes. Leaves: pieces of a track, pairs of tracks that are one. n voxels.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .votes import NOBODY, SLOTS, Votes
from .voxels import Keys, find, pack

# half of the 26 neighbours: the others are the same pairs
_NEIGHBOURS = np.array(
    [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)]
)


def pieces(voxels: NDArray[np.int64], gap: int = 3) -> NDArray[np.int64]:
    """Piece (n,) of each voxel (n, 3); voxels up to about ``gap`` apart are one piece.

    Example:
        >>> pieces(np.array([[0, 0, 0], [1, 0, 0], [40, 0, 0]]))
        array([0, 0, 1])
    """
    coarse = np.floor_divide(voxels, gap)
    keys, inverse = np.unique(pack(coarse), return_inverse=True)
    places = np.zeros((len(keys), 3), np.int64)
    places[inverse] = coarse

    # edges to neighbours that are there
    first, second = [], []
    for offset in _NEIGHBOURS:
        rows = find(keys, pack(places + offset))
        first.append(np.flatnonzero(rows >= 0))
        second.append(rows[rows >= 0])
    a, b = np.concatenate(first), np.concatenate(second)
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(keys), len(keys)))
    return connected_components(graph, directed=False)[1].astype(np.int64)[inverse]


def large_pieces(keys: Keys, voxels: NDArray[np.int64], least_share: float, gap: int) -> list[Keys]:
    """Keys of the pieces that hold at least this share of all voxels, the largest first."""
    if len(keys) == 0:
        return []
    piece = pieces(voxels, gap)
    sizes = np.bincount(piece)
    large = np.argsort(-sizes, kind='stable')
    return [keys[piece == k] for k in large if sizes[k] >= least_share * len(keys)]


def overlapping(votes: Votes, least: float, enough_voxels: int) -> list[tuple[int, int]]:
    """Pairs (kept, ended) of tracks of which one lies within the other.

    Args:
        votes: of all voxels.
        least: share of the smaller track's voxels where the other has votes as well, and at least
            a third as many.
        enough_voxels: the smaller track has at least so many.
    """
    sizes: dict[int, int] = {}
    for track, count in zip(*np.unique(votes.tracks, return_counts=True)):
        sizes[int(track)] = int(count)

    shared: dict[tuple[int, int], int] = {}
    for a in range(SLOTS):
        for b in range(a + 1, SLOTS):
            both = (votes.tracks[:, b] != NOBODY) & (votes.weights[:, b] * 3 >= votes.weights[:, a])
            pairs = np.sort(votes.tracks[both][:, [a, b]], axis=1)
            for pair, count in zip(*np.unique(pairs, axis=0, return_counts=True)):
                key = (int(pair[0]), int(pair[1]))
                shared[key] = shared.get(key, 0) + int(count)

    found = []
    for (first, second), count in sorted(shared.items()):
        smaller = min(sizes[first], sizes[second])
        if smaller >= enough_voxels and count >= least * smaller:
            found.append((first, second))  # ids ascend, so the older one stays
    return found
