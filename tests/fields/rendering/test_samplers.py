"""Samplers: what is drawn follows the weights, the occupancy and the proposals."""

import numpy as np
import pytest
import torch
from scipy import stats

from oneformer3d.fields import (
    HierarchicalSampler,
    OccupancyGrid,
    OccupancySampler,
    ProposalNetwork,
    ProposalSampler,
    SceneBox,
    hierarchical_sampling,
    inverse_cdf_edges,
    render_rays,
    stratified_edges,
    total_loss,
)
from oneformer3d.fields.rendering.rays import distance_to_z, image_rays
from oneformer3d.fields.rendering.samplers import inverse_cdf
from tests.helpers.analytic_fields import look_around, random_rays, room_distance, room_field


def test_even_edges_run_from_near_to_far() -> None:
    rays = random_rays(3, 0.5, 2.5)
    edges = stratified_edges(rays, 4)
    torch.testing.assert_close(edges, torch.tensor([0.5, 1, 1.5, 2, 2.5]).expand(3, 5))


def test_stratified_edges_are_jittered_ray_by_ray_and_evenly() -> None:
    rays = random_rays(4000, 1.0, 5.0)
    edges = stratified_edges(rays, 4, perturb=True)
    assert (edges.diff(dim=-1) > 0).all()
    assert torch.equal(edges[:, 0], rays.near)
    assert torch.equal(edges[:, -1], rays.far)
    for k in (1, 2, 3):  # uniform between the middles beside
        result = stats.kstest(edges[:, k].numpy() - (k + 0.5), 'uniform')
        assert result.pvalue > 1e-3
    assert abs(np.corrcoef(edges[:, 1], edges[:, 2])[0, 1]) < 0.06


def test_inverse_cdf_draws_follow_the_weights() -> None:
    edges = torch.tensor([0.0, 0.5, 2.0, 2.2, 4.0])
    weights = torch.tensor([0.1, 0.0, 0.6, 0.3])
    num_rays = 4000
    drawn = inverse_cdf(
        edges.expand(num_rays, -1), weights.expand(num_rays, -1), 1, perturb=True, padding=0
    )
    cdf = np.concatenate([[0], weights.cumsum(0)])
    result = stats.kstest(drawn[:, 0].numpy(), lambda t: np.interp(t, edges, cdf))
    assert result.pvalue > 1e-3
    assert ((drawn < 0.5) | (drawn > 2.0)).all()  # nothing where the weight is 0
    # many draws of one ray are spread over equal shares of the probability
    many = inverse_cdf(edges[None], weights[None], 2000, perturb=True, padding=0)
    assert stats.kstest(many[0].numpy(), lambda t: np.interp(t, edges, cdf)).pvalue > 1e-3


def test_inverse_cdf_edges_ascend_within_the_ray_and_carry_no_gradient() -> None:
    rays = random_rays(50)
    edges = stratified_edges(rays, 16, perturb=True)
    weights = torch.rand(50, 16).requires_grad_()
    for perturb in (False, True):
        new = inverse_cdf_edges(edges, weights, 24, perturb)
        assert new.shape == (50, 25)
        assert not new.requires_grad
        assert (new.diff(dim=-1) >= 0).all()
        assert (new[:, 0] >= edges[:, 0]).all()
        assert (new[:, -1] <= edges[:, -1]).all()
    nothing = inverse_cdf_edges(edges, torch.zeros(50, 16), 4, padding=0)
    assert torch.isfinite(nothing).all()
    with pytest.raises(ValueError, match='edges: expected'):
        inverse_cdf_edges(edges, weights[:, 1:], 4)


def test_same_seed_same_samples() -> None:
    rays = random_rays(5)
    first, again, other = (
        stratified_edges(rays, 8, True, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_hierarchical_points_lie_on_their_rays_where_the_weight_is() -> None:
    rays = random_rays(40)
    distances = torch.linspace(1, 5, 9).expand(40, 9)
    weights = torch.zeros(40, 9)
    weights[:, 4] = 1.0
    points, fine_weights = hierarchical_sampling(rays.positions(distances), weights, 32)
    assert points.shape == (40, 32, 3)
    along = ((points - rays.origins[:, None]) * rays.directions[:, None]).sum(-1)
    torch.testing.assert_close(rays.positions(along), points, atol=1e-5, rtol=1e-5)
    assert ((along > 2.74) & (along < 3.26)).float().mean() > 0.99
    assert (fine_weights == 1).float().mean() > 0.99
    with pytest.raises(ValueError, match='S >= 2'):
        hierarchical_sampling(points[:, :1], weights[:, :1], 4)


def test_hierarchical_sampler_finds_the_wall() -> None:
    rays = random_rays(100)
    edges, proposals = HierarchicalSampler(32, 32)(room_field(), rays)
    assert edges.shape == (100, 65)
    assert proposals == []
    behind = edges - room_distance(rays)[:, None]
    near_wall = (behind > -1.5 * 6 / 32) & (behind < 2.5 * 6 / 32)
    assert (near_wall.sum(-1) >= 32).all()


def test_occupancy_of_points_leads_samples_to_them() -> None:
    box = SceneBox(torch.diag(torch.tensor([1 / 3, 1 / 3, 1 / 3, 1])), torch.ones(3))
    rays = random_rays(60)
    surface = rays.positions(room_distance(rays)[:, None])[:, 0]
    grid = OccupancyGrid.from_points(surface, box, resolution=64, margin=0.1)
    assert grid(box.to_unit(surface)).all()
    assert not grid(torch.tensor([[0.0, 0, 0], [2.0, 0, 0], [float('nan'), 0, 0]])).any()
    assert 0 < grid.share < 0.1
    edges, _ = OccupancySampler(grid, 128, 32)(room_field(box), rays)
    near_wall = (edges - room_distance(rays)[:, None]).abs() < 0.4
    assert near_wall.float().mean() > 0.5  # evenly spread, it would be 0.8 of 5.9 metres


def test_occupancy_of_depth_keeps_what_was_not_seen_through() -> None:
    camera = look_around(3, (24, 32))
    box = SceneBox(torch.diag(torch.tensor([1 / 3, 1 / 3, 1 / 3, 1])), torch.ones(3))
    depth = torch.stack([
        distance_to_z(room_distance(rays), rays).view(24, 32)
        for rays in (image_rays(camera[view]) for view in range(3))
    ])  # fmt: skip
    grid = OccupancyGrid.from_depth(camera, depth, box, resolution=48, margin=0.05)
    for view in range(3):
        walls = camera[view].unproject(depth[view]).view(-1, 3)
        assert grid(box.to_unit(walls)).all()
        middle = (walls + camera.world_from_cam[view, :3, 3]) / 2
        # but for cells at the edge of what a view sees
        assert grid(box.to_unit(middle)).float().mean() < 0.15
    assert grid(box.to_unit(torch.tensor([[0.0, 0, 2.5]]))).all()  # behind the ceiling


def test_proposals_learn_where_the_room_ends() -> None:
    box = SceneBox(torch.diag(torch.tensor([1 / 3, 1 / 3, 1 / 3, 1])), torch.ones(3))
    field = room_field(box)
    networks = [ProposalNetwork(32, num_levels=3, log2_hashmap_size=12)]
    sampler = ProposalSampler(networks, (64,), 32, anneal_steps=20)
    optimiser = torch.optim.Adam(sampler.parameters(), lr=2e-2)
    losses = []
    for _ in range(80):
        outputs = render_rays(field, random_rays(64), sampler, heads=(), perturb=True)
        loss, _ = total_loss(outputs.as_dict(), {}, {'interlevel': 1.0})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        sampler.step()
        losses.append(float(loss.detach()))
    assert sampler.anneal == 1.0
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    rays = random_rays(100)
    outputs = render_rays(field, rays, sampler, heads=(), perturb=False)
    even = render_rays(field, rays, HierarchicalSampler(32, 0), heads=(), perturb=False)
    error, even_error = (
        (out.distance - room_distance(rays)).abs().mean() for out in (outputs, even)
    )
    assert error < 0.5 * even_error


def test_proposal_sampler_refuses_rounds_without_networks() -> None:
    with pytest.raises(ValueError, match='networks for rounds'):
        ProposalSampler([ProposalNetwork()], (64, 32))
