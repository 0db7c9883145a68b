"""ESAM's merging rule, from its description, as the control of ``benchmark.py stream``.

Enters: ``FrameInstances``. Leaves: a track for each, and the owner of every voxel. A pair of a
track and an instance scores ⟨f, f'⟩ · IoU of their boxes, nothing where their classes differ; the
best assignment in all joins every pair above zero, without a threshold (Xu et al. 2024). Boxes,
features and classes of a track are means over its instances. K instances, T tracks.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from oneformer3d.streaming.records import FrameInstances


class EsamMerge:
    """Tracks by ESAM's rule; a voxel belongs to the track that most frames gave it.

    Attributes:
        counts: (T,) instances of each track.
        scores: (T,) mean score.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(0)
        self.scores = np.zeros(0)
        self._boxes = np.zeros((0, 6))
        self._features = np.zeros((0, 0))
        self._labels = np.zeros(0, np.int64)
        self._votes: dict[tuple[int, int, int], dict[int, int]] = {}

    def update(self, frame: FrameInstances) -> NDArray[np.int64]:
        """The track (K,) of each instance, -1 for those without voxels."""
        ids = np.full(len(frame.voxels), -1, np.int64)
        rows = [k for k, voxels in enumerate(frame.voxels) if len(voxels)]
        if not rows:
            return ids
        boxes = np.array([[*v.min(0), *(v.max(0) + 1)] for v in (frame.voxels[k] for k in rows)])
        features = frame.features[rows]
        labels = frame.class_logits[rows].argmax(axis=1)

        ids[rows] = self._assign(boxes, features, labels)
        new = ids[rows] >= len(self.counts)
        self._grow(boxes.shape[1], features[new], labels[new])
        self._average(ids[rows], boxes, features, frame.scores[rows])
        for k in rows:
            for voxel in map(tuple, frame.voxels[k].tolist()):
                votes = self._votes.setdefault(voxel, {})
                votes[int(ids[k])] = votes.get(int(ids[k]), 0) + 1
        return ids

    def owners_of(self, voxels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The track (n,) of each voxel (n, 3), -1 none."""
        found = [self._votes.get((x, y, z)) for x, y, z in voxels.tolist()]
        return np.array([max(v, key=v.__getitem__) if v else -1 for v in found], np.int64)

    def _assign(self, boxes: NDArray, features: NDArray, labels: NDArray) -> NDArray[np.int64]:
        ids = np.full(len(boxes), -1, np.int64)
        if len(self.counts):
            alike = _unit(self._features) @ _unit(features).T * box_ious(self._boxes, boxes)
            alike[self._labels[:, None] != labels] = 0  # (T, K)
            for track, k in zip(*linear_sum_assignment(-alike.clip(0))):
                if alike[track, k] > 0:
                    ids[k] = track
        unmatched = np.flatnonzero(ids < 0)
        ids[unmatched] = len(self.counts) + np.arange(len(unmatched))
        return ids

    def _grow(self, width: int, features: NDArray, labels: NDArray) -> None:
        num = len(labels)
        self.counts = np.append(self.counts, np.zeros(num))
        self.scores = np.append(self.scores, np.zeros(num))
        self._boxes = np.concatenate([self._boxes, np.zeros((num, width))])
        old = self._features.reshape(-1, features.shape[1])
        self._features = np.concatenate([old, np.zeros_like(features)])
        self._labels = np.append(self._labels, labels)

    def _average(self, ids: NDArray, boxes: NDArray, features: NDArray, scores: NDArray) -> None:
        share = 1 / (self.counts[ids] + 1)
        self._boxes[ids] += (boxes - self._boxes[ids]) * share[:, None]
        self._features[ids] += (features - self._features[ids]) * share[:, None]
        self.scores[ids] += (scores - self.scores[ids]) * share
        self.counts[ids] += 1


def box_ious(first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """Intersection over union (T, K) of boxes (T, 6) and (K, 6), lowest then highest corner.

    Example:
        >>> box_ious(np.array([[0, 0, 0, 2, 1, 1]]), np.array([[1, 0, 0, 3, 1, 1]])).round(3)
        array([[0.333]])
    """
    low = np.maximum(first[:, None, :3], second[None, :, :3])
    high = np.minimum(first[:, None, 3:], second[None, :, 3:])
    shared = (high - low).clip(0).prod(axis=2)
    volumes = [(boxes[:, 3:] - boxes[:, :3]).prod(axis=1) for boxes in (first, second)]
    return shared / np.maximum(volumes[0][:, None] + volumes[1] - shared, 1e-12)


def _unit(features: NDArray) -> NDArray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
