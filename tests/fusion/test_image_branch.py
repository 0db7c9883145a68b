"""Shapes of the documented chain, checkpoints of the chain before, gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.fusion.image_branch import ImageBranch, ImageHead
from oneformer3d.fusion.point_head import find_branch, load_point_head, sub_pixel_factor
from oneformer3d.lifting.pixel_shuffle import frozen_tokens, pixel_shuffle_features
from oneformer3d.lifting.uv import sample_img_feat


def test_the_documented_chain_of_shapes() -> None:
    stored = pixel_shuffle_features(torch.zeros(1, 768, 14, 14))
    assert stored.shape == (1, 192, 28, 28)
    head = ImageHead(768)
    assert head.proj(frozen_tokens(stored, 2)).shape == (1, 256, 28, 28)
    assert head(frozen_tokens(stored, 2)).shape == (1, 256, 56, 56)


class SharedConvBranch(nn.Module):
    """The chain before: norm and one convolution of the cells of the shuffled map."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.head = nn.ModuleDict({'proj': nn.Conv2d(in_channels, 256, 1)})
        self.linear, self.confidence = nn.Linear(256, 128), nn.Linear(256, 1)

    def forward(self, maps: Tensor) -> Tensor:
        cells = F.layer_norm(maps.permute(0, 2, 3, 1), maps.shape[1:2]).permute(0, 3, 1, 2)
        cells = self.head['proj'](cells).permute(0, 2, 3, 1)
        confidence = self.confidence(cells).sigmoid().clamp(min=1e-3)
        cells = torch.cat((self.linear(cells) * confidence, confidence), dim=-1)
        return F.interpolate(
            cells.permute(0, 3, 1, 2), scale_factor=2, mode='bilinear', align_corners=False
        )


def test_weights_of_the_chain_before_give_the_same_maps() -> None:
    before, branch = SharedConvBranch(48), ImageBranch(192)
    branch.load_state_dict(before.state_dict())
    stored = pixel_shuffle_features(3 * torch.randn(2, 192, 5, 6) + 0.7)
    torch.testing.assert_close(
        branch.weighted_maps(frozen_tokens(stored, 2)), before(stored), atol=1e-5, rtol=1e-5
    )
    # what is saved from now on is the wide form, and is read back as it is
    again = ImageBranch(192)
    again.load_state_dict(branch.state_dict())
    assert torch.equal(again.head.proj.weight, branch.head.proj.weight)
    # patches that were not shuffled had one convolution, too
    patches = ImageBranch(48, sub_pixel=1)
    patches.load_state_dict(before.state_dict())
    torch.testing.assert_close(patches.weighted_maps(stored), before(stored), atol=1e-5, rtol=1e-5)
    with pytest.raises(RuntimeError, match=r'head\.proj\.weight'):
        ImageBranch(96).load_state_dict(before.state_dict())


def test_a_trained_branch_of_either_form_is_found_in_a_checkpoint(tmp_path) -> None:
    before = SharedConvBranch(48)
    state = {f'encoder.image_branch.{name}': v for name, v in before.state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'before.pth')
    uv = torch.tensor([[3.0, 4.0], [20.0, 11.0], [7.5, 16.0]])
    stored = pixel_shuffle_features(torch.randn(192, 5, 6))
    found = load_point_head(tmp_path / 'before.pth', 192)(frozen_tokens(stored, 2), uv, (20, 24))
    sampled = sample_img_feat(before(stored[None]).detach(), uv, (20, 24))
    torch.testing.assert_close(found, sampled[:, :-1] / sampled[:, -1:], atol=1e-5, rtol=1e-5)

    branch = ImageBranch(192)
    state = {f'x.{name}': value for name, value in branch.state_dict().items()}
    assert find_branch(state, 192, 128, 'here') == 'x.'
    with pytest.raises(ValueError, match='expected one image branch from 96'):
        find_branch(state, 96, 128, 'here')
    shapes = [(1024, 192), (256, 48), (256, 192), (2304, 192), (256, 47), (512, 192), (64, 192)]
    factors = [sub_pixel_factor((*shape, 1, 1), 192, 256) for shape in shapes]
    assert factors == [2, 2, 1, 3, 0, 0, 0]


def test_the_enlarged_map_covers_the_same_image() -> None:
    """A ramp over the image is the same ramp afterwards, half a cell from the border."""
    head = ImageHead(1, 1, sub_pixel=1)
    with torch.no_grad():
        head.proj.weight.fill_(1)
        head.proj.bias.zero_()
    width = 8
    ramp = ((torch.arange(width) + 0.5) / width).expand(1, 1, 4, width)
    enlarged = head(ramp)[0, 0, 3]
    expected = (torch.arange(2 * width) + 0.5) / (2 * width)
    torch.testing.assert_close(enlarged[1:-1], expected[1:-1])


def test_all_parameters_learn_from_half_precision_maps_and_the_neck_is_used() -> None:
    neck = torch.nn.Conv2d(8, 8, 3, padding=1)
    head = ImageHead(4, 8, neck=neck)
    output = head(torch.randn(2, 4, 3, 5, dtype=torch.float16))
    assert output.shape == (2, 8, 12, 20)
    assert output.dtype == torch.float32
    output.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())


def test_no_views_are_an_empty_map() -> None:
    assert ImageHead(4, 8)(torch.zeros(0, 4, 3, 5)).shape == (0, 8, 12, 20)


def test_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match='768'):
        ImageHead(768)(torch.zeros(1, 192, 28, 28))
    with pytest.raises(ValueError, match='multiple of 4'):
        ImageBranch(6).weighted_maps(torch.zeros(1, 6, 2, 2))
    with pytest.raises(ValueError, match='positive'):
        ImageHead(0)
