"""Scores of a segmentation that grows: at time t only what was seen until t counts.

Enters: true instances of a scan, and after some frames the surface seen since and the tracks so
far. Leaves: AP over time and its mean, switches of identity, fragments, frames until an object is
right. Nothing looks ahead: a true point that no frame has come within ``max_distance`` of is
unseen, is left out and counted, and never takes the label of whatever lies nearest.

N true points, G true instances, n positions of the map, T tracks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from .instance import InstanceMatches, instance_scores, match_instances

_SHARE_OF_FRAGMENT = 0.05  # of an object's seen points


@dataclass(frozen=True, eq=False)
class TrackMap:
    """The map of tracks at one time.

    Attributes:
        positions: (n, 3) metres.
        tracks: (n,) id of the track at each, -1 none.
        ids: (T,) ids, those that count as found.
        labels: (T,) instance class of each, 0…C−1.
        scores: (T,).
    """

    positions: NDArray[np.float64]
    tracks: NDArray[np.int64]
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """Scores at one time.

    Attributes:
        frame: number of the frame.
        ap, ap50, ap25: over the surface seen until then; nan before any object is seen.
        num_unseen: true points that no frame had come near.
        num_bare: seen true points without any position of the map near them.
    """

    frame: int
    ap: float
    ap50: float
    ap25: float
    num_unseen: int
    num_bare: int


@dataclass(frozen=True)
class StreamScores:
    """Scores of a whole stream.

    Attributes:
        moments: all moments, in order.
        area_ap, area_ap50: means over the moments in which an object was seen.
        final: the last moment.
        switches: per object, times at which another track became the one that matches it.
        fragments: per object found at the end, tracks that lie mostly in it, less one.
        frames_until_right: median over objects of the frames from when it could be found until a
            track matched it with an IoU above 0.5; nan if none ever did.
        num_never_right: objects that no track ever matched.
    """

    moments: tuple[Moment, ...]
    area_ap: float
    area_ap50: float
    final: Moment
    switches: float
    fragments: float
    frames_until_right: float
    num_never_right: int


class CausalEvaluator:
    """Evaluates a stream while it runs.

    Args:
        points: (N, 3) metres, the true surface.
        instance: (N,) ids 0…G−1, -1 void.
        labels: (G,) instance classes.
        num_classes: C.
        max_distance: metres up to which a label is carried over, and up to which surface counts as
            seen.
        min_region_size: least points of an object, as of ``instance_scores``.

    Raises:
        ValueError: no true points.
    """

    def __init__(
        self,
        points: NDArray,
        instance: NDArray[np.int64],
        labels: NDArray[np.int64],
        num_classes: int,
        *,
        max_distance: float = 0.05,
        min_region_size: int = 100,
    ) -> None:
        if len(points) == 0:
            raise ValueError('points: expected at least one')
        self.points, self.instance, self.labels = points, instance, labels
        self.num_classes = num_classes
        self.max_distance = max_distance
        self.min_region_size = min_region_size

        self.seen = np.zeros(len(points), bool)
        self._tree = KDTree(points)
        self._moments: list[Moment] = []
        self._matched = np.full(len(labels), -1, np.int64)  # the track that matched last
        self._switches = np.zeros(len(labels), np.int64)
        self._first_seen = np.full(len(labels), -1, np.int64)
        self._first_right = np.full(len(labels), -1, np.int64)
        self._fragments = np.zeros(len(labels), np.int64)

    def see(self, points: NDArray) -> None:
        """Mark the true surface near points (m, 3) of a frame as seen."""
        missing = np.flatnonzero(~self.seen)
        if len(points) == 0 or len(missing) == 0:
            return
        distance, _ = KDTree(points).query(
            self.points[missing], distance_upper_bound=self.max_distance
        )
        self.seen[missing[np.isfinite(distance)]] = True

    def observe(self, frame: int, found: TrackMap) -> Moment:
        """Score the tracks after a frame.

        Args:
            frame: its number.
            found: the map so far.
        """
        track, near = self._carry(found, self.max_distance)  # (N,)
        seen = self.seen
        match = self._match(track[seen], self.instance[seen], found)
        scores = instance_scores([match], self.num_classes, self.min_region_size)
        self._follow(frame, track[seen], self.instance[seen], found.ids)

        moment = Moment(
            frame,
            scores.mean_ap,
            scores.mean_ap50,
            scores.mean_ap25,
            int((~seen).sum()),
            int((seen & ~near).sum()),
        )
        self._moments.append(moment)
        return moment

    def nearest_without_limit(self, found: TrackMap) -> Moment:
        """ESAM's protocol beside: every true point takes the nearest label, however far it is.

        Without its vote over the segments of the finished mesh.
        """
        track, _ = self._carry(found, np.inf)
        match = self._match(track, self.instance, found)
        scores = instance_scores([match], self.num_classes, self.min_region_size)
        frame = self._moments[-1].frame if self._moments else -1
        return Moment(frame, scores.mean_ap, scores.mean_ap50, scores.mean_ap25, 0, 0)

    def scores(self) -> StreamScores:
        """Everything so far.

        Raises:
            ValueError: nothing was observed.
        """
        if not self._moments:
            raise ValueError('nothing was observed')
        counted = self._first_seen >= 0
        right = self._first_right >= 0
        waited = (self._first_right - self._first_seen)[right]

        return StreamScores(
            tuple(self._moments),
            _nan_mean([m.ap for m in self._moments]),
            _nan_mean([m.ap50 for m in self._moments]),
            self._moments[-1],
            float(self._switches[counted].mean()) if counted.any() else float('nan'),
            float(np.maximum(self._fragments[right] - 1, 0).mean())
            if right.any()
            else float('nan'),
            float(np.median(waited)) if len(waited) else float('nan'),
            int((counted & ~right).sum()),
        )

    def _carry(self, found: TrackMap, limit: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Track of each true point, -1 none, and whether the map reaches it."""
        if len(found.positions) == 0:
            return np.full(len(self.points), -1), np.zeros(len(self.points), bool)
        distance, row = KDTree(found.positions).query(self.points, distance_upper_bound=limit)
        near = np.isfinite(distance)
        track = found.tracks[np.where(near, row, 0)]
        return np.where(near, track, -1), near

    def _match(
        self, track: NDArray[np.int64], instance: NDArray[np.int64], found: TrackMap
    ) -> InstanceMatches:
        masks = track[None] == found.ids[:, None]  # (T, N)
        return match_instances(
            masks, found.labels, found.scores, instance, self.labels, self.min_region_size
        )

    def _follow(
        self, frame: int, track: NDArray, instance: NDArray, ids: NDArray[np.int64]
    ) -> None:
        """Note for each object which track is it by now."""
        num = len(self.labels)
        known = np.isin(track, ids)
        column = np.searchsorted(np.sort(ids), track[known]) if len(ids) else track[known]
        shared = np.zeros((num + 1, max(len(ids), 1)), np.int64)  # the last row is void
        np.add.at(shared, (instance[known], column), 1)
        sizes = np.bincount(instance[instance >= 0], minlength=num)
        self._first_seen[(self._first_seen < 0) & (sizes >= self.min_region_size)] = frame

        # IoU of every object with every track
        of_track = shared.sum(axis=0)
        iou = shared[:num] / np.maximum(sizes[:, None] + of_track - shared[:num], 1)
        best = iou.argmax(axis=1)
        for row in np.flatnonzero((iou.max(axis=1) > 0.5) & (self._first_seen >= 0)):
            matched = int(np.sort(ids)[best[row]])
            self._switches[row] += self._matched[row] not in (-1, matched)
            self._matched[row] = matched
            if self._first_right[row] < 0:
                self._first_right[row] = frame

        inside = shared[:num] >= _SHARE_OF_FRAGMENT * np.maximum(sizes[:, None], 1)
        self._fragments = (inside & (2 * shared[:num] > of_track)).sum(axis=1)


def latency(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile of the seconds of frames.

    Example:
        >>> latency([1.0, 2.0, 3.0])
        (2.0, 2.9)
    """
    p50, p95 = np.percentile(np.asarray(seconds, np.float64), (50, 95))
    return float(p50), round(float(p95), 12)


def slope(values: Sequence[float]) -> float:
    """Least-squares growth per step, such as bytes of memory per frame.

    Example:
        >>> round(slope([5.0, 7.0, 9.0]), 9)
        2.0
    """
    return float(np.polyfit(np.arange(len(values)), np.asarray(values, np.float64), 1)[0])


def _nan_mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float('nan')
