"""Losses of instance vectors and instance slots, which know labels only up to renaming.

Enters: vectors (N, D) or slot probabilities (N, K) of rays, labels (N,) int64, negative = no label.
Leaves: scalars. Letters: N and M rays, D vector width, K slots, I labels.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from oneformer3d.lifting.shapes import expect_shape

from .ray_losses import masked_mean

_EPS = 1e-8


def contrastive_instance_loss(
    instance_features: Tensor,
    instance_labels: Tensor,
    temperature: float | Tensor = 0.07,
    groups: Tensor | None = None,
) -> Tensor:
    """Vectors of one instance are alike, others not (supervised contrastive, NeurIPS 2020).

    Minus the mean log-softmax of the cosines over temperature at the positives. A vector is
    never compared with itself; rows without a positive are left out; no exponential overflows.

    Args:
        instance_features: (N, D), of any length.
        instance_labels: (N,); negative = unlabelled, left out.
        temperature: of the softmax.
        groups: (N,) such as view indices; labels are then compared within a group only.

    Returns:
        A scalar, 0 (with a graph) where no pair shares a label.
    """
    num_rays, _ = expect_shape('instance_features', instance_features, 'N D')
    expect_shape('instance_labels', instance_labels, 'N', N=num_rays)
    labelled = instance_labels >= 0
    features = F.normalize(instance_features[labelled], dim=-1)
    labels = instance_labels[labelled]
    similarity = features @ features.t() / temperature  # (N', N')

    # pairs that are not compared
    excluded = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    if groups is not None:
        group = groups[labelled]
        excluded = excluded | (group[:, None] != group[None])
    positive = (labels[:, None] == labels[None]) & ~excluded

    # −1/|P| Σ_P log softmax; rows left with nothing to compare to would give NaN with −∞ in place
    # of the lowest number, and have no positive either
    lowest = torch.finfo(similarity.dtype).min
    log_share = similarity.masked_fill(excluded, lowest).log_softmax(-1)
    count = positive.sum(-1)
    per_row = -torch.where(positive, log_share, 0).sum(-1) / count.clamp(min=1)
    return masked_mean(per_row, count > 0) + 0 * instance_features.sum()


def slow_fast_contrastive_loss(
    fast: Tensor, slow: Tensor, fast_labels: Tensor, slow_labels: Tensor
) -> Tensor:
    """Vectors against those of a slowly following copy (Contrastive Lift, NeurIPS 2023).

    With ``K = exp(−‖f − s‖)``: ``−log(Σ_positives e^K / Σ e^K)`` over rows that have a positive,
    and the concentration ``−mean exp(−‖f − c‖²)`` about the slow vectors' mean c of each label.

    Args:
        fast: (N, D) of one half of an image's rays.
        slow: (M, D) of the other half, by the slow copy; no gradient goes there.
        fast_labels, slow_labels: (N,) and (M,) labels of that one image; negative = none.
    """
    slow = slow.detach()
    kernel = torch.exp(-torch.cdist(fast, slow))  # (N, M)
    known = (slow_labels >= 0)[None].expand_as(kernel)
    positive = (fast_labels[:, None] == slow_labels[None]) & known & (fast_labels >= 0)[:, None]
    usable = positive.any(-1)  # (N,)

    # −log(Σ_positives e^K / Σ e^K)
    lowest = torch.finfo(kernel.dtype).min
    of_all = kernel.masked_fill(~known, lowest).logsumexp(-1)
    of_positives = kernel.masked_fill(~positive, lowest).logsumexp(-1)
    contrast = masked_mean(torch.where(usable, of_all - of_positives, 0), usable)

    # −exp(−‖f − c‖²)
    centroid = (positive.to(slow.dtype) @ slow) / positive.sum(-1, keepdim=True).clamp(min=1)
    near = torch.exp(-((fast - centroid) ** 2).sum(-1))
    return contrast - masked_mean(near, usable) + 0 * fast.sum()


@torch.no_grad()
def follow_slowly(slow: nn.Module, fast: nn.Module, decay: float = 0.9) -> None:
    """Move the slow copy towards the fast module: ``slow ← decay · slow + (1 − decay) · fast``."""
    for old, new in zip(slow.parameters(), fast.parameters()):
        old.lerp_(new, 1 - decay)
    for old, new in zip(slow.buffers(), fast.buffers()):
        old.copy_(new)


def linear_assignment_loss(
    slot_probabilities: Tensor,
    instance_labels: Tensor,
    confidence: Tensor | None = None,
    views: Tensor | None = None,
) -> Tensor:
    """Labels of each image matched to slots, then the slots' cross-entropy (Panoptic Lifting).

    Per image, a label costs a slot minus its mean probability there; the cheapest one-to-one
    assignment (CVPR 2023, eq. 6) says which slot each label means. Names of labels do not matter.

    Args:
        slot_probabilities: (N, K), rows sum to at most 1.
        instance_labels: (N,); negative = none. Where an image has more labels than there are
            slots, the labels that fit worst stay unassigned and cost nothing.
        confidence: (N,) weight of each label.
        views: (N,) image of each ray; None = all of one image.
    """
    views = torch.zeros_like(instance_labels) if views is None else views
    slot = torch.full_like(instance_labels, -1)
    for view in views[instance_labels >= 0].unique():
        rays = (views == view) & (instance_labels >= 0)
        slot[rays] = _assigned_slots(slot_probabilities[rays].detach(), instance_labels[rays])

    # −log p of the slot that each label means
    matched = slot >= 0
    chosen = slot_probabilities.gather(-1, slot.clamp(min=0)[:, None])[:, 0]
    return masked_mean(-torch.log(chosen + _EPS), matched, confidence)


def _assigned_slots(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Slot (N,) of each ray of one image, −1 where its label got none."""
    names, label = labels.unique(return_inverse=True)
    sums = probabilities.new_zeros(len(names), probabilities.shape[1])
    sums.index_add_(0, label, probabilities)
    means = sums / torch.bincount(label)[:, None]  # (I, K)

    # cost[label, slot] = −mean probability
    rows, columns = linear_sum_assignment(-means.double().cpu().numpy())
    table = np.full(len(names), -1)
    table[rows] = columns
    return torch.from_numpy(table).to(labels.device)[label]
