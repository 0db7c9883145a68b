"""Instance segmentation average precision after the ScanNet benchmark.

Enters: scored, labelled boolean masks and a true instance id per point, scene by scene.
Leaves: AP (mean over IoU 0.5, 0.55 … 0.9), AP50 and AP25 per class and overall.
Each scene shrinks to an ``InstanceMatches`` of a few kilobytes; no mask outlives its scene.

N points, P predictions, G true instances, I instance classes, T IoU thresholds.
Rules and numbers are those of ``mmdet3d.evaluation.instance_seg_eval`` (ScanNet's
``evaluate_semantic_instance.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oneformer3d.lifting.shapes import expect_shape

from .semantic import nan_mean

# The benchmark's nine thresholds, with arange's rounding, then 0.25 on its own.
IOU_THRESHOLDS = np.append(np.arange(0.5, 0.95, 0.05), 0.25)


@dataclass(frozen=True)
class InstanceScores:
    """Average precisions, fractions in 0…1; NaN for a class without true instances.

    Attributes:
        ap, ap50, ap25: (I,) per class.
        mean_ap, mean_ap50, mean_ap25: means over the classes that have true instances.
    """

    ap: NDArray[np.float64]
    ap50: NDArray[np.float64]
    ap25: NDArray[np.float64]
    mean_ap: float
    mean_ap50: float
    mean_ap25: float


@dataclass(frozen=True)
class InstanceMatches:
    """All that a scene contributes to average precision.

    Attributes:
        pred_labels, pred_scores, pred_sizes: (P,) class, confidence and number of points.
        pred_ignored: (P,) points on void or on too small true instances of the same class.
        gt_labels, gt_sizes: (G,) class and number of points.
        pairs: (3, M) int64 rows (prediction, true instance, shared points) of every
            overlapping pair of one class, ordered by true instance, then prediction.
    """

    pred_labels: NDArray[np.integer]
    pred_scores: NDArray[np.floating]
    pred_sizes: NDArray[np.integer]
    pred_ignored: NDArray[np.integer]
    gt_labels: NDArray[np.integer]
    gt_sizes: NDArray[np.integer]
    pairs: NDArray[np.int64]


def instance_scores(
    matches: Sequence[InstanceMatches], num_classes: int, min_region_size: int = 100
) -> InstanceScores:
    """Average precision over all scenes.

    Args:
        matches: one per scene, from ``match_instances`` with the same ``min_region_size``.
        num_classes: I.
        min_region_size: true instances with fewer points are not to be found.
    """
    table = average_precisions(matches, num_classes, min_region_size)
    ap, ap50, ap25 = table[:, :-1].mean(axis=1), table[:, 0], table[:, -1]
    return InstanceScores(ap, ap50, ap25, nan_mean(ap), nan_mean(ap50), nan_mean(ap25))


def match_instances(
    masks: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    gt_instance: np.ndarray,
    gt_labels: np.ndarray,
    min_region_size: int = 100,
) -> InstanceMatches:
    """Reduce one scene to its matching summary.

    Args:
        masks: (P, N) bool, may overlap; masks below ``min_region_size`` points are dropped.
        labels: (P,) integer instance classes 0…I−1.
        scores: (P,) finite confidences.
        gt_instance: (N,) integer ids 0…G−1; −1 is void.
        gt_labels: (G,) integer instance classes; −1 makes an instance void.
        min_region_size: least number of points of a prediction and of a true instance.

    Raises:
        ValueError: shapes or dtypes do not fit, a score is not finite, an id is beyond G.
    """
    _check_scene(masks, labels, scores, gt_instance, gt_labels, min_region_size)
    num_gt = len(gt_labels)

    evaluated = np.append(gt_labels >= 0, False)
    # Column G collects the void; index −1 reaches it too.
    column = np.where(evaluated[gt_instance], gt_instance, num_gt).astype(np.int64)  # (N,)
    shared = np.zeros((len(masks), num_gt + 1), dtype=np.int64)  # (P, G + 1)
    for row, mask in zip(shared, masks):
        row[:] = np.bincount(column[mask], minlength=num_gt + 1)

    sizes = shared.sum(axis=1)
    keep = sizes >= min_region_size
    shared, sizes, labels, scores = shared[keep], sizes[keep], labels[keep], scores[keep]

    gt_sizes = np.bincount(column, minlength=num_gt + 1)[:num_gt]
    same_class = shared[:, :num_gt] * (labels[:, None] == gt_labels[None, :])
    too_small = gt_sizes < min_region_size
    gt_index, pred_index = np.nonzero(same_class.T)
    return InstanceMatches(
        pred_labels=labels.astype(np.int64),
        pred_scores=scores.astype(np.float64),
        pred_sizes=sizes,
        pred_ignored=shared[:, num_gt] + same_class[:, too_small].sum(axis=1),
        gt_labels=gt_labels.astype(np.int64),
        gt_sizes=gt_sizes,
        pairs=np.stack([pred_index, gt_index, same_class[pred_index, gt_index]]),
    )


def average_precisions(
    matches: Sequence[InstanceMatches], num_classes: int, min_region_size: int = 100
) -> np.ndarray:
    """Average precision of every class at every threshold.

    Returns:
        (I, T) float64 with T = ``IOU_THRESHOLDS``. NaN without true instances of the class,
        0 with true instances but no prediction.
    """
    table = np.full((num_classes, len(IOU_THRESHOLDS)), np.nan)
    if not matches:
        return table

    whole = _concatenate(matches)
    pair_label = whole.gt_labels[whole.pairs[1]]
    for label in range(num_classes):
        gt_is_counted = (whole.gt_labels == label) & (whole.gt_sizes >= min_region_size)
        preds = np.flatnonzero(whole.pred_labels == label)
        if not gt_is_counted.any():
            continue
        if not preds.size:
            table[label] = 0.0
            continue

        pairs = whole.pairs[:, pair_label == label]
        for index, threshold in enumerate(IOU_THRESHOLDS):
            outcome = _outcomes(whole, preds, pairs, gt_is_counted, threshold)
            table[label, index] = _area_under_curve(*outcome)
    return table


def _outcomes(
    whole: InstanceMatches,
    preds: np.ndarray,
    pairs: np.ndarray,
    gt_is_counted: np.ndarray,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores, whether each is a true positive, and the number of missed true instances.

    A true instance takes every free prediction that overlaps it by more than the threshold:
    the best score is its true positive, the others are false positives. Predictions that
    overlap no true instance (too small ones included) are false positives, unless a larger
    share of them than the threshold lies on ignored points.
    """
    pred, gt, shared = pairs
    # IoU = |P ∩ G| / (|P| + |G| − |P ∩ G|)
    iou = shared / (whole.gt_sizes[gt] + whole.pred_sizes[pred] - shared)
    over = iou > threshold

    lonely = np.setdiff1d(preds, pred[over], assume_unique=False)
    ignored_share = whole.pred_ignored[lonely] / whole.pred_sizes[lonely]
    lonely = lonely[ignored_share <= threshold]

    over &= gt_is_counted[gt]
    pred, gt = pred[over], gt[over]
    free = _free_pairs(pred, gt)
    pred, gt = pred[free], gt[free]

    # of the predictions that a true instance took, the best score comes first
    by_score = np.lexsort((-whole.pred_scores[pred], gt))
    pred, gt = pred[by_score], gt[by_score]
    is_best = np.ones(len(gt), dtype=bool)
    is_best[1:] = gt[1:] != gt[:-1]

    scores = whole.pred_scores[np.concatenate([pred, lonely])]
    is_true = np.concatenate([is_best, np.zeros(len(lonely), dtype=bool)])
    return scores, is_true, int(gt_is_counted.sum() - is_best.sum())


def _free_pairs(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Which pairs survive when true instances choose in turn.

    Each true instance occupies the first free prediction in its list, and only that one;
    the later true instances do not see it. True instances are disjoint, so above IoU 0.5 no
    prediction has two and the loop is skipped.
    """
    free = np.ones(len(pred), dtype=bool)
    if len(np.unique(pred)) == len(pred):
        return free
    occupied: set[int] = set()
    served = -1
    for index, (p, g) in enumerate(zip(pred.tolist(), gt.tolist())):
        if p in occupied:
            free[index] = False
        elif g != served:
            occupied.add(p)
            served = g
    return free


def _area_under_curve(scores: np.ndarray, is_true: np.ndarray, num_missed: int) -> float:
    """Area under precision over recall, by the trapezoid-like rule of the benchmark.

    One point per distinct score, so tied predictions enter together, and the artificial
    point (recall 0, precision 1) at the end.
    """
    order = np.argsort(scores, kind='stable')
    starts = np.unique(scores[order], return_index=True)[1]
    true_before = np.concatenate([[0], np.cumsum(is_true[order])])
    num_true = true_before[-1]

    hits = num_true - true_before[starts]
    precision = np.append(hits / (len(scores) - starts), 1.0)
    recall = np.append(hits / (num_true + num_missed), 0.0)

    padded = np.concatenate([recall[:1], recall, [0.0]])
    widths = 0.5 * padded[:-2] - 0.5 * padded[2:]
    return float(precision @ widths)


def _concatenate(matches: Sequence[InstanceMatches]) -> InstanceMatches:
    """All scenes as one, indices shifted so that they stay apart."""
    num_preds = np.cumsum([0] + [len(scene.pred_labels) for scene in matches])
    num_gts = np.cumsum([0] + [len(scene.gt_labels) for scene in matches])
    shifts = np.stack([num_preds, num_gts, np.zeros_like(num_gts)], axis=1)
    columns = {
        name: np.concatenate([getattr(scene, name) for scene in matches])
        for name in InstanceMatches.__dataclass_fields__
        if name != 'pairs'
    }
    pairs = [scene.pairs + shift[:, None] for scene, shift in zip(matches, shifts)]
    return InstanceMatches(**columns, pairs=np.concatenate(pairs, axis=1))


def _check_scene(
    masks: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    gt_instance: np.ndarray,
    gt_labels: np.ndarray,
    min_region_size: int,
) -> None:
    if min_region_size < 1:
        raise ValueError(f'min_region_size must be at least 1, got {min_region_size}')
    num_masks, _ = expect_shape('masks', masks, 'P N')
    if masks.dtype != bool:
        raise ValueError(f'masks: expected bool, got {masks.dtype}')
    if gt_instance.shape != masks.shape[1:]:
        raise ValueError(
            f'masks have {masks.shape[1]} points, true instances have {gt_instance.shape}'
        )
    expect_shape('labels', labels, 'P', P=num_masks)
    expect_shape('scores', scores, 'P', P=num_masks)

    if not np.isfinite(scores).all():
        raise ValueError('scores must be finite')
    if gt_instance.size and not -1 <= gt_instance.min() <= gt_instance.max() < len(gt_labels):
        raise ValueError(
            f'true instance ids must be in −1…{len(gt_labels) - 1}, '
            f'got {gt_instance.min()}…{gt_instance.max()}'
        )
