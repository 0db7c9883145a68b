"""STM's sampling and mixing as its document writes them; see ``docs/call_forms.md``."""

import torch
from torch import nn

from oneformer3d.stm_decoder import (
    MHAQ3D,
    SAMPLE4D,
    AdaptiveMixing,
    STMDecoder,
    make_sample_points,
    translate_to_linear_weight,
)


def test_adaptive_mixing_by_its_keywords_and_defaults():
    mixing = AdaptiveMixing(
        in_dim=16, in_points=8, n_groups=2, query_dim=None, out_dim=None, out_points=None,
        sampling_rate=None,
    )  # fmt: skip
    names = ('query_dim', 'out_points', 'eff_in_dim', 'eff_out_dim', 'm_parameters')
    assert [getattr(mixing, name) for name in names] == [16, 8, 8, 8, 64]
    sizes = [getattr(mixing, name) for name in ('in_dim', 'out_dim', 'sampling_rate')]
    assert sizes == [16, 16, 1]
    assert mixing.total_parameters == mixing.m_parameters + mixing.s_parameters
    assert isinstance(mixing.parameter_generator, nn.Sequential)
    assert isinstance(mixing.out_proj, nn.Linear)
    x, query = torch.randn(2, 3, 2, 8, 8), torch.randn(2, 3, 16)
    assert mixing(x, query).shape == (2, 3, 16)


def test_sampling_functions():
    offset, xyzr = torch.randn(1, 5, 2 * 4 * 3), torch.rand(1, 5, 4) * 3 + 2
    points = make_sample_points(offset, num_group=2 * 4, xyzr=xyzr)
    assert points.shape == (1, 5, 1, 8, 3)

    weight = translate_to_linear_weight(torch.rand(1, 5, 1, 8), num_total=4, tau=2.0)
    torch.testing.assert_close(weight.sum(-1), torch.ones(1, 5, 1, 8))

    values = [torch.randn(1, 16, 4, 16 // 2**i, 16 // 2**i) for i in range(3)]
    out, none = SAMPLE4D(points, values, [4, 8, 16], n_points=4)
    assert none is None
    assert out.shape == (1, 8, 2, 4, 4, 5, 1)  # (B, C / G, G, T, P, Hq, Wq)


def test_one_level_without_and_with_weights():
    """A level whose every value is one sums to the weights; points in the middle of its cells."""
    points = torch.full((1, 5, 1, 8, 2), 0.5)
    value = torch.ones(1, 16, 4, 6, 6)
    plain = MHAQ3D(points, value, n_points=4)
    torch.testing.assert_close(plain, torch.ones(1, 8, 2, 4, 4, 5, 1))
    weighed = MHAQ3D(points, value, weight=torch.full((1, 5, 1, 8), 0.25), n_points=4)
    torch.testing.assert_close(weighed, plain * 0.25)


def test_decoder_takes_the_sizes_of_the_clips():
    decoder = STMDecoder(
        num_stages=2, num_queries=5, query_dim=16, num_heads=2, feedforward_channels=16,
        spatial_points=4, out_multiplier=2, n_groups=2, num_classes_action=3,
    )  # fmt: skip
    features = [torch.randn(2, 16, 4, 64 // s, 64 // s) for s in (4, 8, 16, 32)]
    whwh = torch.tensor([[64.0, 64.0, 64.0, 64.0], [48.0, 40.0, 48.0, 40.0]])
    outputs = decoder(features, whwh)
    assert len(outputs) == 2
    assert outputs[-1].xyzr.shape == (2, 5, 1, 4)
    assert outputs[-1].action_logits.shape == (2, 5, 3)
