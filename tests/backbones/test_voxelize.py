"""Voxelisation and pooling against dictionaries, closed forms and the reference values."""

import pytest
import torch

from oneformer3d.backbones.voxelize import ORIGIN_STEP, pool_superpoints, scatter_mean, voxelize
from tests.helpers.reference_values import oneformer3d_reference


def voxelize_with_dict(points, features, voxel_size):
    """Slow twin: one dictionary entry per voxel."""
    voxels = {}
    for b, (sample, values) in enumerate(zip(points, features)):
        low = sample[:, :3].amin(0)
        for xyz, value in zip(sample[:, :3], values):
            cell = ((xyz - low) / torch.tensor(voxel_size)).floor().int().tolist()
            voxels.setdefault((b, *cell), []).append(value)
    return {cell: torch.stack(values).mean(0) for cell, values in voxels.items()}


def test_agrees_with_a_dictionary():
    points = [torch.rand(200, 6) * 3, torch.rand(150, 6) * 2 - 5]
    features = [sample[:, 3:] for sample in points]
    grid = voxelize(points, features, 0.5, min_spatial_shape=4)
    expected = voxelize_with_dict(points, features, 0.5)
    assert {tuple(row) for row in grid.coords.tolist()} == set(expected)
    for row, feature in zip(grid.coords.tolist(), grid.features):
        torch.testing.assert_close(feature, expected[tuple(row)])
    assert grid.num_points == (200, 150)
    assert grid.batch_size == 2


def test_every_point_finds_its_voxel():
    points = [torch.rand(300, 3) * 4, torch.rand(100, 3)]
    grid = voxelize(points, points, 0.25)
    coords = torch.cat([((p - p.amin(0)) / torch.tensor(0.25)).floor().int() for p in points])
    assert torch.equal(grid.coords[grid.voxel_of_point][:, 1:], coords)
    assert torch.equal(
        grid.coords[grid.voxel_of_point][:, 0], torch.tensor([0] * 300 + [1] * 100).int()
    )


def test_matches_the_reference_values():
    reference = oneformer3d_reference()
    points = list(reference['points'])
    features = [torch.cat([p[:, 3:], p[:, :3] - p[:, :3].mean(0)], 1) for p in points]
    grid = voxelize(points, features, 0.02, min_spatial_shape=128)
    assert grid.spatial_shape == tuple(reference['spatial_shape'].tolist())
    row_of = {tuple(row): i for i, row in enumerate(grid.coords.tolist())}
    rows = torch.tensor([row_of[tuple(row)] for row in reference['voxel_coords'].tolist()])
    assert len(rows.unique()) == len(grid.coords) == len(rows)
    torch.testing.assert_close(grid.features[rows], reference['voxel_feats'])
    assert torch.equal(rows[reference['inverse']], grid.voxel_of_point)


def test_spatial_shape_is_the_extent_or_the_minimum():
    points = [torch.tensor([[0.0, 0.0, 0.0], [0.95, 0.2, 3.0]])]
    assert voxelize(points, points, 0.1, min_spatial_shape=8).spatial_shape == (10, 8, 31)


def test_elastic_coordinates_are_voxels_already():
    points = [torch.rand(50, 6)]
    elastic = torch.rand(50, 3) * 10 - 3
    grid = voxelize(points, points, 0.02, elastic_coords=[elastic])
    expected = (elastic - elastic.amin(0)).floor().int()
    assert torch.equal(grid.coords[grid.voxel_of_point][:, 1:], expected)


def test_without_subtraction_voxel_borders_and_strides_stay_in_the_world():
    points = [torch.rand(300, 3) * 4 - 30, torch.rand(300, 3) * 4 + 7]
    grid = voxelize(points, points, 0.1, subtract_min=False)
    world = torch.cat([(p / torch.tensor(0.1)).floor().int() for p in points])
    shift = world - grid.coords[grid.voxel_of_point][:, 1:]
    assert torch.equal(shift % ORIGIN_STEP, torch.zeros_like(shift))
    assert len(shift[:300].unique(dim=0)) == len(shift[300:].unique(dim=0)) == 1
    assert grid.coords.min() >= 0


def test_one_point():
    point = torch.tensor([[1.0, 2.0, 3.0, 0.5]])
    grid = voxelize([point], [point], 0.02)
    assert grid.coords.tolist() == [[0, 0, 0, 0]]
    assert torch.equal(grid.features, point)
    assert grid.spatial_shape == (1, 1, 1)


def test_bad_clouds_are_refused():
    good = torch.rand(5, 6)
    with pytest.raises(ValueError, match=r'sample 1: expected points .* got \(0, 6\)'):
        voxelize([good, good[:0]], [good, good[:0]], 0.1)
    with pytest.raises(ValueError, match='not finite'):
        voxelize([good.index_fill(0, torch.tensor(2), torch.nan)], [good], 0.1)
    with pytest.raises(ValueError, match='5 points but 4 features'):
        voxelize([good], [good[:4]], 0.1)
    with pytest.raises(ValueError, match=r'elastic_coords: expected .* N=5'):
        voxelize([good], [good], 0.1, elastic_coords=[good])
    with pytest.raises(ValueError, match='too large'):
        voxelize([torch.tensor([[0.0, 0, 0], [1e6, 1e6, 1e6]])], [torch.zeros(2, 1)], 0.02)
    with pytest.raises(ValueError, match='positive voxel_size'):
        voxelize([good], [good], 0.0)
    with pytest.raises(ValueError, match='at least one sample'):
        voxelize([], [], 0.1)


def test_pooling_is_the_mean_per_superpoint_and_sample():
    features = torch.rand(30, 4, requires_grad=True)
    superpoints = [torch.arange(20) % 3, torch.arange(10) % 4]
    pooled = pool_superpoints(features, superpoints)
    for ids, values, part in zip(superpoints, features.split([20, 10]), pooled):
        expected = torch.stack([values[ids == k].mean(0) for k in range(int(ids.max()) + 1)])
        torch.testing.assert_close(part, expected)
    torch.cat(pooled).sum().backward()
    sizes = torch.cat([torch.bincount(ids)[ids] for ids in superpoints])
    torch.testing.assert_close(features.grad, (1 / sizes)[:, None].expand(-1, 4))


def test_pooling_refuses_ids_with_gaps_and_wrong_lengths():
    with pytest.raises(ValueError, match='must be dense: 1 of 3'):
        pool_superpoints(torch.rand(4, 2), [torch.tensor([0, 2, 2, 0])])
    with pytest.raises(ValueError, match='of 4 points, got 3'):
        pool_superpoints(torch.rand(4, 2), [torch.tensor([0, 1, 0])])


def test_scatter_mean_leaves_rows_without_members_zero():
    values = torch.tensor([[1.0], [3.0]])
    assert scatter_mean(values, torch.tensor([2, 2]), 4).tolist() == [[0], [0], [2], [0]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_gpu_gives_the_same_voxels():
    points = [torch.randn(5000, 6) * 3]
    on_cpu = voxelize(points, points, 0.02)
    on_gpu = voxelize([points[0].cuda()], [points[0].cuda()], 0.02)
    assert torch.equal(on_cpu.coords, on_gpu.coords.cpu())
    assert torch.equal(on_cpu.voxel_of_point, on_gpu.voxel_of_point.cpu())
    torch.testing.assert_close(on_cpu.features, on_gpu.features.cpu(), rtol=1e-6, atol=1e-6)
