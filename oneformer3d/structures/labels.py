"""What stands in the data samples of point clouds, and the one way to read it.

Enters: ``Det3DDataSample``. Leaves: labels (N,) as tensors.

    gt_pts_seg          pts_semantic_mask, pts_instance_mask, sp_pts_mask (N,): the ground truth
    pred_pts_seg        pts_semantic_mask [semantic, panoptic], pts_instance_mask [(K, N) masks,
                        panoptic ids], instance_labels and instance_scores (K,), numpy arrays
    pts_confidence      (N,) probability of the class, of models without instances
    pts_view_agreement  (N,) how far the views of a point agree, of models that lift views
"""

from collections.abc import Sequence

import torch
from mmdet3d.structures import Det3DDataSample
from torch import Tensor


def find_point_labels(sample: Det3DDataSample | None, name: str) -> Tensor | None:
    """(N,) int64, a field of ``gt_pts_seg``; None where there is none."""
    if sample is None or 'gt_pts_seg' not in sample or name not in sample.gt_pts_seg:
        return None
    return torch.as_tensor(sample.gt_pts_seg.get(name)).long()


def point_labels(
    data_samples: Sequence[Det3DDataSample] | None,
    name: str,
    device: torch.device | str | None = None,
) -> list[Tensor]:
    """Per sample (N,) int64, a field of ``gt_pts_seg``.

    Raises:
        ValueError: a sample has none.
    """
    labels = []
    for i, sample in enumerate(data_samples or [None]):
        found = find_point_labels(sample, name)
        if found is None:
            raise ValueError(f'sample {i}: gt_pts_seg has no {name}')
        labels.append(found.to(device))
    return labels
