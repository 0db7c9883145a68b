"""The merging rule: instances of one frame → tracks, new ones, nobody.

Enters: votes, what tracks add up to, and a frame. Leaves: an ``Association``. K instances, T
tracks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .affinity import Overlap, agree, log_odds, measure_overlap
from .records import FrameInstances
from .settings import MergeSettings
from .track_sums import TrackSums, unit_features
from .votes import Votes
from .voxels import find, pack

NEW = -2
NOBODY = -1
_SEEN_BOTH = 0.6  # share of a track within an instance from which the instance bridges


@dataclass(frozen=True, eq=False)
class Association:
    """Who an instance is.

    Attributes:
        tracks: (K,) int64 ids, -2 a new track, -1 nobody.
        carried: tracks that were found again at another place.
        bridged: pairs of tracks that one instance holds both of.
        parted: pairs of tracks that this frame shows as two.
    """

    tracks: NDArray[np.int64]
    carried: tuple[int, ...]
    bridged: tuple[tuple[int, int], ...]
    parted: tuple[tuple[int, int], ...]


def associate(
    frame: FrameInstances,
    visible: NDArray[np.int64],
    votes: Votes,
    sums: TrackSums | None,
    settings: MergeSettings,
) -> Association:
    """Decide for every instance of a frame.

    Args:
        frame: K instances.
        visible: (m,) rows of ``votes`` that it sees.
        votes: after ``see``, before the votes of this frame.
        sums: of all tracks, None before the first.
        settings: of the rule.
    """
    usable = np.array([len(v) > 0 for v in frame.voxels], bool) & np.isfinite(frame.scores)
    tracks = np.where(usable, NEW, NOBODY).astype(np.int64)
    if sums is None or len(sums) == 0 or not usable.any():
        return Association(tracks, (), (), ())

    rows = _rows_of(frame, visible, votes)
    around = np.setdiff1d(find(votes.keys, pack(frame.around)), np.append(visible, -1))
    overlap = measure_overlap(votes, visible, [rows[k] for k in np.flatnonzero(usable)], around)
    alive = np.isin(overlap.tracks, sums.ids)
    overlap = overlap.of_tracks(alive)
    cosines = _cosines(sums, overlap.tracks, frame.features[usable])
    odds = log_odds(
        overlap,
        cosines,
        enough_voxels=settings.enough_voxels,
        appearance=settings.appearance,
        new_object=settings.new_object,
    )

    chosen = np.full(int(usable.sum()), NEW, np.int64)
    for track, instance in agree(odds) if len(overlap.tracks) else []:
        chosen[instance] = overlap.tracks[track]
    parted = _parted(chosen)
    _join_fragments(chosen, overlap, settings)
    carried = _find_carried(chosen, overlap, frame, usable, votes, sums, settings)
    tracks[usable] = chosen
    return Association(tracks, carried, _bridged(overlap, settings), parted)


def _rows_of(
    frame: FrameInstances, visible: NDArray[np.int64], votes: Votes
) -> list[NDArray[np.int64]]:
    """Of each instance its rows of ``votes``: in the frame, and beyond it where they are known."""
    rows = [find(votes.keys, pack(voxels)) for voxels in frame.voxels]
    if not frame.beyond:
        return rows
    beyond = [find(votes.keys, pack(voxels)) for voxels in frame.beyond]
    outside = [np.setdiff1d(row, np.append(visible, -1)) for row in beyond]
    return [np.concatenate(pair) for pair in zip(rows, outside)]


def _cosines(sums: TrackSums, tracks: NDArray, features: NDArray) -> NDArray[np.float64]:
    """(T, K), nan where a feature is unknown."""
    of_tracks = sums.take(np.searchsorted(sums.ids, tracks)).mean_features()  # (T, D)
    if features.shape[1] == 0:
        return np.full((len(tracks), len(features)), np.nan)
    return of_tracks @ unit_features(features).T


def _join_fragments(chosen: NDArray, overlap: Overlap, settings: MergeSettings) -> None:
    """Instances that no side chose, but that lie within a track, are pieces of it."""
    if len(overlap.tracks) == 0:
        return
    best = overlap.in_track.argmax(axis=0)  # (K,)
    share = overlap.in_track[best, np.arange(len(chosen))]
    joins = (chosen == NEW) & (share >= settings.fragment)
    joins &= overlap.instance_voxels >= settings.enough_voxels
    chosen[joins] = overlap.tracks[best[joins]]


def _find_carried(
    chosen: NDArray,
    overlap: Overlap,
    frame: FrameInstances,
    usable: NDArray,
    votes: Votes,
    sums: TrackSums,
    settings: MergeSettings,
) -> tuple[int, ...]:
    """New instances that look like a track whose place is empty now are that track."""
    new = np.flatnonzero(chosen == NEW)
    if len(new) == 0 or frame.features.shape[1] == 0:
        return ()
    owned, emptied = (
        np.bincount(column + 1, minlength=int(sums.ids.max()) + 2)[1:][sums.ids]
        for column in (votes.owners, votes.left)
    )
    usual = sums.voxels / np.maximum(sums.hits, 1)
    # looked through, and not merely given to others
    empty = (owned <= settings.moved_left * usual) & (emptied >= settings.moved_left * usual)
    empty &= sums.hits >= settings.confirm_hits
    empty &= ~np.isin(sums.ids, chosen)
    if not empty.any():
        return ()

    # alike in looks and in size, each the other's best
    cosines = np.nan_to_num(_cosines(sums, sums.ids[empty], frame.features[usable][new]), nan=-1.0)
    sizes = np.array([len(v) for v in frame.voxels], float)[usable][new]
    ratio = sizes[None] / np.maximum(usual[empty][:, None], 1)
    cosines[(ratio < 0.3) | (ratio > 3)] = -1
    carried = []
    for row, track in enumerate(sums.ids[empty]):
        column = int(cosines[row].argmax())
        if cosines[row, column] < settings.moved_cosine or cosines[:, column].argmax() != row:
            continue
        chosen[new[column]] = track
        carried.append(int(track))
    return tuple(carried)


def _bridged(overlap: Overlap, settings: MergeSettings) -> tuple[tuple[int, int], ...]:
    """Pairs of tracks that lie in one instance, both with enough of them in view."""
    inside = overlap.in_instance >= _SEEN_BOTH
    inside &= overlap.track_voxels[:, None] >= settings.enough_voxels
    pairs = set()
    for column in inside.T:
        ids = overlap.tracks[column].tolist()
        pairs |= {(a, b) for i, a in enumerate(ids) for b in ids[i + 1 :]}
    return tuple(sorted(pairs))


def _parted(chosen: NDArray) -> tuple[tuple[int, int], ...]:
    """Pairs of tracks that different instances are."""
    ids = np.unique(chosen[chosen >= 0]).tolist()
    return tuple((a, b) for i, a in enumerate(ids) for b in ids[i + 1 :])
