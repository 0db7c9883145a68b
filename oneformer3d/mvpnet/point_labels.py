"""Classes of points without instances: the loss of labeled rows, and data samples of predictions.

Enters: logits or probabilities (N, C) and labels (N,) in 0…C, where C means unlabeled. Leaves: a
loss, or a data sample as the metrics of all segmentors read it.
"""

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from mmdet3d.structures import Det3DDataSample, PointData
from torch import Tensor


def masked_cross_entropy(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean over the rows whose label is a class; 0 where there is none."""
    labeled = (labels >= 0) & (labels < num_classes)
    if not bool(labeled.any()):
        return logits.sum() * 0
    return F.cross_entropy(logits[labeled], labels[labeled])


def with_semantic_prediction(
    sample: Det3DDataSample, probabilities: Tensor, view_agreement: Tensor | None = None
) -> Det3DDataSample:
    """The sample with the classes of its points: no instances, a segment for each class.

    Args:
        sample: is not changed.
        probabilities: (N, C).
        view_agreement: (N,), of models that lift views.

    Returns:
        A copy with ``pred_pts_seg``, ``pts_confidence`` and, with views, ``pts_view_agreement``
        (see ``structures.labels``).
    """
    confidence, semantic = (
        x.cpu().numpy() for x in (probabilities.max(1) if len(probabilities) else _none())
    )  # (N,) both
    num_points = len(semantic)

    predicted = cast(Det3DDataSample, sample.new())  # of its own type, declared as its base
    predicted.pred_pts_seg = PointData(
        pts_semantic_mask=[semantic, semantic],
        pts_instance_mask=[np.zeros((0, num_points), dtype=bool), semantic],
        instance_labels=np.zeros(0, dtype=np.int64),
        instance_scores=np.zeros(0, dtype=np.float32),
    )
    predicted.pts_confidence = confidence
    if view_agreement is not None:
        predicted.pts_view_agreement = view_agreement.cpu().numpy()
    return predicted


def _none() -> tuple[Tensor, Tensor]:
    return torch.zeros(0), torch.zeros(0, dtype=torch.int64)
