"""Which instance of a frame is which track.

Enters: votes of the voxels that a frame sees. Leaves: log-odds of every pair against "this is a new
object", and the pairs on which both sides agree. T tracks, K instances.

Overlap counts only where both were visible: the voxels of an instance that earlier frames saw, and
the voxels of a track that this frame sees. Labels say nothing here; they vote within a track.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from .votes import NOBODY, SLOTS, Votes

_NONE = np.zeros(0, np.int64)
_EDGE = 0.02  # keeps the log-odds of full and of no overlap finite
# voxels of an instance that no earlier frame saw may be anybody's: two of them count as one voxel
# of which this share is the track's
_UNSEEN_WEIGHT = 0.5
_UNSEEN_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class Overlap:
    """Of K instances with the T tracks that own something visible.

    Attributes:
        tracks: (T,) ids, ascending.
        shared: (T, K) voxels of both, by the share of votes the track has there.
        instance_voxels: (K,) voxels of the instance that an earlier frame saw.
        unseen_voxels: (K,) the others.
        track_voxels: (T,) voxels of the track that this frame sees.
    """

    tracks: NDArray[np.int64]
    shared: NDArray[np.float64]
    instance_voxels: NDArray[np.float64]
    unseen_voxels: NDArray[np.float64]
    track_voxels: NDArray[np.float64]

    def of_tracks(self, keep: NDArray[np.bool_]) -> 'Overlap':
        """With some of the tracks only."""
        return replace(
            self,
            tracks=self.tracks[keep],
            shared=self.shared[keep],
            track_voxels=self.track_voxels[keep],
        )

    @property
    def in_track(self) -> NDArray[np.float64]:
        """(T, K) share of the instance that is the track's."""
        # (shared + w p unseen) / (seen + w unseen)
        unseen = _UNSEEN_WEIGHT * self.unseen_voxels
        shared = self.shared + _UNSEEN_SHARE * unseen
        return shared / np.maximum(self.instance_voxels + unseen, 1)

    @property
    def in_instance(self) -> NDArray[np.float64]:
        """(T, K) share of the track that is the instance's."""
        return self.shared / np.maximum(self.track_voxels[:, None], 1)


def measure_overlap(
    votes: Votes,
    visible: NDArray[np.int64],
    instances: list[NDArray[np.int64]],
    around: NDArray[np.int64] = _NONE,
) -> Overlap:
    """Overlap of instances with tracks.

    Args:
        votes: after ``see``, before the votes of this frame.
        visible: (m,) rows of the voxels this frame sees.
        instances: of each instance its rows (n_k,), among ``visible`` and ``around``.
        around: (m,) other rows in which instances were looked for.
    """
    earlier = votes.seen.copy()
    earlier[visible] -= 1
    visible = np.concatenate([visible, around])
    tracks = np.unique(votes.tracks[visible])
    tracks = tracks[tracks != NOBODY].astype(np.int64)
    num_tracks, num = len(tracks), len(instances)

    # Σ over voxels of the track's share of votes
    slots = votes.tracks[visible].ravel()
    held = slots != NOBODY
    column = np.searchsorted(tracks, slots[held])
    share = votes.shares(visible).ravel()[held]
    track_voxels = np.asarray(np.bincount(column, share, num_tracks), np.float64)

    shared = np.zeros((num_tracks, num))
    for k, rows in enumerate(instances):
        slots = votes.tracks[rows].reshape(-1, SLOTS)
        held = slots != NOBODY
        column = np.searchsorted(tracks, slots[held])
        shared[:, k] = np.bincount(column, votes.shares(rows)[held], num_tracks)

    known = np.array([(earlier[rows] > 0).sum() for rows in instances], float).reshape(num)
    sizes = np.array([len(rows) for rows in instances], float).reshape(num)
    return Overlap(tracks, shared, known, sizes - known, track_voxels)


def log_odds(
    overlap: Overlap,
    cosines: NDArray[np.float64],
    *,
    enough_voxels: int,
    appearance: float,
    new_object: float,
) -> NDArray[np.float64]:
    """log p(same) − log p(new object) of every pair.

    Args:
        overlap: of T tracks and K instances.
        cosines: (T, K) of their features, nan where one is unknown.
        enough_voxels: common voxels from which overlap counts in full.
        appearance: log-odds of equal features; opposite ones count −3 times this.
        new_object: log-odds that an instance is new before anything is known of it.

    Returns:
        (T, K), −inf without common voxels: appearance alone joins nothing.
    """
    containment = (overlap.in_track + overlap.in_instance) / 2
    containment = containment.clip(0, 1)
    enough = np.minimum(overlap.instance_voxels / enough_voxels, 1)  # (K,)

    # log c / (1 − c), and a (2 cos − 1)
    geometry = enough * np.log((containment + _EDGE) / (1 - containment + _EDGE))
    looks = np.nan_to_num(appearance * (2 * cosines - 1))
    odds = geometry + looks - new_object
    return np.where(overlap.shared > 0, odds, -np.inf)


def agree(odds: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs (track, instance) that both sides choose.

    Instances choose among tracks and "new", tracks among instances and "not seen"; each side's
    choices are the assignment of the greatest total log-probability. Pairs in both that are more
    likely than not are kept.

    Args:
        odds: (T, K) log-odds against "new".

    Example:
        >>> agree(np.array([[3.0, 1.0], [-1.0, -np.inf]]))
        [(0, 0)]
        >>> agree(np.array([[2.0, 1.5], [1.5, 2.0]]))
        [(0, 0), (1, 1)]
    """
    # log-sums over everything a side may choose, its own "none" with log-odds 0
    of_instance = np.logaddexp(np.logaddexp.reduce(odds, axis=0, keepdims=True), 0)  # (1, K)
    of_track = np.logaddexp(np.logaddexp.reduce(odds, axis=1, keepdims=True), 0)  # (T, 1)

    chosen = []
    for total in (of_instance, of_track):
        log_probs = np.where(odds > 0, odds - total, -1e3)
        chosen.append(set(zip(*(ids.tolist() for ids in linear_sum_assignment(-log_probs)))))
    return sorted(pair for pair in chosen[0] & chosen[1] if odds[pair] > 0)
