"""What a sample predicts or is annotated with → labels to draw.

Enters: ``pred_pts_seg`` (PointData) and ``eval_ann_info`` as the segmentor and the dataset leave
them, arrays or tensors. Leaves: ``PointLabels``. N points, K instances.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class PointLabels:
    """What a network says, or an annotator: each (N,) integer, or None if there is none.

    ``semantic``: contiguous class ids, C = unlabeled. ``instance``: ids, -1 = no instance.
    ``panoptic``: ids of segments, stuff and things alike.
    """

    semantic: np.ndarray | None = None
    instance: np.ndarray | None = None
    panoptic: np.ndarray | None = None


def predicted_labels(pred_pts_seg: Any, score_thr: float = 0.3) -> PointLabels:
    """Labels of a prediction; instances scored below ``score_thr`` are left out."""
    semantic, _ = (to_array(mask) for mask in pred_pts_seg.pts_semantic_mask)
    masks, panoptic = (to_array(mask) for mask in pred_pts_seg.pts_instance_mask)
    scores = to_array(pred_pts_seg.instance_scores)
    keep = scores >= score_thr
    return PointLabels(semantic, instance_ids(masks[keep], scores[keep]), panoptic)


def annotated_labels(eval_ann_info: Mapping[str, Any] | None) -> PointLabels | None:
    """Labels of a sample's ground truth, None where it has none."""
    info = eval_ann_info or {}
    semantic, instance = info.get('pts_semantic_mask'), info.get('pts_instance_mask')
    if semantic is None and instance is None:
        return None
    return PointLabels(
        None if semantic is None else to_array(semantic),
        None if instance is None else to_array(instance),
    )


def instance_ids(masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Overlapping masks → one id per point: the best-scored instance that has the point.

    Args:
        masks: (K, N) bool.
        scores: (K,).

    Returns:
        (N,) int64, the row of ``masks``, -1 where there is no instance.
    """
    ids = np.full(masks.shape[1], -1, dtype=np.int64)
    for row in np.argsort(scores, kind='stable'):
        ids[masks[row].astype(bool)] = row
    return ids


def to_array(values: Any) -> np.ndarray:
    """A tensor on any device, or an array → an array."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
