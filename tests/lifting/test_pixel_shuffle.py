"""The shuffle of stored tokens: places of channels, and the way back bit for bit."""

import pytest
import torch
import torch.nn.functional as F

from oneformer3d.lifting.pixel_shuffle import frozen_tokens, pixel_shuffle_features


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
    stored = torch.randn(2, 4, 3 * factor, 5 * factor)
    assert torch.equal(frozen_tokens(stored, factor), F.pixel_unshuffle(stored, factor))
    none = torch.zeros(0, 36 // factor**2, 3 * factor, 5 * factor)
    assert frozen_tokens(none, factor).shape == (0, 36, 3, 5)


def test_sides_that_were_never_shuffled_are_refused() -> None:
    with pytest.raises(ValueError, match=r'sides that 2 divides, got \(7, 8\)'):
        frozen_tokens(torch.zeros(4, 7, 8), 2)


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
