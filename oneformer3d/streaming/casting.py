"""A frame casts its votes.

Enters: ``FrameInstances`` and the tracks of its instances. Leaves: ``Votes`` that have counted it.
"""

import numpy as np
from numpy.typing import NDArray

from .records import FrameInstances
from .votes import Votes
from .voxels import Keys, find, pack

_SCORE_VOTES = 7  # a sure instance has 8 votes per voxel, a doubtful one 1


def seen_keys(frame: FrameInstances) -> Keys:
    """Distinct keys of all that a frame saw, ascending."""
    return np.unique(pack(np.concatenate([frame.visible, *frame.voxels])))


def cast(votes: Votes, frame: FrameInstances, ids: NDArray, only: Keys | None = None) -> None:
    """Let a frame vote, and halve the votes of what it looked through.

    Args:
        votes: have seen the frame's voxels.
        frame: with K instances.
        ids: (K,) their tracks, -1 does not vote.
        only: ascending keys; other voxels are left alone.
    """
    keys, tracks, weights = [np.zeros(0, np.int64)], [np.zeros(0, int)], [np.zeros(0, int)]
    for voxels, track, score in zip(frame.voxels, ids, frame.scores):
        if track >= 0:
            mine = np.unique(pack(voxels))
            score = min(max(float(np.nan_to_num(score)), 0.0), 1.0)
            keys.append(mine)
            tracks.append(np.full(len(mine), track))
            weights.append(np.full(len(mine), 1 + round(_SCORE_VOTES * score)))
    key, track, weight = (np.concatenate(parts) for parts in (keys, tracks, weights))

    free = np.unique(pack(frame.free))
    if only is not None:
        inside = find(only, key) >= 0
        key, track, weight = key[inside], track[inside], weight[inside]
        free = free[find(only, free) >= 0]

    # pieces of one track may share a voxel: it votes once, as the surest of them
    order = np.lexsort((-weight, track, key))
    key, track, weight = key[order], track[order], weight[order]
    first = np.ones(len(key), bool)
    first[1:] = (key[1:] != key[:-1]) | (track[1:] != track[:-1])
    votes.add(key[first], track[first].astype(np.int32), weight[first].astype(np.int32))
    votes.free(free)
