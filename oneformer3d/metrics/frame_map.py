"""Frame-mAP of detected actions, as AVA is scored: boxes of key frames, an AP for every action.

Enters: boxes with scores, and true boxes with their actions, key frame by key frame. Leaves: the
average precision of each action at one IoU, and their mean (Gu et al., "AVA", CVPR 2018).

Letters: K detected and I true boxes of a key frame, A actions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class FrameBoxes:
    """Boxes of one key frame.

    Attributes:
        boxes: (n, 4) left, top, right, bottom.
        actions: (n, A): scores of detections, or 0 and 1 of true boxes.
    """

    boxes: np.ndarray
    actions: np.ndarray


@dataclass(frozen=True, eq=False)
class FrameMap:
    """Fractions in 0…1.

    Attributes:
        ap: (A,), NaN for actions without a true box.
        mean: of the actions that occur; NaN for none.
    """

    ap: NDArray[np.float64]
    mean: float


def frame_map(
    detected: Sequence[FrameBoxes], true: Sequence[FrameBoxes], iou_threshold: float = 0.5
) -> FrameMap:
    """Score all key frames together.

    Every detection claims the best of the true boxes of its action and frame that are not claimed
    yet, in the order of the scores.

    Args:
        detected, true: of the same key frames.
        iou_threshold: least IoU of a right detection.

    Raises:
        ValueError: no key frame, or other numbers of frames or actions.
    """
    if not true or len(detected) != len(true):
        raise ValueError(f'{len(detected)} frames with detections, {len(true)} with truth')
    widths = {frame.actions.shape[1] for frame in (*detected, *true)}
    if len(widths) != 1:
        raise ValueError(f'frames of different numbers of actions: {sorted(widths)}')

    overlaps = [box_iou(d.boxes, t.boxes) for d, t in zip(detected, true)]
    columns = range(widths.pop())
    ap = np.array([_ap(detected, true, overlaps, a, iou_threshold) for a in columns])
    occurs = ~np.isnan(ap)
    return FrameMap(ap, float(ap[occurs].mean()) if occurs.any() else float('nan'))


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU (n, m) of boxes (n, 4) and (m, 4).

    Example:
        >>> box_iou(np.array([[0.0, 0, 2, 1]]), np.array([[1.0, 0, 3, 1]])).round(3).tolist()
        [[0.333]]
    """
    first = np.maximum(boxes[:, None, :2], others[None, :, :2])
    last = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(last - first, 0, None).prod(-1)  # (n, m)
    area, other_area = (np.prod(b[:, 2:] - b[:, :2], axis=-1) for b in (boxes, others))
    union = area[:, None] + other_area[None] - shared
    return shared / np.maximum(union, np.finfo(float).tiny)


def average_precision(is_right: np.ndarray, num_true: int) -> float:
    """Area under precision over recall of detections (n,) in the order of falling scores.

    Precision is made to fall with recall first, as PASCAL VOC does from 2010 on.

    Example:
        >>> average_precision(np.array([True, False, True]), 2)  # ½ · 1 + ½ · ⅔
        0.8333333333333333
    """
    found = np.cumsum(is_right)
    precision = found / np.arange(1, len(is_right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    # recall rises by 1/I where a detection is right
    return float(precision[is_right.astype(bool)].sum() / num_true)


def _ap(
    detected: Sequence[FrameBoxes],
    true: Sequence[FrameBoxes],
    overlaps: Sequence[np.ndarray],
    action: int,
    iou_threshold: float,
) -> float:
    num_true = sum(int((frame.actions[:, action] > 0).sum()) for frame in true)
    if not num_true:
        return float('nan')

    rows = [(f, k) for f, frame in enumerate(detected) for k in range(len(frame.boxes))]
    scores = np.array([detected[f].actions[k, action] for f, k in rows])
    free = [frame.actions[:, action] > 0 for frame in true]
    is_right = np.zeros(len(rows), dtype=bool)
    for place, index in enumerate(np.argsort(-scores, kind='stable')):
        frame, k = rows[index]
        if not free[frame].any():
            continue
        candidates = np.where(free[frame], overlaps[frame][k], -1.0)
        best = int(candidates.argmax())
        if candidates[best] >= iou_threshold:
            is_right[place], free[frame][best] = True, False
    return average_precision(is_right, num_true)
