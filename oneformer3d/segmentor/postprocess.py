"""Query predictions of one sample to semantic, instance and panoptic labels of its points.

Enters: class logits (Q, C_inst + 1), mask logits (Q, S), scores (Q, 1) or None, semantic logits
(S, C) and the superpoint of every point (N,). Leaves: a ``ScenePrediction`` of numpy arrays.

Everything is decided on superpoints; only the results are spread over points, as booleans.
K counts predicted instances, U the different queries among them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class PostprocessSettings:
    """Thresholds of post-processing, the keys of ``test_cfg``.

    Attributes:
        topk_insts: at most so many (query, class) candidates.
        inst_score_thr: instances need a higher score.
        pan_score_thr: thing instances of the panoptic result need a higher score.
        npoint_thr: instances, and what panoptic leaves of them, need more points.
        sp_score_thr: a superpoint belongs to a mask of higher probability.
        obj_normalization: multiply scores by the mean probability inside the mask.
        obj_normalization_thr: mask logit above which a superpoint counts as inside.
        nms: apply matrix NMS.
        matrix_nms_kernel: 'linear' or 'gaussian'.
    """

    topk_insts: int = 600
    inst_score_thr: float = 0.0
    pan_score_thr: float = 0.5
    npoint_thr: int = 100
    sp_score_thr: float = 0.4
    obj_normalization: bool = True
    obj_normalization_thr: float = 0.0
    nms: bool = True
    matrix_nms_kernel: str = 'linear'

    def __post_init__(self) -> None:
        if self.matrix_nms_kernel not in ('linear', 'gaussian'):
            raise ValueError(
                f'matrix_nms_kernel: expected linear or gaussian, got {self.matrix_nms_kernel}'
            )
        if self.topk_insts < 1:
            raise ValueError(f'topk_insts: expected at least 1, got {self.topk_insts}')

    @classmethod
    def of(cls, test_cfg: Mapping[str, Any]) -> 'PostprocessSettings':
        """Settings of a ``test_cfg``.

        Raises:
            ValueError: it has other keys.
        """
        unknown = set(test_cfg) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(f'test_cfg: unknown keys {sorted(unknown)}')
        return cls(**test_cfg)


@dataclass(frozen=True)
class SceneLogits:
    """What the instance queries and the semantic head say of one sample.

    Attributes:
        classes: (Q, C_inst + 1).
        masks: (Q, S).
        scores: (Q, 1) predicted quality of the masks, no logits; None without them.
        semantic: (S, C).
    """

    classes: Tensor
    masks: Tensor
    scores: Tensor | None
    semantic: Tensor


@dataclass(frozen=True)
class ScenePrediction:
    """Labels of the N points of one sample.

    Attributes:
        semantic: (N,) int64 class 0…C−1.
        panoptic_semantic: (N,) int64 class 0…C−1.
        panoptic_ids: (N,) int64, the class of stuff, an id above all stuff classes for things,
            −1 for no segment, which only a model without stuff classes leaves.
        instance_masks: (K, N) bool.
        instance_labels: (K,) int64 instance class 0…C_inst−1.
        instance_scores: (K,) float32, descending.
    """

    semantic: NDArray[np.int64]
    panoptic_semantic: NDArray[np.int64]
    panoptic_ids: NDArray[np.int64]
    instance_masks: NDArray[np.bool_]
    instance_labels: NDArray[np.int64]
    instance_scores: NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """Instances on superpoints: masks (K, S) bool, labels and scores (K,), sizes in points."""

    masks: Tensor
    labels: Tensor
    scores: Tensor
    sizes: Tensor

    def select(self, index: Tensor) -> 'Candidates':
        """The candidates of a boolean mask or of indices."""
        return Candidates(
            self.masks[index], self.labels[index], self.scores[index], self.sizes[index]
        )


@torch.no_grad()
def segment_scene(
    cls_logits: Tensor,
    mask_logits: Tensor,
    mask_scores: Tensor | None,
    semantic_logits: Tensor,
    superpoints: Tensor,
    stuff_classes: Sequence[int],
    instance_classes: Sequence[int],
    settings: PostprocessSettings,
) -> ScenePrediction:
    """All three results of one sample.

    Args:
        cls_logits: (Q, C_inst + 1).
        mask_logits: (Q, S).
        mask_scores: (Q, 1) predicted quality, or None.
        semantic_logits: (S, C).
        superpoints: (N,) int64 dense ids 0…S−1.
        stuff_classes: semantic classes without instances in the panoptic result.
        instance_classes: the semantic class of each instance class.
        settings: thresholds.
    """
    sp_sizes = torch.bincount(superpoints, minlength=mask_logits.shape[1])  # (S,)
    with torch.autocast(mask_logits.device.type, enabled=False):
        candidates = find_instances(
            cls_logits.float(),
            mask_logits.float(),
            None if mask_scores is None else mask_scores.float(),
            sp_sizes,
            settings,
        )

    panoptic_semantic, panoptic_ids = paste_things(
        candidates.select(candidates.scores > settings.pan_score_thr),
        semantic_logits,
        sp_sizes,
        stuff_classes,
        instance_classes,
        settings.npoint_thr,
    )
    instances = candidates.select(candidates.scores > settings.inst_score_thr)

    ids = superpoints.cpu().numpy()
    return ScenePrediction(
        semantic=semantic_logits.argmax(1).cpu().numpy()[ids],
        panoptic_semantic=panoptic_semantic.cpu().numpy()[ids],
        panoptic_ids=panoptic_ids.cpu().numpy()[ids],
        # unlike indexing, ``take`` keeps the points of a mask next to each other
        instance_masks=np.take(instances.masks.cpu().numpy(), ids, axis=1),
        instance_labels=instances.labels.cpu().numpy(),
        instance_scores=instances.scores.cpu().numpy(),
    )


def find_instances(
    cls_logits: Tensor,
    mask_logits: Tensor,
    mask_scores: Tensor | None,
    sp_sizes: Tensor,
    settings: PostprocessSettings,
) -> Candidates:
    """The best (query, class) pairs after NMS, descending by score; see ``segment_scene``.

    Instances of at most ``npoint_thr`` points are left out. Float32 is expected.
    """
    probabilities = cls_logits.softmax(-1)[:, :-1]  # (Q, C_inst)
    num_classes = probabilities.shape[1]
    if mask_scores is not None:
        probabilities = probabilities * mask_scores
    num_candidates = min(settings.topk_insts, probabilities.numel())
    scores, flat = probabilities.flatten().topk(num_candidates)  # (K,)
    labels = flat % max(num_classes, 1)

    # one query may stand for several classes: its mask is computed once
    queries, mask_of = torch.unique(flat // max(num_classes, 1), return_inverse=True)
    logits = mask_logits[queries]  # (U, S)
    soft_masks = logits.sigmoid()

    if settings.obj_normalization:
        inside = logits > settings.obj_normalization_thr
        quality = (soft_masks * inside).sum(1) / (inside.sum(1) + 1e-6)
        scores = scores * quality[mask_of]
    if settings.nms:
        order = scores.argsort(descending=True, stable=True)
        scores, labels, mask_of = scores[order], labels[order], mask_of[order]
        iou = soft_iou(soft_masks)[mask_of][:, mask_of]  # (K, K)
        scores = scores * matrix_nms_decay(iou, labels, settings.matrix_nms_kernel)
    order = scores.argsort(descending=True, stable=True)

    masks = soft_masks > settings.sp_score_thr
    # in chunks, for U × S integers would be the largest thing in memory
    sizes = torch.cat([(chunk * sp_sizes).sum(1) for chunk in masks.split(16)])
    order = order[sizes[mask_of[order]] > settings.npoint_thr]
    mask_of = mask_of[order]
    return Candidates(masks[mask_of], labels[order], scores[order], sizes[mask_of])


def soft_iou(masks: Tensor, others: Tensor | None = None) -> Tensor:
    """(U, T) overlap Σ a b / (Σ a + Σ b − Σ a b) of soft masks (U, S) and (T, S), or themselves."""
    others = masks if others is None else others
    overlap = masks @ others.T
    return overlap / (masks.sum(1)[:, None] + others.sum(1) - overlap).clamp(min=1e-6)


def matrix_nms_decay(
    iou: Tensor, labels: Tensor, kernel: str = 'linear', sigma: float = 2.0
) -> Tensor:
    """Factor by which matrix NMS lowers each score (Wang et al., SOLOv2, equations 4 and 5).

    ``decay_j = min over i < j of f(iou_ij) / f(max over k < i of iou_ki)``, comparing only equal
    labels, with ``f(x) = 1 − x`` (linear) or ``exp(−σ x²)`` (gaussian).

    Args:
        iou: (K, K), rows in descending order of scores.
        labels: (K,) int64.
        kernel: 'linear' or 'gaussian'.
        sigma: σ of the gaussian.

    Returns:
        (K,) factors in 0…1.

    Example:
        >>> iou = torch.tensor([[1.0, 0.75, 0.0], [0.75, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> matrix_nms_decay(iou, torch.tensor([4, 4, 4]))
        tensor([1.0000, 0.2500, 1.0000])
        >>> matrix_nms_decay(iou, torch.tensor([4, 5, 4]))
        tensor([1., 1., 1.])
    """
    if len(labels) == 0:
        return iou.new_zeros(0)

    # iou_ij of i before j, of one class
    above = (iou * (labels[:, None] == labels)).triu(diagonal=1)
    covered = above.amax(0)[:, None]
    if kernel == 'gaussian':
        decay = torch.exp(-sigma * (above.square() - covered.square()))
    else:
        decay = (1 - above) / (1 - covered).clamp(min=1e-6)
    return decay.amin(0)


def paste_things(
    things: Candidates,
    semantic_logits: Tensor,
    sp_sizes: Tensor,
    stuff_classes: Sequence[int],
    instance_classes: Sequence[int],
    npoint_thr: int,
) -> tuple[Tensor, Tensor]:
    """Panoptic class and id of every superpoint, each (S,) int64.

    Every superpoint gets its best stuff class, then instances of thing classes are pasted over it,
    the best last; one of which at most ``npoint_thr`` points remain visible is removed again. The
    id of stuff is its class, that of a thing ``max(stuff) + 1`` plus its rank by ascending score;
    ranks of removed instances stay unused. Without stuff classes the rest has its best class and
    no segment: −1.
    """
    device = semantic_logits.device
    stuff = torch.as_tensor(tuple(stuff_classes), dtype=torch.int64, device=device)
    class_of = torch.as_tensor(tuple(instance_classes), dtype=torch.int64, device=device)
    if len(stuff):
        semantic = stuff[semantic_logits[:, stuff].argmax(1)]
        rest = semantic
    else:
        semantic = semantic_logits.argmax(1)
        rest = torch.full_like(semantic, -1)

    things = things.select(~torch.isin(class_of[things.labels], stuff))
    num_things = len(things.labels)
    if num_things == 0:
        return semantic, rest.clone()

    # the first maximum from the best instance down is the best instance of a superpoint
    things = things.select(things.scores.argsort(stable=True))
    rank = num_things - 1 - things.masks.flip(0).to(torch.uint8).argmax(0)
    is_thing = things.masks.any(0)  # (S,)

    visible = sp_sizes.new_zeros(num_things).index_add(0, rank, sp_sizes * is_thing)
    is_thing = is_thing & (visible[rank] > npoint_thr)

    first_id = max(stuff_classes, default=-1) + 1
    return (
        torch.where(is_thing, class_of[things.labels[rank]], semantic),
        torch.where(is_thing, first_id + rank, rest),
    )
