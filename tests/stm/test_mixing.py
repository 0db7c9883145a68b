"""Adaptive mixing against reference values and against loops over its definition."""

import pytest
import torch
import torch.nn.functional as F

from oneformer3d.stm.mixing import AdaptiveMixing
from tests.helpers.reference_values import stm_reference


def test_reference_values():
    for case in stm_reference():
        args = case['args']
        mixing = AdaptiveMixing(
            args['C'],
            args['P'],
            args['G'],
            query_dim=case['am_q'].shape[-1],
            out_points=args['OP'],
        )
        mixing.load_state_dict(case['am_state'], strict=True)
        out = mixing(case['am_x'], case['am_q'])
        torch.testing.assert_close(out, case['am_out'], rtol=0, atol=1e-5)


def by_definition(mixing, x, query):
    """One query and group at a time, as the equations say."""
    out = torch.zeros_like(query)
    generator = mixing.parameter_generator[0]
    for b in range(len(x)):
        for n in range(x.shape[1]):
            parameters = generator(query[b, n]).view(mixing.n_groups, -1)
            groups = []
            for g in range(mixing.n_groups):
                m = parameters[g, : mixing.m_parameters].view(mixing.eff_in_dim, -1)
                s = parameters[g, mixing.m_parameters :].view(-1, mixing.in_points)
                y = x[b, n, g] @ m
                y = F.relu((y - y.mean()) / (y.var(unbiased=False) + 1e-5).sqrt())
                z = s @ y
                z = F.relu((z - z.mean()) / (z.var(unbiased=False) + 1e-5).sqrt())
                groups.append(z.flatten())
            out[b, n] = query[b, n] + mixing.out_proj(torch.cat(groups))
    return out


def random_mixing(**changes) -> AdaptiveMixing:
    settings = {'in_dim': 8, 'in_points': 5, 'n_groups': 2, 'query_dim': 6, 'out_points': 3}
    mixing = AdaptiveMixing(**{**settings, **changes})
    torch.nn.init.normal_(mixing.parameter_generator[0].weight)
    return mixing


@pytest.mark.parametrize('out_dim', [8, 12])
def test_definition(out_dim):
    mixing = random_mixing(out_dim=out_dim)
    x, query = torch.randn(2, 3, 2, 5, 4), torch.randn(2, 3, 6)
    torch.testing.assert_close(
        mixing(x, query), by_definition(mixing, x, query), rtol=1e-4, atol=1e-5
    )


def test_defaults_and_sampling_rate():
    mixing = AdaptiveMixing(8, 6, 2)
    assert (mixing.query_dim, mixing.eff_out_dim, mixing.out_points) == (8, 4, 6)
    assert AdaptiveMixing(8, 6, 2, sampling_rate=3).in_points == 2
    assert mixing(torch.randn(1, 2, 2, 6, 4), torch.randn(1, 2, 8)).shape == (1, 2, 8)


def test_initial_weights():
    mixing = AdaptiveMixing(8, 6, 2, out_points=9)
    assert not mixing.parameter_generator[0].weight.any()
    assert not mixing.out_proj.bias.any()
    bound = mixing.out_proj.in_features**-0.5
    largest = mixing.out_proj.weight.abs().max()
    assert 0.9 * bound < largest <= bound
    names = {
        'parameter_generator.0.weight',
        'parameter_generator.0.bias',
        'out_proj.weight',
        'out_proj.bias',
    }
    assert set(mixing.state_dict()) == names


def test_points_outside_the_mask_are_as_if_they_were_not_there():
    mixing = random_mixing()
    x, query = torch.randn(2, 3, 2, 5, 4), torch.randn(2, 3, 6)
    kept = [0, 2, 3]
    mask = torch.zeros(2, 3, 2, 5, dtype=torch.bool)
    mask[..., kept] = True
    small = AdaptiveMixing(8, 3, 2, 6, out_points=3)
    small.out_proj.load_state_dict(mixing.out_proj.state_dict())
    with torch.no_grad():
        for name in ('weight', 'bias'):
            rows = getattr(mixing.parameter_generator[0], name).unflatten(0, (2, -1))
            m, s = rows.split([mixing.m_parameters, mixing.s_parameters], dim=1)
            s = s.unflatten(1, (3, 5))[:, :, kept].flatten(1, 2)
            getattr(small.parameter_generator[0], name).copy_(torch.cat((m, s), 1).flatten(0, 1))
    expected = small(x[..., kept, :], query)
    torch.testing.assert_close(mixing(x, query, mask), expected, rtol=1e-4, atol=1e-5)
    changed = torch.where(mask[..., None], x, 100.0)
    torch.testing.assert_close(mixing(changed, query, mask), expected, rtol=1e-4, atol=1e-5)
    everything = torch.ones_like(mask)
    torch.testing.assert_close(mixing(x, query, everything), mixing(x, query), rtol=1e-4, atol=1e-5)


def test_nothing_under_the_mask_is_finite_and_has_gradients():
    mixing = random_mixing()
    x = torch.randn(1, 2, 2, 5, 4, requires_grad=True)
    out = mixing(x, torch.randn(1, 2, 6), torch.zeros(1, 2, 2, 5, dtype=torch.bool))
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in mixing.parameters())


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match='3 groups do not divide in_dim=8'):
        AdaptiveMixing(8, 4, 3)
    with pytest.raises(ValueError, match='out_dim=7'):
        AdaptiveMixing(8, 4, 2, out_dim=7)
    with pytest.raises(ValueError, match='at least 1'):
        AdaptiveMixing(8, 4, 2, sampling_rate=8)
    with pytest.raises(ValueError, match='x: expected'):
        AdaptiveMixing(8, 4, 2)(torch.randn(1, 2, 2, 5, 4), torch.randn(1, 2, 8))
