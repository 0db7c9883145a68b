"""Voxel → at most three (track, weight).

Enters: keys of voxels, tracks and integer weights, a frame after the other. Leaves: who owns a
voxel. There is no mask per object anywhere: memory is that of the surface, not of frames × objects.

Every voxel follows its own rule and knows nothing of the others, so the votes of some voxels can be
taken back and counted anew alone. M voxels, n votes.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .voxels import Keys, find

SLOTS = 3
BYTES_PER_VOXEL = 8 + SLOTS * (4 + 4) + 4 + 4 + 1  # COLUMNS; 41 ≤ 64
NOBODY = -1
COLUMNS = ('keys', 'tracks', 'weights', 'seen', 'left', 'inexact')


class Votes:
    """The votes of all voxels that any frame saw.

    Attributes:
        keys: (M,) ascending.
        tracks: (M, 3) int32, by descending weight and then ascending number, -1 without.
        weights: (M, 3) int32.
        seen: (M,) int32 in how many frames the voxel was visible.
        left: (M,) int32 the last owner of a voxel that a frame looked through until no vote was
            left, -1 none or voted for again.
        inexact: (M,) bool, more than three tracks have voted, or tracks were renamed since.
    """

    def __init__(self) -> None:
        self.keys: Keys = np.zeros(0, np.int64)
        self.tracks = np.zeros((0, SLOTS), np.int32)
        self.weights = np.zeros((0, SLOTS), np.int32)
        self.seen = np.zeros(0, np.int32)
        self.left = np.zeros(0, np.int32)
        self.inexact = np.zeros(0, bool)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def owners(self) -> NDArray[np.int32]:
        """(M,) the track with the most votes, -1 none."""
        return self.tracks[:, 0]

    def see(self, keys: Keys) -> NDArray[np.int64]:
        """Count distinct ascending voxels as visible once more; their rows."""
        rows = find(self.keys, keys)
        if (rows < 0).any():
            self._insert(keys[rows < 0])
            rows = find(self.keys, keys)
        self.seen[rows] += 1
        return rows

    def add(self, keys: Keys, tracks: NDArray[np.int32], weights: NDArray[np.int32]) -> None:
        """Add n votes; voxels must have been seen, no (voxel, track) may be there twice.

        A fourth track of a voxel takes weight from the weakest, and its place when none is left.
        """
        order = np.lexsort((tracks, keys))
        keys, tracks, weights = keys[order], tracks[order], weights[order]
        rank = _rank_within(keys)

        # one vote per voxel at a time
        for turn in range(int(rank.max(initial=-1)) + 1):
            now = rank == turn
            self._add_one(find(self.keys, keys[now]), tracks[now], weights[now])

    def free(self, keys: Keys) -> None:
        """Halve all votes of voxels that a frame looked through."""
        rows = find(self.keys, keys)
        rows = rows[rows >= 0]
        owners = self.owners[rows]
        self.weights[rows] >>= 1
        emptied = (owners != NOBODY) & (self.weights[rows] == 0).all(axis=1)
        self.left[rows[emptied]] = owners[emptied]
        self.tracks[rows] = np.where(self.weights[rows] > 0, self.tracks[rows], NOBODY)
        self._sort(rows)

    def rename(self, new_of: dict[int, int]) -> None:
        """Give the votes of tracks to other tracks; of -1 they are taken away."""
        old_left = np.isin(self.left, list(new_of))
        rows = np.flatnonzero(np.isin(self.tracks, list(new_of)).any(axis=1) | old_left)
        tracks, weights = self.tracks[rows].copy(), self.weights[rows].copy()
        for old, new in new_of.items():
            tracks[self.tracks[rows] == old] = new
            self.left[self.left == old] = new

        # two slots of one track become one
        for a in range(SLOTS):
            for b in range(a + 1, SLOTS):
                same = (tracks[:, a] == tracks[:, b]) & (tracks[:, a] != NOBODY)
                weights[same, a] += weights[same, b]
                tracks[same, b] = NOBODY
        self.tracks[rows], self.weights[rows] = tracks, np.where(tracks == NOBODY, 0, weights)
        self._sort(rows)
        self.inexact[rows] = True

    def recount(self, keys: Keys, replay: Callable[['Votes'], None]) -> None:
        """Count some voxels anew.

        Args:
            keys: ascending voxels.
            replay: fills empty ``Votes`` with what all frames say of these voxels.
        """
        fresh = Votes()
        replay(fresh)
        rows = find(self.keys, keys)
        rows = rows[rows >= 0]

        # old rows out, new ones in
        keep = np.ones(len(self.keys), bool)
        keep[rows] = False
        order = np.argsort(np.concatenate([self.keys[keep], fresh.keys]), kind='stable')
        for name in COLUMNS:
            both = np.concatenate([getattr(self, name)[keep], getattr(fresh, name)])
            setattr(self, name, both[order])

    def shares(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, 3) share of each slot in the votes of a voxel, 0 without votes."""
        weights = self.weights[rows].astype(np.float64)
        return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1)

    def _add_one(
        self, rows: NDArray[np.int64], tracks: NDArray[np.int32], weights: NDArray[np.int32]
    ) -> None:
        """Add one vote to each of distinct rows."""
        slots, held = self.tracks[rows], self.weights[rows]
        mine = slots == tracks[:, None]
        known, room = mine.any(axis=1), (slots == NOBODY).any(axis=1)
        slot = np.where(known, mine.argmax(axis=1), (slots == NOBODY).argmax(axis=1))

        # a fourth track: rows are sorted, so the last slot is the weakest
        full = ~known & ~room
        slot[full] = SLOTS - 1
        line = np.arange(len(rows))
        before = held[line, slot]
        after = np.where(full, weights - before, before + weights)
        replaced = ~full | (after >= 0)
        slots[line, slot] = np.where(replaced, tracks, slots[line, slot])
        held[line, slot] = np.where(full, np.maximum(np.abs(after), 1), after)

        self.tracks[rows], self.weights[rows] = slots, held
        self.left[rows] = NOBODY
        self.inexact[rows[full]] = True
        self._sort(rows)

    def _sort(self, rows: NDArray[np.int64]) -> None:
        """Bring slots into their order; empty ones last."""
        tracks, weights = self.tracks[rows], self.weights[rows]
        rank = np.where(tracks == NOBODY, np.iinfo(np.int32).max, tracks)
        order = np.lexsort((rank, -weights), axis=1)
        self.tracks[rows] = np.take_along_axis(tracks, order, 1)
        self.weights[rows] = np.take_along_axis(weights, order, 1)

    def _insert(self, keys: Keys) -> None:
        at = np.searchsorted(self.keys, keys)
        self.keys = np.insert(self.keys, at, keys)
        self.tracks = np.insert(self.tracks, at, NOBODY, axis=0)
        self.weights = np.insert(self.weights, at, 0, axis=0)
        self.seen = np.insert(self.seen, at, 0)
        self.left = np.insert(self.left, at, NOBODY)
        self.inexact = np.insert(self.inexact, at, False)


def _rank_within(keys: Keys) -> NDArray[np.int64]:
    """Of sorted keys, how many equal ones stand before each."""
    if len(keys) == 0:
        return np.zeros(0, np.int64)
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    lengths = np.diff(np.append(first, len(keys)))
    return np.arange(len(keys)) - np.repeat(first, lengths)
