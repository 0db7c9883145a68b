"""Boxes in closed form."""

import pytest
import torch

from oneformer3d.stm.boxes import (
    box_embedding,
    check_boxes,
    clip_sizes,
    log_iof,
    refine_xyzr,
    whole_images,
    xyxy_from_xyzr,
    xyzr_from_xyxy,
)
from oneformer3d.stm.sampling import make_sample_points


def test_there_and_back():
    first = torch.rand(5, 2) * 50
    xyxy = torch.cat((first, first + torch.rand(5, 2) * 30 + 1), dim=-1)
    torch.testing.assert_close(xyxy_from_xyzr(xyzr_from_xyxy(xyxy)), xyxy, rtol=1e-4, atol=1e-3)


def test_offsets_of_half_a_box_are_its_corners():
    xyxy = torch.tensor([[[3.0, 5.0, 13.0, 45.0]]])
    offset = torch.tensor([[[-0.5, -0.5, 0.0, 0.5, 0.5, 1.0]]])
    points = make_sample_points(offset, 2, xyzr_from_xyxy(xyxy))[0, 0, 0]
    torch.testing.assert_close(points[:, :2].flatten(), xyxy.flatten(), rtol=1e-5, atol=1e-4)
    level = torch.tensor(400.0).log2() / 2  # 10 × 40 pixels
    torch.testing.assert_close(points[:, 2], torch.stack((level, level + 1)))


def test_whole_images():
    sizes = clip_sizes((30, 40), 2)
    assert sizes.tolist() == [[40, 30, 40, 30]] * 2
    mixed = clip_sizes(torch.tensor([[40.0, 30, 40, 30], [7, 9, 7, 9]]), 2)
    boxes = xyxy_from_xyzr(whole_images(mixed))
    torch.testing.assert_close(boxes, torch.tensor([[0.0, 0, 40, 30], [0, 0, 7, 9]]))
    with pytest.raises(ValueError, match='image size must be positive'):
        clip_sizes((0, 3), 1)
    with pytest.raises(ValueError, match='whwh: expected'):
        clip_sizes(torch.ones(3, 4), 2)


def test_overlap_and_embedding_carry_no_gradient():
    touching = torch.tensor([[0.0, 0, 10, 10], [9.9999, 0, 20, 10]])
    xyzr = xyzr_from_xyxy(touching)[None, :, None].requires_grad_()
    assert not log_iof(xyzr).requires_grad
    assert not box_embedding(xyzr, 16).requires_grad


def test_the_embedding_turns_slowly_over_an_image():
    """Its fastest sinusoid turns by a radian in 1000 pixels, as the boxes' normal size says."""
    near = box_embedding(torch.tensor([[0.0, 0, 3, 0], [1, 0, 3, 0]]), 16)
    torch.testing.assert_close(near[1, 0] - near[0, 0], torch.tensor(0.001), atol=1e-6, rtol=0)


def test_refinement_moves_by_the_scale():
    box = torch.tensor([10.0, 20.0, 3.0, 0.5])
    moved = refine_xyzr(box, torch.tensor([0.5, -1.0, 1.0, -0.5]))
    torch.testing.assert_close(moved, torch.tensor([14.0, 12.0, 4.0, 0.0]))
    far = refine_xyzr(box, torch.full((4,), 1e9))
    assert torch.isfinite(xyxy_from_xyzr(far)).all()
    with pytest.raises(ValueError, match='boxes and deltas'):
        refine_xyzr(box, torch.zeros(3))


def test_overlap_is_a_share_of_the_own_box():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 25, 10], [50, 50, 60, 60]])
    share = log_iof(xyzr_from_xyxy(boxes)[None, :, None]).exp()[0]
    expected = torch.tensor([[1.0, 0.5, 0.0], [0.25, 1.0, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(share, expected, rtol=0, atol=1e-5)


def test_embedding_tells_boxes_apart():
    boxes = torch.rand(4, 4) * torch.tensor([1000.0, 1000.0, 10.0, 10.0])
    embedded = box_embedding(boxes, 32)
    assert embedded.shape == (4, 32)
    assert (torch.cdist(embedded, embedded) + 9 * torch.eye(4) > 0.1).all()
    with pytest.raises(ValueError, match='multiple of 8'):
        box_embedding(boxes, 12)


def test_boxes_that_are_not_finite_are_named():
    boxes = torch.zeros(1, 3, 1, 4)
    check_boxes(boxes)
    boxes[0, 1, 0, 2] = torch.nan
    with pytest.raises(ValueError, match='1 of 3 boxes are not finite'):
        check_boxes(boxes)
