"""Spacing of samples along rays, against its closed forms."""

import pytest
import torch

from oneformer3d.fields import HierarchicalSampler, UniformSampler, contract, stratified_edges
from oneformer3d.fields.rendering.rays import Rays
from oneformer3d.fields.rendering.samplers import GuidedSampler
from oneformer3d.fields.rendering.spacing import distances_at
from tests.helpers.analytic_fields import random_rays, room_field

SHARES = torch.linspace(0, 1, 9)


def test_beyond_the_radius_samples_are_even_in_reciprocal_distance() -> None:
    rays = random_rays(3, 1.0, 50.0)
    distances = distances_at(rays, SHARES, radius=torch.tensor(0.5))
    expected = 1 / torch.linspace(1, 1 / 50, 9)
    torch.testing.assert_close(distances, expected.expand(3, -1), rtol=1e-5, atol=1e-5)


def test_within_the_radius_samples_are_even_in_metres() -> None:
    rays = random_rays(3, 0.2, 3.0)
    inside = distances_at(rays, SHARES, radius=torch.tensor(3.0))
    torch.testing.assert_close(inside, distances_at(rays, SHARES))
    torch.testing.assert_close(inside[0], torch.linspace(0.2, 3.0, 9))


@pytest.mark.parametrize(('near', 'far'), [(0.0, 40.0), (0.05, 1e4), (2.5, 9.0), (0.1, 0.7)])
def test_samples_are_even_in_contracted_space(near, far) -> None:
    # on an axis from the middle of the box, contract's own bend is the spacing
    ends = torch.tensor([near]), torch.tensor([far])
    rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0, 1]]), *ends, torch.ones(1))
    distances = distances_at(rays, SHARES, radius=torch.tensor(2.0))
    assert float(distances[0, 0]) == ends[0]
    assert distances[0, -1] == ends[1]
    steps = contract(rays.positions(distances) / 2)[0, :, 2].diff()
    torch.testing.assert_close(steps, steps.mean().expand(8), rtol=1e-3, atol=1e-5)


def test_samplers_follow_the_field() -> None:
    field, rays = room_field(), random_rays(4, 0.1, 40.0)
    even = stratified_edges(rays, 8)
    torch.testing.assert_close(UniformSampler(8)(field, rays)[0], even)

    field.contracted = True
    bent = stratified_edges(rays, 8, radius=1 / field.scene_box.scale)
    base = UniformSampler(8)
    torch.testing.assert_close(base(field, rays)[0], bent)
    assert (bent[:, 1:-1] < even[:, 1:-1]).all()  # more of them are near

    # a second round keeps the first one's edges; rays without depth are divided alike
    unknown = GuidedSampler(base, torch.zeros(4), 4)(field, rays)[0]
    fine = distances_at(rays, (torch.arange(4) + 0.5) / 4, 1 / field.scene_box.scale)
    torch.testing.assert_close(unknown, torch.cat((bent, fine), -1).sort(-1).values)
    refined = HierarchicalSampler(8, 4)(field, rays)[0]
    assert torch.isclose(refined[:, :, None], bent[:, None], atol=1e-5).any(1).all()
