"""What tracks add up.

Enters: the instances that joined a track. Leaves: its mean feature, classes, confidence, coverage.
Every sum is one of integers, so it does not depend on the order in which instances came, and what
was added can be taken back exactly. T tracks, D channels, C classes, K instances of a frame.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from .records import FrameInstances

NUM_DIRECTIONS = 12 * 24  # bins of the sphere of directions: elevation, azimuth
NUM_RECENT = 32  # instances that a track remembers by name
MAX_BYTES_PER_TRACK = 8192
_FEATURE_UNIT = 1 << 16
_LOG_UNIT = 1 << 16
_SCORE_UNIT = 1 << 16
_LEAST_LOG = -20.0


@dataclass(frozen=True, eq=False)
class TrackSums:
    """Sums of T tracks, by ascending id.

    Attributes:
        ids: (T,) int64.
        features: (T, D) int64, unit vectors by 2¹⁶ and by their voxels.
        feature_voxels: (T,) int64, voxels of the instances with a feature.
        log_probs: (T, C) int64, by 2¹⁶.
        scores: (T,) int64, by 2¹⁶.
        directions: (T, 288) int32, instances seen from each direction.
        voxels: (T,) int64, voxels of all instances.
        hits: (T,) int64.
        births, last_seen: (T,) int64 numbers of frames.
        recent: (T, 32, 2) int32 (frame, row) of the last instances, oldest first after -1.
    """

    ids: NDArray[np.int64]
    features: NDArray[np.int64]
    feature_voxels: NDArray[np.int64]
    log_probs: NDArray[np.int64]
    scores: NDArray[np.int64]
    directions: NDArray[np.int32]
    voxels: NDArray[np.int64]
    hits: NDArray[np.int64]
    births: NDArray[np.int64]
    last_seen: NDArray[np.int64]
    recent: NDArray[np.int32]

    @classmethod
    def of_frame(cls, frame: FrameInstances, number: int) -> 'TrackSums':
        """One track per instance of frame ``number``, without ids.

        Raises:
            ValueError: features or classes so many that a track would need more than 8 kB.
        """
        num = len(frame.voxels)
        sizes = np.array([len(v) for v in frame.voxels], np.int64).reshape(num)
        units = unit_features(frame.features)  # (K, D)
        known = np.isfinite(units).all(axis=1) & (frame.features.shape[1] > 0)
        features = np.rint(np.where(known[:, None], units, 0) * _FEATURE_UNIT).astype(np.int64)

        recent = np.full((num, NUM_RECENT, 2), -1, np.int32)
        recent[:, -1, 0], recent[:, -1, 1] = number, np.arange(num)
        scores = np.nan_to_num(np.asarray(frame.scores, np.float64)).clip(0, 1)
        sums = cls(
            np.full(num, -1, np.int64),
            features * sizes[:, None],
            sizes * known,
            np.rint(log_softmax(frame.class_logits) * _LOG_UNIT).astype(np.int64),
            np.rint(scores * _SCORE_UNIT).astype(np.int64),
            _directions(frame),
            sizes,
            np.ones(num, np.int64),
            np.full(num, number, np.int64),
            np.full(num, number, np.int64),
            recent,
        )
        if sums.bytes_per_track > MAX_BYTES_PER_TRACK:
            raise ValueError(
                f'a track of {features.shape[1]} channels and {frame.class_logits.shape[1]} '
                f'classes needs {sums.bytes_per_track} bytes, at most {MAX_BYTES_PER_TRACK} are '
                'meant'
            )
        return sums

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def bytes_per_track(self) -> int:
        """Memory of one track."""
        arrays = [getattr(self, one.name) for one in fields(self)]
        return sum(int(np.prod(a.shape[1:], dtype=np.int64)) * a.itemsize for a in arrays)

    def expect_like(self, other: 'TrackSums') -> None:
        """Raise ValueError where the other has another number of channels or of classes."""
        for name in ('features', 'log_probs'):
            mine, others = getattr(self, name).shape[1], getattr(other, name).shape[1]
            if mine != others:
                raise ValueError(f'{name}: expected {mine} as of earlier frames, got {others}')

    def row(self, track: int) -> int:
        """The row of a track.

        Raises:
            KeyError: there is none of this id.
        """
        at = int(np.searchsorted(self.ids, track))
        if at == len(self.ids) or self.ids[at] != track:
            raise KeyError(f'no track {track}')
        return at

    def take(self, rows: NDArray) -> 'TrackSums':
        """Some of the tracks."""
        return TrackSums(*(getattr(self, one.name)[rows] for one in fields(self)))

    def with_ids(self, ids: NDArray) -> 'TrackSums':
        """The same sums of other tracks, those of equal ids added up; ids of -1 are left out."""
        kept = self.take(np.flatnonzero(ids >= 0))
        return replace(kept, ids=np.asarray(ids, np.int64)[ids >= 0])._add_equal()

    def plus(self, other: 'TrackSums') -> 'TrackSums':
        """Both, tracks of equal ids added up."""
        pairs = [(getattr(self, one.name), getattr(other, one.name)) for one in fields(self)]
        return TrackSums(*(np.concatenate(pair) for pair in pairs))._add_equal()

    def without(self, ids: list[int]) -> 'TrackSums':
        """All but these tracks."""
        return self.take(np.flatnonzero(~np.isin(self.ids, ids)))

    def mean_features(self) -> NDArray[np.float64]:
        """(T, D) unit vectors; nan where no instance had a feature."""
        features = self.features.astype(np.float64)
        length = np.linalg.norm(features, axis=1, keepdims=True)
        known = (self.feature_voxels[:, None] > 0) & (length > 0)
        return np.where(known, features / np.maximum(length, 1e-12), np.nan)

    def confidences(self) -> NDArray[np.float64]:
        """(T,) 1 − exp(−Σ scores)."""
        return 1 - np.exp(-self.scores / _SCORE_UNIT)

    def class_log_probs(self) -> NDArray[np.float64]:
        """(T, C)."""
        return self.log_probs / _LOG_UNIT

    def coverages(self) -> NDArray[np.float64]:
        """(T,) share of the directions."""
        return (self.directions > 0).mean(axis=1)

    def moved(self, before: 'TrackSums', after: 'TrackSums') -> 'TrackSums':
        """The sums after a frame's pose was corrected: its own sums before and after."""
        directions = self.directions.copy()
        for sums, sign in ((before, -1), (after, 1)):
            rows = np.searchsorted(self.ids, sums.ids)
            directions[rows] += sign * sums.directions
        voxels, feature_voxels, features = (
            getattr(self, name).copy() for name in ('voxels', 'feature_voxels', 'features')
        )
        for sums, sign in ((before, -1), (after, 1)):
            rows = np.searchsorted(self.ids, sums.ids)
            voxels[rows] += sign * sums.voxels
            feature_voxels[rows] += sign * sums.feature_voxels
            features[rows] += sign * sums.features
        return replace(
            self,
            directions=directions,
            voxels=voxels,
            feature_voxels=feature_voxels,
            features=features,
        )

    def _add_equal(self) -> 'TrackSums':
        ids, inverse = np.unique(self.ids, return_inverse=True)
        if len(ids) == len(self.ids) and (ids == self.ids).all():
            return self

        summed = {}
        for name in ('features', 'feature_voxels', 'log_probs', 'scores', 'directions', 'voxels'):
            values = getattr(self, name)
            total = np.zeros((len(ids), *values.shape[1:]), values.dtype)
            np.add.at(total, inverse, values)
            summed[name] = total
        hits = np.bincount(inverse, self.hits, len(ids)).astype(np.int64)
        births = np.full(len(ids), np.iinfo(np.int64).max)
        last_seen = np.full(len(ids), -1, np.int64)
        np.minimum.at(births, inverse, self.births)
        np.maximum.at(last_seen, inverse, self.last_seen)
        recent = np.stack([_latest(self.recent[inverse == k]) for k in range(len(ids))])
        return TrackSums(
            ids, hits=hits, births=births, last_seen=last_seen, recent=recent, **summed
        )


def unit_features(features: NDArray) -> NDArray[np.float64]:
    """(K, D) of unit length; nan where a row is not finite or zero."""
    features = np.asarray(features, np.float64)
    with np.errstate(invalid='ignore', over='ignore'):
        length = np.linalg.norm(features, axis=1, keepdims=True)
        usable = np.isfinite(length) & (length > 0)
        return np.where(usable, features / np.where(usable, length, 1), np.nan)


def log_softmax(logits: NDArray) -> NDArray[np.float64]:
    """(K, C) not below −20; zeros, which is no vote, where a row is not finite."""
    logits = np.asarray(logits, np.float64)
    if logits.shape[1] == 0:
        return logits
    usable = np.isfinite(logits).all(axis=1, keepdims=True)
    logits = np.where(usable, logits, 0)
    shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)

    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.where(usable, np.maximum(log_probs, _LEAST_LOG), 0)


def _directions(frame: FrameInstances) -> NDArray[np.int32]:
    """(K, 288) one at the direction in which the camera lies, seen from the instance."""
    directions = np.zeros((len(frame.voxels), NUM_DIRECTIONS), np.int32)
    if frame.source is None or not frame.voxels:
        return directions
    centres = [
        frame.source.in_world(frame.source.points[rows]).mean(axis=0) if len(rows) else np.zeros(3)
        for rows in frame.source.members
    ]
    x, y, z = (frame.source.world_from_cam[:3, 3] - np.stack(centres)).T

    azimuth = np.floor((np.arctan2(y, x) / (2 * np.pi) % 1) * 24).astype(int).clip(0, 23)
    height = (z / np.maximum(np.sqrt(x * x + y * y + z * z), 1e-12) + 1) / 2
    elevation = np.floor(height * 12).astype(int).clip(0, 11)
    directions[np.arange(len(centres)), elevation * 24 + azimuth] = 1
    return directions


def _latest(recent: NDArray[np.int32]) -> NDArray[np.int32]:
    """The last 32 (frame, row) of several tracks' (t, 32, 2)."""
    rows = recent.reshape(-1, 2)
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    return rows[order][-NUM_RECENT:]
