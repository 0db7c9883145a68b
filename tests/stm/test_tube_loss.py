"""Losses of tubes in closed form, and the matching behind them."""

import math

import pytest
import torch

from oneformer3d.stm.boxes import xyzr_from_xyxy
from oneformer3d.stm.stage import StageOutput
from oneformer3d.stm.tube_loss import TubeLossWeights, Tubes, match_tubes, tube_losses

SIZE = (40, 80)


def tubes(*boxes, labels=None, frames=1) -> Tubes:
    count = len(boxes)
    boxes = torch.tensor(boxes, dtype=torch.float32).view(count, 1, 4).expand(count, frames, 4)
    labels = torch.zeros(count, dtype=torch.int64) if labels is None else torch.tensor(labels)
    return Tubes(boxes, labels, torch.eye(3)[:count])


def output_of(boxes, frames=1) -> StageOutput:
    """Queries with these boxes, sure of class 0 and without an opinion on actions."""
    xyxy = torch.tensor([boxes], dtype=torch.float32)
    xyzr = xyzr_from_xyxy(xyxy)[:, :, None].expand(-1, -1, frames, -1).clone().requires_grad_()
    count = xyxy.shape[1]
    cls = torch.tensor([20.0, 0.0, 0.0]).expand(1, count, 3).clone().requires_grad_()
    actions = torch.zeros(1, count, 3, requires_grad=True)
    return StageOutput(cls, actions, xyzr, torch.zeros(0), torch.zeros(0))


def test_exact_boxes_cost_nothing_and_are_matched():
    boxes = [[50.0, 10, 60, 30], [0, 0, 10, 10]]
    output, target = output_of(boxes), tubes(*boxes[::-1])
    rows, columns = match_tubes(output, [target], SIZE, TubeLossWeights())[0]
    assert dict(zip(rows.tolist(), columns.tolist())) == {0: 1, 1: 0}
    losses = tube_losses([output], [target], SIZE)
    assert float(losses['stage0.loss_l1']) < 1e-4
    assert float(losses['stage0.loss_giou']) < 1e-4
    assert float(losses['stage0.loss_cls']) < 1e-4
    assert float(losses['stage0.loss_action']) == pytest.approx(24 * math.log(2), rel=1e-5)


@pytest.mark.parametrize('frames', [1, 3])
def test_boxes_a_known_distance_off(frames):
    output = output_of([[8.0, 4, 28, 14]], frames)
    target = tubes([0.0, 0, 20, 10], frames=frames)
    weights = TubeLossWeights(l1=1, giou=1)
    losses = tube_losses([output], [target], SIZE, weights)
    assert float(losses['stage0.loss_l1']) == pytest.approx(2 * 8 / 80 + 2 * 4 / 40, rel=1e-3)
    overlap, union, hull = 12 * 6, 2 * 200 - 12 * 6, 28 * 14
    giou = overlap / union - (hull - union) / hull
    assert float(losses['stage0.loss_giou']) == pytest.approx(1 - giou, rel=1e-3)


def test_queries_without_a_tube_are_background():
    output = output_of([[0.0, 0, 20, 10], [40.0, 20, 70, 35]])
    losses = tube_losses([output], [tubes([0.0, 0, 20, 10])], SIZE)
    # weighted mean of 0 (matched) and 20 (sure of the wrong class) with weights 1 and 0.1
    assert float(losses['stage0.loss_cls']) == pytest.approx(2 * 20 * 0.1 / 1.1, rel=1e-3)


def test_a_clip_without_tubes():
    output = output_of([[0.0, 0, 20, 10]])
    nothing = Tubes(torch.zeros(0, 1, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3))
    losses = tube_losses([output], [nothing], SIZE)
    assert float(losses['stage0.loss_l1']) == 0
    torch.stack(list(losses.values())).sum().backward()
    assert torch.isfinite(output.xyzr.grad).all()
    assert output.cls_logits.grad.any()


def test_all_stages_count():
    output = output_of([[0.0, 0, 20, 10]])
    losses = tube_losses([output] * 3, [tubes([0.0, 0, 20, 10])], SIZE)
    assert len(losses) == 12
    assert all('loss' in name for name in losses)


def test_wrong_input_is_named():
    output = output_of([[0.0, 0, 20, 10]])
    with pytest.raises(ValueError, match='1 clips but 2 targets'):
        tube_losses([output], [tubes([0.0, 0, 1, 1])] * 2, SIZE)
    with pytest.raises(ValueError, match='tubes of 2 frames, but the decoder predicts 1'):
        tube_losses([output], [tubes([0.0, 0, 1, 1], frames=2)], SIZE)
    with pytest.raises(ValueError, match='not finite'):
        tubes([0.0, 0, math.nan, 1])
    with pytest.raises(ValueError, match='right and bottom'):
        tubes([5.0, 0, 5, 1])
    with pytest.raises(ValueError, match='2 boxes, 1 labels'):
        Tubes(torch.rand(2, 1, 4), torch.zeros(1), torch.zeros(2, 3))
    with pytest.raises(ValueError, match='boxes: expected'):
        Tubes(torch.rand(2, 4), torch.zeros(2), torch.zeros(2, 3))
