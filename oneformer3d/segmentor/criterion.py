"""Training losses of queries.

Enters: a ``QueryOutput`` and one ``SceneTargets`` per sample. Leaves: a dict of scalar tensors
(``inst_loss``, ``seg_loss``), weighted and summed over decoder layers. Losses are computed in
float32 with autocast off, and are zero, with zero gradients, where there is nothing to compare.

Letters: Q queries, S superpoints, I instances, C semantic classes, P matched pairs.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.registry import MODELS, TASK_UTILS
from oneformer3d.structures import (
    LayerOutput,
    QueryOutput,
    SceneTargets,
    map_outputs,
    split_queries,
)

from .matching import Matcher

# a mask prediction is worth a score only once it overlaps its instance by more than this
SCORED_IOU = 0.5


@MODELS.register_module(name=['UnifiedCriterion', 'ScanNetUnifiedCriterion'])
class UnifiedCriterion(nn.Module):
    """Instance loss on all queries and a semantic loss on the same queries.

    Args:
        num_semantic_classes: C.
        sem_criterion: settings of the semantic loss.
        inst_criterion: settings of the instance loss.
        num_semantic_queries: how many of the last queries are semantic rather than instance
            queries.
    """

    def __init__(
        self,
        num_semantic_classes: int,
        sem_criterion: dict,
        inst_criterion: dict,
        num_semantic_queries: int = 0,
    ) -> None:
        super().__init__()
        self.num_semantic_classes = num_semantic_classes
        self.num_semantic_queries = num_semantic_queries
        self.sem_criterion = MODELS.build(sem_criterion)
        self.inst_criterion = MODELS.build(inst_criterion)

    def forward(self, outputs: QueryOutput, targets: Sequence[SceneTargets]) -> dict[str, Tensor]:
        """``inst_loss`` and ``seg_loss``, scalars."""
        device = outputs['masks'][0].device.type
        with torch.autocast(device, enabled=False):
            outputs = map_outputs(outputs, Tensor.float)
            instances, semantics = split_queries(outputs, self.num_semantic_queries)

            # of the R = I + C + 1 rows of a target the last C + 1 are classes
            num_rows = self.num_semantic_classes + 1
            semantic_rows = [_rows(target, slice(-num_rows, None)) for target in targets]
            instance_rows = [_rows(target, slice(None, -num_rows)) for target in targets]
            return {
                **self.sem_criterion(semantics, semantic_rows),
                **self.inst_criterion(instances, instance_rows),
            }


@MODELS.register_module()
def S3DISUnifiedCriterion(  # noqa: N802 (a published type name)
    num_semantic_classes: int, sem_criterion: dict, inst_criterion: dict
) -> UnifiedCriterion:
    """Unified criterion of a decoder with one learned semantic query per class."""
    return UnifiedCriterion(
        num_semantic_classes, sem_criterion, inst_criterion, num_semantic_classes
    )


@MODELS.register_module()
class ScanNetSemanticCriterion(nn.Module):
    """Cross-entropy of the semantic class of superpoint queries.

    The logit of the unlabeled class takes no part, neither as target nor in the softmax.

    Args:
        ignore_index: label of unlabeled superpoints, C.
        loss_weight: factor of the loss.
    """

    def __init__(self, ignore_index: int, loss_weight: float) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.loss_weight = loss_weight

    def forward(self, outputs: QueryOutput, targets: Sequence[SceneTargets]) -> dict[str, Tensor]:
        """``seg_loss``, mean over samples of the mean over labeled queries."""
        if outputs['sem_preds'] is None:
            raise ValueError('the decoder predicts no semantics: give it num_semantic_classes')
        losses = []
        for logits, target in zip(outputs['sem_preds'], targets):
            masks = target.sp_masks if target.query_masks is None else target.query_masks
            labels = class_of_columns(masks[: self.ignore_index])  # (Q,)

            # CE over the C classes: Σ over labeled queries / their number
            total = F.cross_entropy(
                logits[:, : self.ignore_index],
                labels,
                ignore_index=self.ignore_index,
                reduction='sum',
            )
            losses.append(total / (labels != self.ignore_index).sum().clamp(min=1))
        return {'seg_loss': self.loss_weight * torch.stack(losses).mean()}


@MODELS.register_module()
class S3DISSemanticCriterion(nn.Module):
    """Binary cross-entropy of the masks of semantic queries, after every layer.

    Args:
        loss_weight: factor of the loss.
    """

    def __init__(self, loss_weight: float) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, outputs: QueryOutput, targets: Sequence[SceneTargets]) -> dict[str, Tensor]:
        """``seg_loss``, mean over samples, summed over layers."""
        losses = []
        for layer in _layers(outputs):
            for logits, target in zip(layer['masks'], targets):
                masks = target.sp_masks[: len(logits)].float()
                losses.append(F.binary_cross_entropy_with_logits(logits, masks))
        return {'seg_loss': self.loss_weight * torch.stack(losses).sum() / len(targets)}


@MODELS.register_module()
class InstanceCriterion(nn.Module):
    """Class, mask and score losses of queries matched to instances.

    Per layer: ``w_cls·CE + w_bce·BCE + w_dice·s·Dice + w_score·MSE``, where CE is the mean over
    samples of the weighted mean over queries, BCE and Dice are means over the samples that have a
    matched pair, and ``s`` is 4 in the last layer and 1 before it. (The published schedule has
    this s at its batch size of 4.) The terms do not depend on the batch size.

    ``fix_dice_loss_weight``, an argument of published settings, asks for the published weighting
    instead: with True the auxiliary ``s`` is 4/B, with False it is 1 and the last layer's Dice
    is the sum over the batch.

    Args:
        matcher: settings of the matcher.
        loss_weight: weights of class, BCE, dice and score terms.
        num_classes: C_inst.
        non_object_weight: weight of the class "no object" in CE.
        fix_dice_loss_weight: None for weights independent of the batch size, else as above.
        iter_matcher: match every layer anew; False uses the last layer's matches in all.
        fix_mean_loss: mean over samples with matched pairs; False divides by all samples.
        dice_scales: ``s`` of the last and of the other layers, when ``fix_dice_loss_weight`` is
            None.
    """

    def __init__(
        self,
        matcher: dict,
        loss_weight: Sequence[float],
        num_classes: int,
        non_object_weight: float,
        fix_dice_loss_weight: bool | None = None,
        iter_matcher: bool = True,
        fix_mean_loss: bool = True,
        dice_scales: tuple[float, float] = (4.0, 1.0),
    ) -> None:
        super().__init__()
        if len(loss_weight) != 4:
            raise ValueError(f'loss_weight: expected 4 numbers, got {len(loss_weight)}')
        self.matcher: Matcher = TASK_UTILS.build(matcher)
        self.loss_weight = tuple(loss_weight)
        self.num_classes = num_classes
        self.class_weight = [1.0] * num_classes + [non_object_weight]
        self.fix_dice_loss_weight = fix_dice_loss_weight
        self.iter_matcher = iter_matcher
        self.fix_mean_loss = fix_mean_loss
        self.dice_scales = dice_scales

    def forward(self, outputs: QueryOutput, targets: Sequence[SceneTargets]) -> dict[str, Tensor]:
        """``inst_loss``, summed over layers."""
        last, *auxiliary = _layers(outputs)
        pairs = self._match(last, targets)
        loss = self._layer_loss(last, targets, pairs, is_last=True)

        for layer in auxiliary:
            layer_pairs = self._match(layer, targets) if self.iter_matcher else pairs
            loss = loss + self._layer_loss(layer, targets, layer_pairs, is_last=False)
        return {'inst_loss': loss}

    def _match(
        self, layer: LayerOutput, targets: Sequence[SceneTargets]
    ) -> list[tuple[Tensor, Tensor]]:
        return [
            self.matcher(cls, mask, target.labels_3d, target.sp_masks, target.query_masks)
            for cls, mask, target in zip(layer['cls_preds'], layer['masks'], targets)
        ]

    def _layer_loss(
        self,
        layer: LayerOutput,
        targets: Sequence[SceneTargets],
        pairs: Sequence[tuple[Tensor, Tensor]],
        is_last: bool,
    ) -> Tensor:
        cls_terms, bce_terms, dice_terms, score_terms = [], [], [], []
        for i, (target, (query_ids, gt_ids)) in enumerate(zip(targets, pairs)):
            cls_terms.append(self._class_loss(layer['cls_preds'][i], target, query_ids, gt_ids))
            if len(query_ids) == 0:
                continue

            logits = layer['masks'][i][query_ids]  # (P, S)
            masks = target.sp_masks[gt_ids].float()  # (P, S)
            bce_terms.append(F.binary_cross_entropy_with_logits(logits, masks))
            dice_terms.append(dice_loss(logits, masks))
            if layer['scores'] is not None:
                score_terms.append(score_loss(layer['scores'][i][query_ids], logits, masks))

        # means over samples; those without a matched pair have no mask terms
        batch_size = len(targets)
        num_terms = len(bce_terms) if self.fix_mean_loss else batch_size
        terms = (
            torch.stack(cls_terms).mean(),
            _mean(bce_terms, num_terms, layer['masks']),
            _mean(dice_terms, num_terms, layer['masks']) * self._dice_scale(batch_size, is_last),
            _mean(score_terms, batch_size, layer['scores'] or layer['masks']),
        )
        weighted = (weight * term for weight, term in zip(self.loss_weight, terms))
        return sum(weighted, start=torch.zeros_like(terms[0]))

    def _dice_scale(self, batch_size: int, is_last: bool) -> float:
        if self.fix_dice_loss_weight is None:
            return self.dice_scales[0 if is_last else 1]
        if self.fix_dice_loss_weight:
            return 4.0 if is_last else 4.0 / batch_size
        return float(batch_size) if is_last else 1.0

    def _class_loss(
        self, logits: Tensor, target: SceneTargets, query_ids: Tensor, gt_ids: Tensor
    ) -> Tensor:
        """Cross-entropy of all queries; those without an instance are "no object"."""
        # a query may serve several instances; the last of them gives its class, on any device
        instance = query_ids.new_full((len(logits),), -1)
        instance = instance.scatter_reduce(0, query_ids, gt_ids, 'amax')  # (Q,)

        # index −1 reaches the appended label
        labels = F.pad(target.labels_3d, (0, 1), value=self.num_classes)[instance]  # (Q,)
        return F.cross_entropy(logits, labels, logits.new_tensor(self.class_weight))


def class_of_columns(masks: Tensor) -> Tensor:
    """(S,) int64 class of each column of masks (C, S) bool; C where no row holds it.

    Example:
        >>> class_of_columns(torch.tensor([[True, False, False], [False, False, True]]))
        tensor([0, 2, 1])
    """
    return torch.where(masks.any(0), masks.int().argmax(0), len(masks))


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean of ``1 − (2 Σ p g + 1) / (Σ p + Σ g + 1)`` over rows of (P, S) logits and masks."""
    soft = logits.sigmoid()
    overlap = 2 * (soft * masks).sum(1) + 1  # (P,)
    return (1 - overlap / (soft.sum(1) + masks.sum(1) + 1)).mean()


def score_loss(scores: Tensor, logits: Tensor, masks: Tensor) -> Tensor:
    """Squared error of scores (P, 1) against the IoU of (P, S) logits and masks.

    Only pairs that overlap by more than ``SCORED_IOU`` count; zero if there is none.
    """
    with torch.no_grad():
        # IoU = |p ∧ g| / (|p| + |g| − |p ∧ g|)
        positive = (logits.sigmoid() >= 0.5).float()
        overlap = (positive * masks).sum(1)
        iou = overlap / (positive.sum(1) + masks.sum(1) - overlap).clamp(min=1)
        counted = (iou > SCORED_IOU).float()

    error = (scores.squeeze(1) - iou).square() * counted
    return error.sum() / counted.sum().clamp(min=1)


def _layers(outputs: QueryOutput) -> list[LayerOutput]:
    """The last layer first, then the auxiliary ones."""
    return [outputs, *(outputs.get('aux_outputs') or [])]


def _rows(target: SceneTargets, rows: slice) -> SceneTargets:
    return SceneTargets(
        target.labels_3d[rows],
        target.sp_masks[rows],
        None if target.query_masks is None else target.query_masks[rows],
    )


def _mean(terms: Sequence[Tensor], count: int, predictions: Iterable[Tensor]) -> Tensor:
    """Sum of terms over ``count``; without terms a zero that still depends on predictions."""
    if not terms:
        return torch.stack([0.0 * x.sum() for x in predictions]).sum()
    return torch.stack(list(terms)).sum() / count
