"""Losses of the tube decoder: one query for each tube, found by Hungarian matching.

Enters: the ``StageOutput`` of every stage and the tubes of each clip. Leaves: a dictionary of
scalars. B clips, N queries, I tubes of a clip, T' frames of a box (1 where shared).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import generalized_box_iou, generalized_box_iou_loss

from oneformer3d.lifting.shapes import expect_shape

from .boxes import clip_sizes, xyxy_from_xyzr
from .stage import StageOutput


@dataclass(frozen=True)
class Tubes:
    """What moves in one clip.

    Attributes:
        boxes: (I, T', 4) left, top, right, bottom in pixels; T' as the decoder predicts.
        labels: (I,) int64 class.
        actions: (I, actions) 0 or 1.
    """

    boxes: Tensor
    labels: Tensor
    actions: Tensor

    def __post_init__(self) -> None:
        count, _, _ = expect_shape('boxes', self.boxes, "I T' 4")
        if len(self.labels) != count or len(self.actions) != count:
            raise ValueError(
                f'{count} boxes, {len(self.labels)} labels and {len(self.actions)} actions'
            )
        if not torch.isfinite(self.boxes).all():
            raise ValueError('boxes are not finite')
        if (self.boxes[..., 2:] <= self.boxes[..., :2]).any():
            raise ValueError('boxes: right and bottom must lie beyond left and top')


@dataclass(frozen=True)
class TubeLossWeights:
    """Of the terms; ``background`` is of queries without a tube, in the classification."""

    cls: float = 2.0
    l1: float = 2.0
    giou: float = 2.0
    action: float = 24.0
    background: float = 0.1


def tube_losses(
    outputs: Sequence[StageOutput],
    targets: Sequence[Tubes],
    whwh: Tensor | tuple[int, int],
    weights: TubeLossWeights | None = None,
) -> dict[str, Tensor]:
    """Weighted terms ``stage{i}.loss_{cls, l1, giou, action}``.

    L1 is of boxes in shares of the image; box and action terms are means over the tubes of the
    batch, and zero without tubes.

    Args:
        outputs: of all stages.
        targets: of each clip.
        whwh: (B, 4) width, height, width, height of each clip, or the (H, W) that all share.
        weights: of the terms.

    Raises:
        ValueError: not one target for each clip, or boxes of other frames.
    """
    weights = weights or TubeLossWeights()
    losses = {}
    for i, output in enumerate(outputs):
        if len(targets) != len(output.xyzr):
            raise ValueError(f'{len(output.xyzr)} clips but {len(targets)} targets')
        for name, value in _stage_losses(output, targets, whwh, weights).items():
            losses[f'stage{i}.loss_{name}'] = value
    return losses


def match_tubes(
    output: StageOutput,
    targets: Sequence[Tubes],
    whwh: Tensor | tuple[int, int],
    weights: TubeLossWeights,
) -> list[tuple[Tensor, Tensor]]:
    """Per clip the matched queries and their tubes, at least total cost (Carion et al., DETR)."""
    matches = []
    sizes = clip_sizes(whwh, len(targets)).to(output.xyzr)
    with torch.no_grad():
        for logits, xyzr, target, scale in zip(output.cls_logits, output.xyzr, targets, sizes):
            boxes = xyxy_from_xyzr(xyzr)
            _check_frames(boxes, target)

            # cost (N, I) = - p(class) + L1 - GIoU, weighted
            cost = -weights.cls * logits.softmax(-1)[:, target.labels]
            distance = (boxes[:, None] - target.boxes.to(boxes)).abs() / scale
            cost = cost + weights.l1 * distance.sum(-1).mean(-1)
            giou = [
                generalized_box_iou(boxes[:, t], target.boxes[:, t].to(boxes))
                for t in range(boxes.shape[1])
            ]
            cost = cost - weights.giou * torch.stack(giou).mean(0)

            rows, columns = linear_sum_assignment(cost.nan_to_num(1e6).cpu().numpy())
            device = logits.device
            matches.append(
                (torch.as_tensor(rows, device=device), torch.as_tensor(columns, device=device))
            )
    return matches


def _stage_losses(
    output: StageOutput,
    targets: Sequence[Tubes],
    whwh: Tensor | tuple[int, int],
    weights: TubeLossWeights,
) -> dict[str, Tensor]:
    matches = match_tubes(output, targets, whwh, weights)
    num_classes = output.cls_logits.shape[-1]
    labels = torch.full(output.cls_logits.shape[:2], num_classes - 1, device=output.xyzr.device)
    for i, ((rows, columns), target) in enumerate(zip(matches, targets)):
        labels[i, rows] = target.labels.to(labels)[columns]

    class_weights = output.cls_logits.new_ones(num_classes)
    class_weights[-1] = weights.background
    cls = F.cross_entropy(output.cls_logits.flatten(0, 1), labels.flatten(), class_weights)

    clip = torch.cat([torch.full_like(rows, i) for i, (rows, _) in enumerate(matches)])
    query = torch.cat([rows for rows, _ in matches])
    boxes = xyxy_from_xyzr(output.xyzr[clip, query])
    wanted = torch.cat([t.boxes[columns] for t, (_, columns) in zip(targets, matches)]).to(boxes)
    actions = torch.cat([t.actions[columns] for t, (_, columns) in zip(targets, matches)])
    logits = output.action_logits[clip, query]

    l1 = (boxes - wanted).abs() / clip_sizes(whwh, len(targets)).to(boxes)[clip, None]
    giou = generalized_box_iou_loss(boxes.flatten(0, 1), wanted.flatten(0, 1), reduction='none')
    action = F.binary_cross_entropy_with_logits(logits, actions.to(logits), reduction='none')

    count = max(1, len(query))
    return {
        'cls': weights.cls * cls,
        'l1': weights.l1 * l1.sum(-1).mean(-1).sum() / count,
        'giou': weights.giou * giou.sum() / (count * boxes.shape[1]),
        'action': weights.action * action.mean(-1).sum() / count,
    }


def _check_frames(boxes: Tensor, target: Tubes) -> None:
    if target.boxes.shape[1] != boxes.shape[1]:
        raise ValueError(
            f'tubes of {target.boxes.shape[1]} frames, but the decoder predicts {boxes.shape[1]}'
        )
