"""Panoptic quality of segmented points.

Enters: a class and a segment id per point, predicted and true, scene by scene.
Leaves: PQ, SQ and RQ per class and for all, thing and stuff classes (Kirillov et al.,
"Panoptic Segmentation", CVPR 2019, equations 1–2): SQ = mean IoU of the matched segments,
RQ = TP / (TP + FP/2 + FN/2), PQ = SQ · RQ, matched = same class and IoU > 0.5.

Means are taken over the classes that occur, as published; a second set counts absent classes
as 0, which gives the numbers of ``mmdet3d.evaluation.panoptic_seg_eval``.

N points, C classes, P predicted and G true segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PanopticCounts:
    """What scenes contribute per class: (C,) int64 tp, fp, fn and float64 sum of IoU."""

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    iou: NDArray[np.float64]


@dataclass(frozen=True)
class PanopticScores:
    """Fractions in 0…1.

    Attributes:
        pq, sq, rq: (C,) per class, 0 (not NaN) for a class that never occurs.
        means: ``{'PQ': …, 'PQ_things': …, 'PQ_stuff': …, 'SQ': …, 'RQ': …, …}``, plain means
            over the classes of the group that occur in truth or prediction; NaN for none.
        means_mmdet3d: the same names, absent classes counted as 0; NaN for an empty group.
    """

    pq: NDArray[np.float64]
    sq: NDArray[np.float64]
    rq: NDArray[np.float64]
    means: dict[str, float]
    means_mmdet3d: dict[str, float]


def panoptic_scores(
    counts: Sequence[PanopticCounts], things: Sequence[int], stuff: Sequence[int]
) -> PanopticScores:
    """Panoptic quality over all scenes.

    Args:
        counts: one per scene, at least one.
        things, stuff: class ids of the two groups.

    Raises:
        ValueError: no scene.
    """
    if not counts:
        raise ValueError('panoptic quality needs at least one scene')
    tp, fp, fn, iou = (
        np.sum([getattr(scene, name) for scene in counts], axis=0)
        for name in ('tp', 'fp', 'fn', 'iou')
    )

    # SQ = Σ IoU / TP,  RQ = TP / (TP + FP/2 + FN/2),  PQ = SQ · RQ
    sq = iou / np.maximum(tp, 1)
    # tp + fp/2 + fn/2 is 0 or at least 1/2, and with 0 the numerator is 0 too.
    rq = tp / np.maximum(tp + 0.5 * fp + 0.5 * fn, 0.5)

    # A class of neither truth nor prediction says nothing about the prediction.
    occurs = tp + fp + fn > 0
    groups = {'': range(len(tp)), '_things': things, '_stuff': stuff}
    every = {suffix: np.asarray(group, dtype=np.int64) for suffix, group in groups.items()}
    occurring = {suffix: group[occurs[group]] for suffix, group in every.items()}

    values = {'PQ': sq * rq, 'SQ': sq, 'RQ': rq}
    return PanopticScores(
        sq * rq, sq, rq, _group_means(values, occurring), _group_means(values, every)
    )


def _group_means(values: dict[str, np.ndarray], groups: dict[str, np.ndarray]) -> dict[str, float]:
    """``{name + suffix: mean}`` of (C,) values over each group of class ids."""
    return {
        name + suffix: float(column[group].mean()) if len(group) else float('nan')
        for suffix, group in groups.items()
        for name, column in values.items()
    }


def match_segments(
    pred_semantic: np.ndarray,
    pred_ids: np.ndarray,
    gt_semantic: np.ndarray,
    gt_ids: np.ndarray,
    num_classes: int,
    min_num_points: int = 1,
) -> PanopticCounts:
    """Compare the segments of one scene. A segment is the points of one class and one id.

    Args:
        pred_semantic, gt_semantic: (N,) integer classes; points whose true class is outside
            0…C−1 are void and leave both sides.
        pred_ids, gt_ids: (N,) integer ids; negative = in no segment, but still in the area
            of the segment of the other side.
        num_classes: C.
        min_num_points: smaller segments count neither as missed nor as false.

    Raises:
        ValueError: lengths differ.
    """
    shapes = {x.shape for x in (pred_semantic, pred_ids, gt_semantic, gt_ids)}
    if len(shapes) != 1 or pred_semantic.ndim != 1:
        raise ValueError(f'expected four label arrays of one length, got {sorted(shapes)}')

    labeled = (gt_semantic >= 0) & (gt_semantic < num_classes)
    pred, pred_class = _segments(pred_semantic[labeled], pred_ids[labeled], num_classes)
    gt, gt_class = _segments(gt_semantic[labeled], gt_ids[labeled], num_classes)

    # the last row and column hold points in no segment: part of the areas, of no match
    shape = len(pred_class) + 1, len(gt_class) + 1
    overlap = np.bincount(pred * shape[1] + gt, minlength=shape[0] * shape[1]).reshape(
        shape
    )  # (P + 1, G + 1)
    pred_area = overlap.sum(axis=1)[:-1]
    gt_area = overlap.sum(axis=0)[:-1]
    shared = overlap[:-1, :-1]
    iou = shared / (pred_area[:, None] + gt_area[None, :] - shared)

    # Above one half the match is unique, so no assignment problem arises.
    is_match = (iou > 0.5) & (pred_class[:, None] == gt_class[None, :])
    is_false = ~is_match.any(axis=1) & (pred_area >= min_num_points)
    is_missed = ~is_match.any(axis=0) & (gt_area >= min_num_points)

    matched_class = pred_class[np.nonzero(is_match)[0]]
    return PanopticCounts(
        tp=np.bincount(matched_class, minlength=num_classes),
        fp=np.bincount(pred_class[is_false], minlength=num_classes),
        fn=np.bincount(gt_class[is_missed], minlength=num_classes),
        iou=np.asarray(
            np.bincount(matched_class, weights=iou[is_match], minlength=num_classes), np.float64
        ),
    )


def _segments(
    semantic: np.ndarray, ids: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Dense segment index per point (the last index = in no segment) and class per segment."""
    member = (ids >= 0) & (semantic >= 0) & (semantic < num_classes)
    # Class-major keys keep each id apart from the same id of another class.
    key = ids[member].astype(np.int64) * num_classes + semantic[member]
    unique, dense = dense_index(key)
    index = np.full(len(ids), len(unique), dtype=np.int64)
    index[member] = dense
    return index, unique % num_classes


def dense_index(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``np.unique(values, return_inverse=True)`` of non-negative integers.

    Counts instead of sorting where the values leave few gaps: ten times as fast for labels.
    """
    top = int(values.max(initial=-1)) + 1
    if top > 4 * len(values) + 1024:
        return np.unique(values, return_inverse=True)
    present = np.bincount(values, minlength=top) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[values]
