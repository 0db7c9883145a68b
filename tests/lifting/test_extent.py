"""The box of a scan is its minimum and maximum, and stays so with stray points."""

import torch

from oneformer3d.lifting.extent import bulk_extent


def room(num_points: int) -> torch.Tensor:
    """Points on the six sides of a box of 5 × 4 × 2.5 m, a little noisy."""
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(num_points, 3, generator=generator)
    side = torch.randint(0, 3, (num_points,), generator=generator)
    rows = torch.arange(num_points)
    unit[rows, side] = unit[rows, side].round()
    noise = 0.005 * torch.randn(num_points, 3, generator=generator)
    return unit * torch.tensor([5.0, 4.0, 2.5]) + noise


def test_clean_scans_have_their_very_extremes():
    for num_points in (1, 2, 150, 5000, 40_000):
        points = room(num_points)
        low, high = bulk_extent(points)
        assert torch.equal(low, points.amin(0))
        assert torch.equal(high, points.amax(0))


def test_stray_points_leave_the_box_as_it_is():
    points = room(20_000)
    stray = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)).sign() * 30
    low, high = bulk_extent(torch.cat([points, stray]))
    assert torch.equal(low, points.amin(0))
    assert torch.equal(high, points.amax(0))
