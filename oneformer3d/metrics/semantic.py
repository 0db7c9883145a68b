"""Semantic segmentation scores from a confusion matrix.

Enters: predicted and true class per point; leaves: IoU and accuracy.
N points, C classes. A true label outside 0…C−1 (C = unlabeled) is not evaluated.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SemanticScores:
    """Fractions in 0…1; NaN where a class gives nothing to measure.

    Attributes:
        iou: (C,) intersection over union; NaN for a class that is neither predicted nor true.
            A class that is predicted but never true has IoU 0 and counts in ``miou``.
        miou: mean of ``iou`` without its NaN.
        acc: share of evaluated points with the right class.
        macc: mean recall of the classes that occur in the ground truth.
    """

    iou: NDArray[np.float64]
    miou: float
    acc: float
    macc: float


def semantic_scores(confusion: np.ndarray) -> SemanticScores:
    """Scores of an accumulated confusion matrix.

    Args:
        confusion: (C, C) integer counts, rows true, columns predicted.

    Returns:
        Scores equal to ``mmdet3d.evaluation.seg_eval``, absent classes included.
    """
    correct = np.diag(confusion).astype(np.float64)
    num_true = confusion.sum(axis=1)
    num_predicted = confusion.sum(axis=0)

    # IoU = TP / (TP + FN + FP)
    iou = safe_divide(correct, num_true + num_predicted - correct)
    return SemanticScores(
        iou=iou,
        miou=nan_mean(iou),
        acc=float(safe_divide(correct.sum(), confusion.sum())),
        macc=nan_mean(safe_divide(correct, num_true)),
    )


def confusion_matrix(
    predicted: np.ndarray, true: np.ndarray, num_classes: int
) -> NDArray[np.int64]:
    """Count (true, predicted) pairs over the labeled points.

    Args:
        predicted: (N,) integer classes 0…C−1 (unlabeled points may hold anything).
        true: (N,) integer classes; outside 0…C−1 is not evaluated.
        num_classes: C.

    Returns:
        (C, C) int64, rows true, columns predicted. Matrices of scenes add up.

    Raises:
        ValueError: lengths differ, or a labeled point is predicted outside 0…C−1.
    """
    if predicted.shape != true.shape or true.ndim != 1:
        raise ValueError(
            f'expected two label arrays of one length, got {predicted.shape} predicted '
            f'and {true.shape} true'
        )

    labeled = (true >= 0) & (true < num_classes)
    predicted = predicted[labeled].astype(np.int64)
    true = true[labeled].astype(np.int64)
    if predicted.size and not 0 <= predicted.min() <= predicted.max() < num_classes:
        raise ValueError(
            f'predicted classes must be in 0…{num_classes - 1}, '
            f'got {predicted.min()}…{predicted.max()}'
        )

    pairs = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def safe_divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Elementwise quotient, NaN where the denominator is 0."""
    numerator = np.asarray(numerator, dtype=np.float64)
    denominator = np.asarray(denominator, dtype=np.float64)
    empty = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.divide(numerator, denominator, out=empty, where=denominator != 0)


def nan_mean(values: np.ndarray) -> float:
    """Mean without the NaN; NaN, and no warning, when nothing is left."""
    values = np.asarray(values)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float('nan')
