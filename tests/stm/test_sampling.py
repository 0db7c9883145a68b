"""Sampling against reference values, against the described sampling, and on ramps."""

import pytest
import torch

from oneformer3d.stm.sampling import (
    MHAQ3D,
    SAMPLE4D,
    gather_rows,
    level_table,
    make_sample_points,
    translate_to_linear_weight,
)
from tests.helpers.described_stm import described_mhaq3d, described_sample4d
from tests.helpers.reference_values import stm_reference

STRIDES = (4, 8, 16)


@pytest.fixture(scope='module')
def cases():
    return stm_reference()


def pyramid(batch_size=2, channels=12, frames=3, height=32, width=48, dtype=torch.float32):
    shape = (batch_size, channels, frames)
    return [torch.randn(*shape, height // s, width // s, dtype=dtype) for s in STRIDES]


def points_of(batch_size, num_queries, count, width=48, height=32, dtype=torch.float32, frames=()):
    """Points of which some lie outside the image."""
    xy = torch.rand(batch_size, *frames, num_queries, 1, count, 2, dtype=dtype) * 1.4 - 0.2
    level = torch.rand(batch_size, *frames, num_queries, 1, count, 1, dtype=dtype) * 4 + 2
    return torch.cat((xy * torch.tensor([width, height], dtype=dtype), level), dim=-1)


def test_reference_values(cases):
    for case in cases:
        args = case['args']
        count = args['G'] * args['P']
        points = make_sample_points(case['offset'], count, case['xyzr'])
        torch.testing.assert_close(points, case['sample_points'], rtol=0, atol=1e-5)
        weight = translate_to_linear_weight(case['sample_points'][..., 2] - 3, 4)
        torch.testing.assert_close(weight, case['level_weight'], rtol=0, atol=1e-5)
        level = case['values'][0]
        sampled = MHAQ3D(case['mhaq3d_points'], level, case['level_weight'][..., 0], args['P'])
        torch.testing.assert_close(sampled, case['mhaq3d'], rtol=0, atol=1e-5)
        given = case['sample_points'], case['values'], args['strides'], args['P']
        sampled, nothing = SAMPLE4D(*given)
        assert nothing is None
        torch.testing.assert_close(sampled, case['sample4d'], rtol=0, atol=1e-5)
        # and the twin that everything below relies on
        torch.testing.assert_close(described_sample4d(*given), case['sample4d'], rtol=0, atol=1e-5)


def gradients(function, leaves):
    for leaf in leaves:
        leaf.grad = None
    out = function()
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    return out.detach(), [leaf.grad.clone() for leaf in leaves]


@pytest.mark.parametrize('groups', [1, 3])
def test_values_and_gradients_are_those_of_the_description(groups):
    values = [value.requires_grad_() for value in pyramid()]
    points = points_of(2, 5, groups * 4).requires_grad_()
    leaves = [points, *values]
    got, got_grads = gradients(lambda: SAMPLE4D(points, values, STRIDES, 4)[0], leaves)
    expected, expected_grads = gradients(
        lambda: described_sample4d(points, values, STRIDES, 4), leaves
    )
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    for got_grad, expected_grad in zip(got_grads, expected_grads):
        torch.testing.assert_close(got_grad, expected_grad, rtol=1e-3, atol=1e-4)


def test_one_level_without_weight():
    value, points = pyramid()[0], torch.rand(2, 5, 1, 8, 2) * 1.4 - 0.2
    got, expected = MHAQ3D(points, value, None, 4), described_mhaq3d(points, value, None, 4)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_query_grid_of_several_columns():
    value, points = pyramid()[0], torch.rand(2, 3, 4, 8, 2)
    got, expected = MHAQ3D(points, value, None, 4), described_mhaq3d(points, value, None, 4)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_frames_with_points_of_their_own():
    values, points = pyramid(), points_of(2, 5, 8, frames=(3,))
    got = SAMPLE4D(points, values, STRIDES, 4)[0]
    for t in range(3):
        frame = [value[:, :, t : t + 1] for value in values]
        expected = described_sample4d(points[:, t], frame, STRIDES, 4)
        torch.testing.assert_close(got[:, :, :, t : t + 1], expected, rtol=1e-4, atol=1e-5)


def test_gradients_numerically():
    values = [value.requires_grad_() for value in pyramid(1, 4, 2, 16, 16, torch.float64)]
    points = points_of(1, 2, 4, 16, 16, torch.float64).requires_grad_()
    torch.autograd.gradcheck(
        lambda p, *v: SAMPLE4D(p, v, STRIDES, 2)[0], (points, *values), atol=1e-5
    )


def test_channels_last_maps_and_a_table_made_once():
    values, points = pyramid(), points_of(2, 5, 8)
    expected = SAMPLE4D(points, values, STRIDES, 4)[0]
    last = [v.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3) for v in values]
    assert torch.equal(SAMPLE4D(points, last, STRIDES, 4)[0], expected)
    table = level_table(values, STRIDES, 2)
    assert torch.equal(SAMPLE4D(points, table, n_points=4)[0], expected)


@pytest.mark.parametrize('stride', [1, 2, 4, 8, 16, 32])
def test_a_pixel_reads_its_own_coordinate_half_a_pixel_on(stride):
    """Maps that hold the pixel (u, v) of each cell's centre give back the pixel that is asked."""
    rows, columns = 6, 7
    u = ((torch.arange(columns) + 0.5) * stride - 0.5).expand(rows, columns)
    v = ((torch.arange(rows) + 0.5) * stride - 0.5)[:, None].expand(rows, columns)
    ramp = torch.stack((u, v))[None, :, None]
    inner = torch.rand(20, 2) * torch.tensor([columns - 1, rows - 1]) + 0.5
    pixel = inner * stride - 0.5
    points = torch.cat((pixel + 0.5, torch.zeros(20, 1)), dim=-1).view(1, 20, 1, 1, 3)
    read = SAMPLE4D(points, [ramp], [stride])[0].view(2, 20).T
    torch.testing.assert_close(read, pixel, rtol=1e-5, atol=1e-4)


def test_levels_are_chosen_by_scale():
    values = [torch.full((1, 1, 1, 64 // s, 64 // s), float(i)) for i, s in enumerate(STRIDES)]
    points = torch.tensor([32.0, 32.0, 0.0]).repeat(1, 3, 1, 1, 1)
    points[0, :, 0, 0, 2] = torch.tensor([3.0, 4.0, 5.0])
    read = SAMPLE4D(points, values, STRIDES, tau=0.01)[0].flatten()
    torch.testing.assert_close(read, torch.tensor([0.0, 1.0, 2.0]))


def test_points_that_are_not_finite_read_zero():
    points = points_of(2, 5, 4)
    points[0, 0, 0, 0, 0] = torch.nan
    points[0, 1, 0, 0, 1] = torch.inf
    read = SAMPLE4D(points, pyramid(), STRIDES, 4)[0]
    assert torch.isfinite(read).all()
    assert not read[0, :, 0, :, 0, :2].any()


def test_gathering_nothing_keeps_the_graph():
    rows = torch.randn(4, 3, requires_grad=True)
    out = gather_rows(rows, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 2))
    assert out.shape == (0, 3)
    (out.sum() + 0 * rows.sum()).backward()
    assert not rows.grad.any()


def test_wrong_input_is_named():
    values, points = pyramid(), points_of(2, 5, 8)
    with pytest.raises(ValueError, match='3 maps and 2 strides'):
        SAMPLE4D(points, values, STRIDES[:2], 4)
    with pytest.raises(ValueError, match='3 levels but 4 strides'):
        SAMPLE4D(points, values, (4, 8, 16, 32), 4)
    with pytest.raises(ValueError, match='got 3 maps'):
        SAMPLE4D(points, values, STRIDES, 4, num_levels=4)
    with pytest.raises(ValueError, match='not groups of 3'):
        SAMPLE4D(points, values, STRIDES, 3)
    with pytest.raises(ValueError, match='5 groups do not divide 12 channels'):
        SAMPLE4D(points_of(2, 5, 5), values, STRIDES, 1)
    with pytest.raises(ValueError, match='level 1: expected maps'):
        SAMPLE4D(points, [values[0], values[1][:, :, :2], values[2]], STRIDES, 4)
    with pytest.raises(ValueError, match='maps of 2 samples with 3 frames'):
        SAMPLE4D(points_of(2, 5, 8, frames=(2,)), values, STRIDES, 4)
    with pytest.raises(ValueError, match='made for 3 groups'):
        SAMPLE4D(points, level_table(values, STRIDES, 3), n_points=4)
    with pytest.raises(ValueError, match=r'offset: expected \(B, N, O\) with O=24'):
        make_sample_points(torch.zeros(1, 2, 23), 8, torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match='xyzr: expected'):
        make_sample_points(torch.zeros(1, 2, 24), 8, torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match='weight: expected'):
        MHAQ3D(torch.rand(2, 3, 1, 4, 2), values[0], torch.rand(2, 3, 1, 2), 4)
