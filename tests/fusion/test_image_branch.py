"""Shapes of the documented chain, places of channels, gradients."""

import pytest
import torch

from oneformer3d.fusion.image_branch import ImageHead, frozen_tokens, pixel_shuffle_features


def test_the_documented_chain_of_shapes() -> None:
    stored = pixel_shuffle_features(torch.zeros(1, 768, 14, 14))
    assert stored.shape == (1, 192, 28, 28)
    assert ImageHead(192)(stored).shape == (1, 256, 56, 56)


def test_pixel_shuffle_puts_four_channels_into_one_cell() -> None:
    feat = torch.arange(2 * 8 * 3 * 2.0).view(2, 8, 3, 2)
    shuffled = pixel_shuffle_features(feat)
    for c in range(2):
        for row in range(6):
            for column in range(4):
                source = feat[:, 4 * c + 2 * (row % 2) + column % 2, row // 2, column // 2]
                assert torch.equal(shuffled[:, c, row, column], source)
    assert torch.equal(pixel_shuffle_features(feat, 1), feat)
    with pytest.raises(ValueError, match='multiple of 4'):
        pixel_shuffle_features(torch.zeros(1, 6, 2, 2))


@pytest.mark.parametrize('factor', [1, 2, 3])
def test_the_tokens_come_back_from_the_stored_map_bit_for_bit(factor: int) -> None:
    tokens = torch.randn(2, 36, 3, 5).half()
    assert torch.equal(frozen_tokens(pixel_shuffle_features(tokens, factor), factor), tokens)


def test_an_even_image_has_a_pattern_of_patches_only_while_shuffled() -> None:
    """Energy at a period of two cells, as a share of all energy, of one token everywhere."""
    token = torch.randn(64, generator=torch.Generator().manual_seed(0))
    shuffled = pixel_shuffle_features(token[:, None, None].expand(64, 8, 8))

    def share(feat: torch.Tensor) -> float:
        power = torch.fft.fft2(feat).abs().square().sum(0)
        return float(
            (power[power.shape[0] // 2].sum() + power[0, power.shape[1] // 2]) / power.sum()
        )

    assert share(shuffled) > 0.3
    assert share(frozen_tokens(shuffled, 2)) < 1e-6


def test_the_enlarged_map_covers_the_same_image() -> None:
    """A ramp over the image is the same ramp afterwards, half a cell from the border."""
    head = ImageHead(1, 1)
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
    assert output.shape == (2, 8, 6, 10)
    assert output.dtype == torch.float32
    output.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())


def test_no_views_are_an_empty_map() -> None:
    assert ImageHead(4, 8)(torch.zeros(0, 4, 3, 5)).shape == (0, 8, 6, 10)


def test_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match='192'):
        ImageHead(192)(torch.zeros(1, 768, 14, 14))
    with pytest.raises(ValueError, match='positive'):
        ImageHead(0)
