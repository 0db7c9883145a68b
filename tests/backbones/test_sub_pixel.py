"""Sub-pixel convolution against the sum it stands for, and against a shared convolution."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from oneformer3d.backbones.sub_pixel import (
    SubPixelConv,
    blocks_of_shared_weight,
    group_norm_of_cells,
)


@pytest.mark.parametrize('factor', [1, 2, 3])
def test_each_fine_cell_reads_all_channels_of_its_coarse_one(factor) -> None:
    conv = SubPixelConv(5, 4, factor)
    nn.init.normal_(conv.weight)
    nn.init.normal_(conv.bias)
    x = torch.randn(2, 5, 3, 2)
    fine = conv(x)
    assert fine.shape == (2, 4, 3 * factor, 2 * factor)
    for d in range(4):
        for row in range(3 * factor):
            for column in range(2 * factor):
                k = factor**2 * d + factor * (row % factor) + column % factor
                seen = x[:, :, row // factor, column // factor]
                expected = seen @ conv.weight[k, :, 0, 0] + conv.bias[k]
                torch.testing.assert_close(fine[:, d, row, column], expected)


def test_it_starts_as_the_nearest_cell_and_learns_to_differ() -> None:
    conv = SubPixelConv(6, 4)
    x = torch.randn(1, 6, 3, 3)
    fine = conv(x)
    assert torch.equal(fine, F.interpolate(fine[..., ::2, ::2], scale_factor=2, mode='nearest'))
    (fine * torch.randn_like(fine)).sum().backward()
    first, second = conv.weight.grad[0], conv.weight.grad[1]  # of two cells of one channel
    assert not torch.allclose(first, second)


@pytest.mark.parametrize('factor', [2, 3])
def test_a_convolution_shared_by_shuffled_cells_is_a_case_of_it(factor) -> None:
    shared = nn.Conv2d(7, 4, 1)
    conv = SubPixelConv(7 * factor**2, 4, factor)
    conv.load_state_dict(shared.state_dict())
    x = torch.randn(2, 7 * factor**2, 3, 5)
    torch.testing.assert_close(conv(x), shared(F.pixel_shuffle(x, factor)), atol=1e-6, rtol=1e-6)
    blocks = blocks_of_shared_weight(shared.weight, factor)
    assert (blocks != 0).sum() == factor**2 * shared.weight.numel()


def test_cells_are_normalised_as_those_of_the_shuffled_map() -> None:
    x = 5 * torch.randn(2, 12, 3, 4) + 2
    cells = F.pixel_shuffle(x, 2).permute(0, 2, 3, 1)
    expected = F.layer_norm(cells, (3,)).permute(0, 3, 1, 2)
    found = F.pixel_shuffle(group_norm_of_cells(x, 2), 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    plain = F.layer_norm(x.permute(0, 2, 3, 1), (12,)).permute(0, 3, 1, 2)
    torch.testing.assert_close(group_norm_of_cells(x, 1), plain, atol=1e-5, rtol=1e-5)
    assert not group_norm_of_cells(torch.zeros(1, 12, 2, 2), 2).any()  # a masked view


def test_no_views_and_bad_input() -> None:
    assert SubPixelConv(4, 8)(torch.zeros(0, 4, 3, 5)).shape == (0, 8, 6, 10)
    with pytest.raises(ValueError, match='positive'):
        SubPixelConv(0, 8)
    with pytest.raises(ValueError, match='multiple of 4 channels, got 6'):
        group_norm_of_cells(torch.zeros(1, 6, 2, 2), 2)
