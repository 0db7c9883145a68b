"""Random scenes and predictions that provoke the corner cases of instance matching."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Scene:
    """N points, P predictions, G true instances, classes 0…I−1 (−1 = void).

    gt_instance (N,) in −1…G−1, gt_labels (G,), masks (P, N) bool, labels (P,), scores (P,).
    """

    gt_instance: np.ndarray
    gt_labels: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def random_scene(
    rng: np.random.Generator, num_classes: int, disjoint: bool = False, num_points: int = 600
) -> Scene:
    """True instances are runs of points of very unequal length with void between.

    Predictions shift, cut, merge, repeat or mislabel them; scores are coarse, so they tie.
    """
    cuts = np.sort(rng.integers(0, num_points, size=rng.integers(0, 12)))
    runs = np.searchsorted(cuts, np.arange(num_points), side='right')
    gt_instance, num_gt = runs, len(cuts) + 1
    gt_instance = np.where(rng.random(num_gt)[runs] < 0.15, -1, gt_instance)
    gt_labels = rng.integers(-1, num_classes, size=num_gt)
    if rng.random() < 0.1:
        gt_instance = np.full(num_points, -1)

    masks, labels = [], []
    for _ in range(0 if rng.random() < 0.1 else rng.integers(1, 25)):
        source = rng.integers(num_gt)
        mask = np.roll(runs == source, rng.integers(-20, 21))
        if rng.random() < 0.25:  # swallow a neighbour
            mask |= runs == rng.integers(num_gt)
        if rng.random() < 0.5:  # lose points
            mask &= rng.random(num_points) < rng.choice([0.3, 0.5, 0.7, 0.9])
        if rng.random() < 0.1:
            mask[:] = False
        masks.append(mask)
        right = gt_labels[source] >= 0 and rng.random() < 0.8
        labels.append(gt_labels[source] if right else rng.integers(num_classes))
    masks = np.array(masks, dtype=bool).reshape(-1, num_points)
    if disjoint:
        masks &= np.cumsum(masks, axis=0) == 1
    scores = rng.integers(0, 6, size=len(masks)).astype(np.float32) / 5
    return Scene(gt_instance, gt_labels, masks, np.array(labels, dtype=np.int64), scores)
