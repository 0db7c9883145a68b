"""Assign queries to ground-truth instances.

Enters: of one sample, class logits (Q, C_inst + 1), mask logits (Q, S), instance labels (I,) and
masks (I, S). Leaves: two (P,) int64 tensors, the query and the instance of each matched pair.

A matcher adds up weighted costs, each a (Q, I) matrix, in float32 whatever the predictions are.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from oneformer3d.lifting.shapes import expect_shape
from oneformer3d.registry import TASK_UTILS


class Cost(Protocol):
    """What matching one query with one instance costs."""

    weight: float

    def __call__(
        self, cls_logits: Tensor, mask_logits: Tensor, labels: Tensor, gt_masks: Tensor
    ) -> Tensor:
        """Weighted (Q, I) costs."""
        ...


@TASK_UTILS.register_module()
class QueryClassificationCost:
    """Negative probability of the instance's class."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(
        self, cls_logits: Tensor, mask_logits: Tensor, labels: Tensor, gt_masks: Tensor
    ) -> Tensor:
        """Weighted (Q, I) costs."""
        return -self.weight * cls_logits.softmax(-1)[:, labels]


@TASK_UTILS.register_module()
class MaskBCECost:
    """Binary cross-entropy of masks, mean over superpoints."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(
        self, cls_logits: Tensor, mask_logits: Tensor, labels: Tensor, gt_masks: Tensor
    ) -> Tensor:
        """Weighted (Q, I) costs."""
        # BCE(x, g) = softplus(x) − x·g, so one product serves all pairs
        cost = F.softplus(mask_logits).sum(1, keepdim=True) - mask_logits @ gt_masks.T
        return self.weight * cost / mask_logits.shape[1]


@TASK_UTILS.register_module()
class MaskDiceCost:
    """One minus the dice coefficient of soft masks, smoothed by 1."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(
        self, cls_logits: Tensor, mask_logits: Tensor, labels: Tensor, gt_masks: Tensor
    ) -> Tensor:
        """Weighted (Q, I) costs."""
        # 1 − (2 Σ p g + 1) / (Σ p + Σ g + 1)
        masks = mask_logits.sigmoid()
        overlap = 2 * masks @ gt_masks.T + 1  # (Q, I)
        total = masks.sum(1, keepdim=True) + gt_masks.sum(1) + 1
        return self.weight * (1 - overlap / total)


class Matcher(ABC):
    """Base of the matchers: builds the costs and adds them up.

    Args:
        costs: cost objects or their settings.
    """

    def __init__(self, costs: Sequence[Cost | dict]) -> None:
        if len(costs) == 0:
            raise ValueError('a matcher needs at least one cost')
        self.costs = [TASK_UTILS.build(c) if isinstance(c, dict) else c for c in costs]

    def cost_matrix(
        self, cls_logits: Tensor, mask_logits: Tensor, labels: Tensor, gt_masks: Tensor
    ) -> Tensor:
        """Sum of the costs, (Q, I) float32."""
        with torch.autocast(mask_logits.device.type, enabled=False):
            gt_masks = gt_masks.float()
            arguments = cls_logits.float(), mask_logits.float(), labels, gt_masks
            return torch.stack([cost(*arguments) for cost in self.costs]).sum(0)

    @abstractmethod
    def __call__(
        self,
        cls_logits: Tensor,
        mask_logits: Tensor,
        labels: Tensor,
        gt_masks: Tensor,
        query_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Matched (query ids, instance ids), two (P,) int64."""


@TASK_UTILS.register_module()
class HungarianMatcher(Matcher):
    """One query per instance, at the smallest total cost."""

    @torch.no_grad()
    def __call__(
        self,
        cls_logits: Tensor,
        mask_logits: Tensor,
        labels: Tensor,
        gt_masks: Tensor,
        query_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Matched (query ids, instance ids); ``query_masks`` plays no part.

        Raises:
            ValueError: a cost is not finite, because a prediction is not.
        """
        if len(labels) == 0:
            return labels.new_zeros(0), labels.new_zeros(0)

        cost = self.cost_matrix(cls_logits, mask_logits, labels, gt_masks)  # (Q, I)
        if not bool(torch.isfinite(cost).all()):
            raise ValueError('matching costs are not finite: predictions hold NaN or infinity')
        query_ids, gt_ids = linear_sum_assignment(cost.cpu().numpy())
        return (
            torch.as_tensor(query_ids, dtype=torch.long, device=labels.device),
            torch.as_tensor(gt_ids, dtype=torch.long, device=labels.device),
        )


@TASK_UTILS.register_module()
class SparseMatcher(Matcher):
    """Each instance takes its cheapest queries among those born inside it.

    A query is a superpoint, and is a candidate of the instances that hold this superpoint. An
    instance without candidates stays unmatched; one with fewer than ``topk`` takes them all.

    Args:
        costs: cost objects or their settings.
        topk: queries per instance.
    """

    def __init__(self, costs: Sequence[Cost | dict], topk: int = 1) -> None:
        super().__init__(costs)
        if topk < 1:
            raise ValueError(f'topk: expected at least 1, got {topk}')
        self.topk = topk

    @torch.no_grad()
    def __call__(
        self,
        cls_logits: Tensor,
        mask_logits: Tensor,
        labels: Tensor,
        gt_masks: Tensor,
        query_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Matched (query ids, instance ids), in ascending order of the queries.

        Args:
            cls_logits: (Q, C_inst + 1).
            mask_logits: (Q, S).
            labels: (I,) int64.
            gt_masks: (I, S) bool.
            query_masks: (I, Q) bool, whether the query's superpoint is in the instance; None
                when query q is superpoint q.

        Raises:
            ValueError: ``query_masks`` do not fit the queries.
        """
        query_masks = gt_masks if query_masks is None else query_masks
        expect_shape('query masks', query_masks, 'I Q', I=len(labels), Q=len(mask_logits))
        if query_masks.numel() == 0:
            return labels.new_zeros(0), labels.new_zeros(0)

        # queries outside of an instance are never its cheapest
        cost = self.cost_matrix(cls_logits, mask_logits, labels, gt_masks)  # (Q, I)
        cost = cost.masked_fill(~query_masks.T.bool(), torch.inf)
        values, query_ids = cost.topk(min(self.topk, len(cost)), dim=0, largest=False)  # (k, I)

        rows, gt_ids = torch.isfinite(values).nonzero(as_tuple=True)
        query_ids = query_ids[rows, gt_ids]
        order = (query_ids * len(labels) + gt_ids).argsort()
        return query_ids[order], gt_ids[order]
