"""Instances of frames → tracks that keep their identity.

    frame → voxels seen → overlap where both were visible → both sides agree → votes → repair

Enters: ``FrameInstances``, one after the other. Leaves: ids of tracks, ``Track`` records, events.
Memory is that of the surface and of the tracks, a few hundred bytes per frame beside; what frames
voted lies on disk. K instances, T tracks.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from oneformer3d.lifting.camera import is_valid_pose

from . import repair
from .associate import NEW, associate
from .casting import cast, seen_keys
from .ledger import Growing, Ledger
from .records import EVENTS, Event, FrameInstances, Track
from .settings import MergeSettings
from .state import MergeState
from .track_sums import TrackSums
from .votes import COLUMNS, NOBODY, Votes
from .voxels import Keys, find, pack, unpack

_DEFAULTS = MergeSettings()
_LEAST_BRIDGE = -5
_SIDES = ('left', 'right')


class OnlineMerge:
    """Tracks of the objects that frames show.

    Args:
        voxel_size: metres; the edge of a vote. About twice the noise of the depth.
        settings: of the merging rule.
        ledger: file for what frames vote; None takes one that vanishes with the object.

    Attributes:
        events: what happened to identities, in order.
        num_duplicates: frames that were given a second time and not counted.

    Example:
        >>> cube = np.argwhere(np.ones((4, 4, 4)))
        >>> frame = FrameInstances(
        ...     (cube,), np.ones(1), np.zeros((1, 2)), np.zeros((1, 0)), visible=cube)
        >>> merge = OnlineMerge(0.04)
        >>> merge.update(frame), merge.update(frame)
        (array([0]), array([0]))
    """

    def __init__(
        self,
        voxel_size: float,
        settings: MergeSettings = _DEFAULTS,
        ledger: str | Path | None = None,
    ) -> None:
        if not voxel_size > 0:
            raise ValueError(f'voxel_size: expected a positive length, got {voxel_size}')
        self.voxel_size = voxel_size
        self.settings = settings
        self.events: list[Event] = []
        self.num_duplicates = 0

        self._ledger = Ledger(voxel_size, ledger)
        self._votes = Votes()
        self._sums: TrackSums | None = None
        self._next_id = 0
        self._track_of = Growing(np.int32)  # of every instance of every frame, by frame
        self._first = Growing(np.int64)  # where the instances of a frame begin
        self._first.append(0)
        self._number_of: dict[int, int] = {}  # index of a frame → its number
        self._bridges: dict[tuple[int, int], int] = {}

    @property
    def num_frames(self) -> int:
        """Frames counted so far."""
        return len(self._ledger)

    @property
    def num_voxels(self) -> int:
        """Voxels that any frame saw."""
        return len(self._votes)

    @property
    def num_ledger_bytes(self) -> int:
        """What frames voted, on disk."""
        return self._ledger.num_bytes

    def update(self, frame: FrameInstances, tracks: NDArray | None = None) -> NDArray[np.int64]:
        """Take in a frame.

        Args:
            frame: its instances. A frame with an index that was there already changes nothing.
            tracks: (K,) the track of each instance, -1 none, where that is known; None finds out.

        Returns:
            (K,) int64 the track of each instance, -1 where it has no voxels or no finite score.

        Raises:
            ValueError: other numbers of channels or classes than before.
        """
        if frame.index is not None and frame.index in self._number_of:
            self.num_duplicates += 1
            return self.tracks_of(self._number_of[frame.index])
        number = self.num_frames
        sums = TrackSums.of_frame(frame, number)
        if self._sums is not None:
            self._sums.expect_like(sums)

        # the map sees the frame, then is asked, then counts its votes
        visible = self._votes.see(seen_keys(frame))
        if tracks is None:
            ids = self._associate(frame, visible, number)
        else:
            ids = np.asarray(tracks, np.int64)
            self._next_id = max(self._next_id, int(ids.max(initial=-1)) + 1)
        known = sums.with_ids(ids)
        self._sums = known if self._sums is None else self._sums.plus(known)
        cast(self._votes, frame, ids)

        self._remember(frame, ids, number)
        if tracks is None and (number + 1) % self.settings.repair_every == 0:
            self._repair(number)
        return self.tracks_of(number)

    def tracks(self) -> list[Track]:
        """All tracks by their ids."""
        if self._sums is None:
            return []
        owners = self._votes.owners
        order = np.argsort(owners, kind='stable')
        begin, end = (np.searchsorted(owners[order], self._sums.ids, side) for side in _SIDES)
        features = self._sums.mean_features().astype(np.float32)
        columns = (self._sums.class_log_probs(), self._sums.coverages(), self._sums.confidences())
        support = self._supports()

        found = []
        for row, track in enumerate(self._sums.ids):
            rows = order[begin[row] : end[row]]
            voxels = unpack(self._votes.keys[rows])
            found.append(
                Track(
                    int(track),
                    self._state_of(row, support[row]),
                    voxels,
                    self._votes.weights[rows, 0],
                    _box(voxels, self.voxel_size),
                    features[row],
                    columns[0][row],
                    float(columns[1][row]),
                    float(support[row]),
                    float(columns[2][row]),
                    int(self._sums.births[row]),
                    int(self._sums.last_seen[row]),
                    int(self._sums.hits[row]),
                )
            )
        return found

    def tracks_of(self, number: int) -> NDArray[np.int64]:
        """(K,) the track that each instance of frame ``number`` belongs to by now, -1 none."""
        begin, end = self._first.values[number : number + 2]
        return self._track_of.values[begin:end].astype(np.int64)

    def owners_of(self, voxels: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) the track of each voxel (n, 3), -1 none."""
        rows = find(self._votes.keys, pack(voxels))
        if len(self._votes) == 0:
            return np.full(len(rows), NOBODY, np.int64)
        return np.where(rows >= 0, self._votes.owners[rows], NOBODY).astype(np.int64)

    def known_voxels(self) -> NDArray[np.int64]:
        """(M, 3) voxels that have votes."""
        return unpack(self._votes.keys[self._votes.owners != NOBODY])

    def move_keyframe(self, number: int, world_from_cam: NDArray) -> None:
        """Correct the pose of one frame, see ``move_keyframes``."""
        self.move_keyframes({number: world_from_cam})

    def move_keyframes(self, poses: Mapping[int, NDArray]) -> None:
        """Take back what frames voted and let them vote from other poses.

        Associations stay. Votes are then bit for bit those of a fresh run that is given the frames
        at the corrected poses and the same associations.

        Args:
            poses: by number of the frame, ``world_from_cam`` (4, 4).

        Raises:
            ValueError: no such frame, a pose that is no rigid motion, or a frame that was given
                without its points in the camera; nothing is changed then.
        """
        for number, pose in poses.items():
            if not 0 <= number < self.num_frames:
                raise ValueError(f'frame {number}: there are {self.num_frames}')
            if not is_valid_pose(torch.from_numpy(np.asarray(pose, np.float64))):
                raise ValueError(f'frame {number}: the pose is no rigid motion')
            if self._ledger.read(number).source is None:
                raise ValueError(f'frame {number}: was given without its points in the camera')

        touched = [self._votes.keys[self._votes.inexact]]
        for number, pose in poses.items():
            before = self._ledger.read(number)
            after = self._ledger.move(number, pose)
            touched += [seen_keys(before), pack(before.free)]
            touched += [seen_keys(after), pack(after.free)]
            if self._sums is not None:
                ids = self.tracks_of(number)
                pair = [TrackSums.of_frame(f, number).with_ids(ids) for f in (before, after)]
                self._sums = self._sums.moved(*pair)
        self._recount(np.unique(np.concatenate(touched)))

    def snapshot(self) -> MergeState:
        """Everything as it stands, for ``restore``; what frames voted is brought to the disk."""
        self._ledger.flush()

        arrays = {
            'next_id': np.array(self._next_id),
            'num_duplicates': np.array(self.num_duplicates),
            'track_of': self._track_of.values.copy(),
            'first': self._first.values.copy(),
            'number_of': np.array(sorted(self._number_of.items()), np.int64).reshape(-1, 2),
            'bridges': np.array([(*k, v) for k, v in self._bridges.items()], np.int64),
            'events': np.array(
                [(e.frame, EVENTS.index(e.kind), e.track, e.other) for e in self.events], np.int64
            ).reshape(-1, 4),
            'ledger_offsets': self._ledger.offsets.values.copy(),
            'ledger_boxes': self._ledger.boxes.values.copy(),
            'moved': np.array(sorted(self._ledger.poses), np.int64),
            'poses': np.array([p for _, p in sorted(self._ledger.poses.items())]).reshape(-1, 4, 4),
        }

        # columns of the votes, and the sums of tracks once there are some
        for name in COLUMNS:
            arrays[f'votes_{name}'] = getattr(self._votes, name).copy()
        if self._sums is not None:
            arrays |= {
                f'sums_{f.name}': getattr(self._sums, f.name).copy() for f in fields(TrackSums)
            }
        return MergeState(arrays)

    def restore(self, state: MergeState) -> None:
        """Go back to a snapshot of this object, or of an earlier process with the same ledger.

        Raises:
            ValueError: the ledger lacks what the snapshot needs.
        """
        arrays = state.arrays
        poses = dict(zip(arrays['moved'].tolist(), arrays['poses']))
        self._ledger.load_index(arrays['ledger_offsets'], arrays['ledger_boxes'], poses)
        self._next_id, self.num_duplicates = int(arrays['next_id']), int(arrays['num_duplicates'])
        self._track_of = Growing(np.int32, values=arrays['track_of'])
        self._first = Growing(np.int64, values=arrays['first'])
        self._number_of = {int(index): int(number) for index, number in arrays['number_of']}
        self._bridges = {(int(a), int(b)): int(n) for a, b, n in arrays['bridges'].reshape(-1, 3)}
        self.events = [
            Event(int(frame), EVENTS[kind], int(track), int(other))
            for frame, kind, track, other in arrays['events']
        ]

        self._votes = Votes()
        for name in COLUMNS:
            setattr(self._votes, name, arrays[f'votes_{name}'].copy())
        self._sums = None
        if 'sums_ids' in arrays:
            self._sums = TrackSums(*(arrays[f'sums_{f.name}'].copy() for f in fields(TrackSums)))

    def _associate(
        self, frame: FrameInstances, visible: NDArray[np.int64], number: int
    ) -> NDArray[np.int64]:
        """(K,) ids, of new tracks too; what happened is noted."""
        found = associate(frame, visible, self._votes, self._sums, self.settings)
        ids = found.tracks.copy()
        new = np.flatnonzero(ids == NEW)
        ids[new] = self._next_id + np.arange(len(new))
        self._next_id += len(new)

        self.events += [Event(number, 'birth', int(track)) for track in ids[new]]
        self.events += [Event(number, 'moved', track) for track in found.carried]
        for track in np.unique(found.tracks[found.tracks >= 0]).tolist():
            if track not in found.carried and self._is_dormant(track, number):
                self.events.append(Event(number, 'revived', track))

        for pairs, change in ((found.bridged, 1), (found.parted, -1)):
            for pair in pairs:
                count = self._bridges.get(pair, 0) + change
                self._bridges[pair] = max(count, _LEAST_BRIDGE)
        return ids

    def _remember(self, frame: FrameInstances, ids: NDArray[np.int64], number: int) -> None:
        self._ledger.append(frame)
        for track in ids:
            self._track_of.append(int(track))
        self._first.append(len(self._track_of))
        if frame.index is not None:
            self._number_of[frame.index] = number

    def _repair(self, number: int) -> None:
        """End what was a mistake, join what is one, split what is two."""
        if self._sums is None:
            return
        settings = self.settings
        tentative = self._sums.hits < settings.confirm_hits
        old = number - self._sums.last_seen > settings.forget_after
        doubtful = tentative | (self._supports() < settings.least_support)
        for track in self._sums.ids[doubtful & old].tolist():
            self._end(track, NOBODY)
            self.events.append(Event(number, 'dropped', track))

        bridged = [pair for pair, count in self._bridges.items() if count >= settings.bridges]
        overlapping = repair.overlapping(self._votes, settings.join_overlap, settings.enough_voxels)
        for kept, ended in sorted({*bridged, *overlapping}):
            if self._has(kept) and self._has(ended):
                self._end(ended, kept)
                self.events.append(Event(number, 'merge', kept, ended))

        for track in self._sums.ids[self._sums.last_seen > number - settings.repair_every].tolist():
            self._split(track, number)

    def _split(self, track: int, number: int) -> None:
        """Make two tracks of one that lies in pieces, unless instances show the pieces as one."""
        keys = self._votes.keys[self._votes.owners == track]
        large = repair.large_pieces(
            keys, unpack(keys), self.settings.split_share, self.settings.split_gap
        )
        if len(large) < 2 or self._sums is None:
            return
        recent = self._sums.recent[self._sums.row(track)]
        shares = [self._piece_shares(int(f), int(r), large[:2]) for f, r in recent if f >= 0]
        whole = sum(min(pair) >= self.settings.split_share for pair in shares)
        alone = [
            sum(
                pair[side] > pair[1 - side] and min(pair) < self.settings.split_share
                for pair in shares
            )
            for side in (0, 1)
        ]
        if 3 * whole > len(shares) or min(alone) < self.settings.split_hits:
            return

        # instances of the second piece become a track of their own
        second = [
            place
            for place in self._places_of(track)
            if np.argmax(self._piece_shares(*self._name_of(place), large[:2])) == 1
        ]
        if not second or len(second) == len(self._places_of(track)):
            return
        new, self._next_id = self._next_id, self._next_id + 1
        self._track_of.values[second] = new
        self._resum([track, new])
        votes = self._votes
        self._recount(votes.keys[(votes.tracks == track).any(axis=1)])
        self.events.append(Event(number, 'split', track, new))

    def _piece_shares(self, number: int, row: int, parts: list[Keys]) -> tuple[float, float]:
        """Share of each of two pieces in an instance."""
        keys = pack(self._ledger.read(number).voxels[row])
        first, second = (np.isin(keys, part).sum() / max(len(keys), 1) for part in parts)
        return float(first), float(second)

    def _places_of(self, track: int) -> NDArray[np.int64]:
        """Where the instances of a track stand among all instances."""
        return np.flatnonzero(self._track_of.values == track)

    def _name_of(self, place: int) -> tuple[int, int]:
        """Number of the frame, and row in it, of an instance."""
        number = int(np.searchsorted(self._first.values, place, 'right')) - 1
        return number, int(place - self._first.values[number])

    def _resum(self, tracks: list[int]) -> None:
        """Add up tracks anew from the ledger."""
        if self._sums is None:
            return
        self._sums = self._sums.without(tracks)
        places = np.flatnonzero(np.isin(self._track_of.values, tracks))
        for number in sorted({self._name_of(place)[0] for place in places.tolist()}):
            ids = self.tracks_of(number)
            ids = np.where(np.isin(ids, tracks), ids, NOBODY)
            frame = self._ledger.read(number)
            self._sums = self._sums.plus(TrackSums.of_frame(frame, number).with_ids(ids))

    def _end(self, track: int, heir: int) -> None:
        """Give all that a track has to another, -1 to nobody."""
        if self._sums is None:
            return
        self._track_of.values[self._places_of(track)] = heir
        ids = np.where(self._sums.ids == track, heir, self._sums.ids)
        self._sums = self._sums.with_ids(ids)
        self._votes.rename({track: heir})
        self._bridges = {pair: n for pair, n in self._bridges.items() if track not in pair}

    def _recount(self, keys: Keys) -> None:
        """Count the votes of some voxels anew, from what all frames say of them."""

        def replay(votes: Votes) -> None:
            for number in self._ledger.touching(keys):
                frame, ids = self._ledger.read(int(number)), self.tracks_of(int(number))
                votes.see(np.intersect1d(seen_keys(frame), keys))
                cast(votes, frame, ids, keys)

        self._votes.recount(keys, replay)

    def _supports(self) -> NDArray[np.float64]:
        """(T,) see ``Track.support``."""
        if self._sums is None:
            return np.zeros(0)
        num = int(self._sums.ids.max(initial=-1)) + 2
        owners = self._votes.owners + 1
        voxels, looks = (
            np.bincount(owners, column, num)[1:][self._sums.ids]
            for column in (None, self._votes.seen)
        )
        # hits / (Σ looks / voxels)
        return self._sums.hits / np.maximum(looks / np.maximum(voxels, 1), 1)

    def _has(self, track: int) -> bool:
        return self._sums is not None and bool((self._sums.ids == track).any())

    def _is_dormant(self, track: int, number: int) -> bool:
        if self._sums is None:
            return False
        row = self._sums.row(track)
        confirmed = self._sums.hits[row] >= self.settings.confirm_hits
        return bool(confirmed and number - self._sums.last_seen[row] > self.settings.dormant_after)

    def _state_of(self, row: int, support: float) -> str:
        if self._sums is None or self._sums.hits[row] < self.settings.confirm_hits:
            return 'tentative'
        if support < self.settings.least_support:
            return 'tentative'
        dormant = self._is_dormant(int(self._sums.ids[row]), self.num_frames - 1)
        return 'dormant' if dormant else 'confirmed'


def _box(voxels: NDArray[np.int64], voxel_size: float) -> NDArray[np.float64]:
    """(2, 3) metres."""
    if len(voxels) == 0:
        return np.zeros((2, 3))
    return np.stack([voxels.min(axis=0), voxels.max(axis=0) + 1]) * voxel_size
