"""Scores of one labelled scan whose names need not be the model's.

Enters: true classes and instances of N points, and what was predicted for them. Leaves: IoU per
name, accuracy of the floor, class-agnostic average precision, calibration error.

N points, C names of the labels, M of the model, K predicted masks, G true instances.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .instance import instance_scores, match_instances
from .semantic import nan_mean, safe_divide

NUM_BINS = 10


@dataclass(frozen=True)
class ScanLabels:
    """What is true of the points of a scan.

    Attributes:
        names: C class names.
        semantic: (N,) 0…C−1; anything else is unlabeled.
        instance: (N,) 0…G−1, -1 where none is.
        stuff: names without instances, left out of the scores of instances with the unlabeled.
    """

    names: tuple[str, ...]
    semantic: NDArray[np.int64]
    instance: NDArray[np.int64]
    stuff: tuple[str, ...] = ('wall', 'floor', 'ceiling')

    def rows(self, keep: NDArray) -> 'ScanLabels':
        """The labels of some of the points, (N,) bool or rows; instances without any are gone."""
        kept = self.instance[keep]
        dense = np.full(len(kept), -1, np.int64)
        dense[kept >= 0] = np.unique(kept[kept >= 0], return_inverse=True)[1]
        return ScanLabels(self.names, self.semantic[keep], dense, self.stuff)


@dataclass(frozen=True)
class AgnosticScores:
    """Average precision of masks without their names, and how far scores are from the truth."""

    ap50: float
    ap25: float
    num_instances: int
    calibration_error: float


def names_of_classes(
    label_names: Sequence[str],
    model_names: Sequence[str],
    mapping: Mapping[str, Sequence[str]],
) -> NDArray[np.int64]:
    """Which name of the labels each class of the model means.

    Args:
        label_names: C.
        model_names: M.
        mapping: name of the labels → names of the model that mean it; a name that is not there
            means itself.

    Returns:
        (M,) 0…C−1, C for a class that the labels have no name for.

    Raises:
        ValueError: a name that neither has, or a class of the model that is to mean two.

    Example:
        >>> names_of_classes(['wall', 'table'], ['wall', 'desk', 'bed'], {'table': ['desk']})
        array([0, 1, 2])
    """
    unknown = sorted(set(mapping) - set(label_names))
    if unknown:
        raise ValueError(f'mapping: the labels have no class {", ".join(unknown)}')

    meant = np.full(len(model_names), len(label_names), np.int64)
    for name, sources in mapping.items():
        for source in sources:
            if source not in model_names:
                raise ValueError(f'mapping: {name}: the model has no class {source}')
            position = list(model_names).index(source)
            if meant[position] < len(label_names):
                raise ValueError(f'mapping: {source} would mean two classes of the labels')
            meant[position] = list(label_names).index(name)

    # the others mean themselves, unless the mapping has taken their name for another
    for position, source in enumerate(model_names):
        if meant[position] == len(label_names) and source in set(label_names) - set(mapping):
            meant[position] = list(label_names).index(source)
    return meant


def name_ious(labels: ScanLabels, predicted: NDArray[np.integer]) -> NDArray[np.float64]:
    """Intersection over union (C,) over the labeled points; NaN for names that are not true.

    Args:
        labels: of N points.
        predicted: (N,) 0…C, C for something else.
    """
    num = len(labels.names)
    labeled = (labels.semantic >= 0) & (labels.semantic < num)
    pair = labels.semantic[labeled] * (num + 1) + predicted[labeled]
    counts = np.bincount(pair, minlength=num * (num + 1)).reshape(num, num + 1)

    correct, true = np.diag(counts), counts.sum(axis=1)
    # TP / (TP + FN + FP)
    iou = safe_divide(correct, true + counts[:, :num].sum(axis=0) - correct)
    return np.where(true > 0, iou, np.nan)


def recall_of(labels: ScanLabels, predicted: NDArray[np.integer], name: str) -> float:
    """Share of the points of a name that are called so; NaN where the scan has none."""
    if name not in labels.names:
        return float('nan')
    index = labels.names.index(name)
    true = labels.semantic == index
    return nan_mean((predicted[true] == index).astype(float))


def agnostic_scores(
    labels: ScanLabels,
    masks: NDArray[np.bool_],
    scores: NDArray[np.floating],
    names: Sequence[str] | None = None,
    min_points: int = 10,
) -> AgnosticScores:
    """Average precision of masks whatever they are called, by the rules of ScanNet's benchmark.

    Unlabeled points, stuff and instances of other names are void: predictions there are not held
    against anyone.

    Args:
        labels: of N points.
        masks: (K, N).
        scores: (K,).
        names: only true instances of these; None counts all.
        min_points: least size of a mask and of a true instance.
    """
    num = len(labels.names)
    stuff = [labels.names.index(name) for name in labels.stuff if name in labels.names]
    void = (labels.semantic < 0) | (labels.semantic >= num) | np.isin(labels.semantic, stuff)
    instance = np.where(void, -1, labels.instance)

    # an instance has the name of its first point
    present, first = np.unique(instance, return_index=True)
    present, first = present[present >= 0], first[present >= 0]
    wanted = np.full(int(instance.max(initial=-1)) + 1, -1, np.int64)
    for identity, row in zip(present, first, strict=True):
        if names is None or labels.names[labels.semantic[row]] in names:
            wanted[identity] = 0

    matches = match_instances(
        masks, np.zeros(len(masks), np.int64), scores, instance, wanted, min_points
    )
    result = instance_scores([matches], 1, min_points)
    counted = (np.bincount(instance[instance >= 0], minlength=len(wanted)) >= min_points) & (
        wanted == 0
    )
    error = calibration_error(*_hits(masks, scores, instance, wanted, min_points))
    return AgnosticScores(result.mean_ap50, result.mean_ap25, int(counted.sum()), error)


def calibration_error(scores: NDArray[np.floating], hits: NDArray[np.bool_]) -> float:
    """Expected calibration error: mean distance of score and share of hits over ten bins.

    Args:
        scores: (K,) within 0…1.
        hits: (K,) what turned out true.

    Example:
        >>> round(calibration_error(np.array([0.95, 0.95]), np.array([True, False])), 2)
        0.45
    """
    if not len(scores):
        return float('nan')
    bins = np.minimum((np.asarray(scores) * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    # Σ_b |Σ_{k in b} hit − score| / K
    gaps = np.bincount(bins, weights=np.asarray(hits, float) - scores)
    return float(np.abs(gaps).sum() / len(scores))


def _hits(
    masks: NDArray[np.bool_],
    scores: NDArray[np.floating],
    instance: NDArray[np.int64],
    wanted: NDArray[np.int64],
    min_points: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores of masks that lie mostly on wanted instances, and whether each is the first to cover
    one by more than half."""
    counted = np.append(wanted == 0, False)[instance]
    sizes = np.bincount(instance[counted], minlength=len(wanted))
    free = sizes >= min_points
    kept, hits = [], []
    for row in np.argsort(-np.asarray(scores), kind='stable'):
        mask = masks[row]
        inside = instance[mask & counted]
        if mask.sum() < min_points or 2 * len(inside) < mask.sum():
            continue

        shared = np.bincount(inside, minlength=len(wanted))
        iou = shared / np.maximum(sizes + mask.sum() - shared, 1)
        best = int(np.argmax(iou))
        hit = bool(iou[best] > 0.5 and free[best])
        free[best] &= not hit
        kept.append(float(scores[row]))
        hits.append(hit)
    return np.array(kept), np.array(hits, bool)
