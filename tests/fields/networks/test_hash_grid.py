"""The hash grid against published sizes, a slow twin, linear functions and finite differences."""

import importlib
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from oneformer3d.fields import HashGrid
from oneformer3d.fields.networks.grid_levels import grid_levels
from oneformer3d.fields.networks.hash_grid_backends import load_backend


def slow_grid(x: np.ndarray, grid: HashGrid) -> np.ndarray:
    """One point, corner by corner, in unsigned arithmetic."""
    table, values = grid.table.detach().numpy(), []
    for level in grid.levels:
        pos = np.float32(x) * np.float32(level.scale) + np.float32(0.5)
        low = np.floor(pos).astype(np.uint32)
        fraction, total = pos - np.floor(pos), np.zeros(grid.features_per_level)
        for corner in np.ndindex(2, 2, 2):
            node = [int(n) + c for n, c in zip(low, corner)]
            if level.num_nodes**3 <= level.num_rows:
                row = node[0] + node[1] * level.num_nodes + node[2] * level.num_nodes**2
            else:
                row = node[0] ^ (node[1] * 2654435761 % 2**32) ^ (node[2] * 805459861 % 2**32)
            share = np.prod([f if c else 1 - f for f, c in zip(fraction, corner)])
            total += share * table[level.first + row % level.num_rows]
        values.append(total)
    return np.concatenate(values)


def test_published_sizes() -> None:
    # tiny-cuda-nn's own test: base 32, growth 1.5, 20 levels, 2 values, 2^16 rows
    grid = HashGrid(20, 2, 16, 32, per_level_scale=1.5)
    assert grid.table.numel() == 2_555_904
    assert [level.num_rows for level in grid.levels[:2]] == [32768, 65536]
    nerfacto = grid_levels(16, 19, 16, float(np.exp(np.log(2048 / 16) / 15)))
    assert 2 * (nerfacto[-1].first + nerfacto[-1].num_rows) == 12_196_240
    features = grid_levels(12, 19, 16, float(np.exp(np.log(128 / 16) / 11)))
    assert [level.num_nodes for level in features][:11] == [
        16, 20, 24, 29, 35, 42, 50, 61, 73, 88, 106,
    ]  # fmt: skip
    assert features[11].num_nodes in (128, 129)  # the last level turns on a rounding


@pytest.mark.parametrize('features', [2, 3])
def test_values_equal_those_of_a_slow_twin(features) -> None:
    grid = HashGrid(6, features, 9, 4, 60)
    assert grid.levels[0].is_dense
    assert not grid.levels[-1].is_dense
    grid.table.data.normal_()
    points = torch.cat((torch.rand(30, 3), torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0.5]])))
    expected = np.stack([slow_grid(x, grid) for x in points.numpy()])
    torch.testing.assert_close(grid(points).detach(), torch.from_numpy(expected).float())
    assert grid(points.view(3, 11, 3)).shape == (3, 11, 6 * features)
    assert grid(points[:0]).shape == (0, 6 * features)


def test_dense_levels_reproduce_a_linear_function_and_its_slope() -> None:
    grid = HashGrid(2, 2, 14, 6, 12)
    slope = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
    for level in grid.levels:
        n = level.num_nodes
        z, y, x = torch.meshgrid(*[torch.arange(n)] * 3, indexing='ij')
        nodes = (torch.stack((x, y, z), -1).view(-1, 3) - 0.5) / level.scale
        grid.table.data[level.first : level.first + n**3] = nodes @ slope.t() + 0.1
    points = (torch.rand(100, 3) * 0.8 + 0.1).requires_grad_()
    values = grid(points)
    torch.testing.assert_close(values, (points @ slope.t() + 0.1).repeat(1, 2))
    values[:, 1].sum().backward()
    torch.testing.assert_close(points.grad, slope[1].expand(100, 3), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('features', [1, 2, 4, 20])  # columns, pairs of columns, rows
def test_gradients_are_those_of_finite_differences(features) -> None:
    grid = HashGrid(2, features, 3, 2, 9).double()
    assert [level.is_dense for level in grid.levels] == [True, False]
    grid.table.data.normal_()
    points = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)

    def read(table, x):
        return torch.func.functional_call(grid, {'table': table}, (x,))

    many = features > 4
    assert torch.autograd.gradcheck(read, (grid.table, points), eps=1e-7, atol=1e-5, fast_mode=many)


def test_positions_outside_the_cube_are_held_at_its_border() -> None:
    grid = HashGrid(2, 2, 8, 4, 8)
    outside = torch.tensor([[-1.0, 0.5, 2.0]])
    assert torch.equal(grid(outside), grid(torch.tensor([[0.0, 0.5, 1.0]])))
    nowhere = torch.tensor([[float('nan'), 0.5, float('inf')]])
    assert torch.equal(grid(nowhere), grid(outside))


def test_bad_sizes_and_missing_packages_are_named() -> None:
    with pytest.raises(ValueError, match='max_resolution or per_level_scale'):
        HashGrid(4, 2, 8, 4)
    with pytest.raises(ValueError, match='implementation'):
        HashGrid(4, 2, 8, 4, 8, implementation='cuda')
    with pytest.raises(ValueError, match='base resolution'):
        HashGrid(0, 2, 8, 4, 8)
    if 'tinycudann' not in sys.modules:
        with pytest.raises(ImportError, match='tinycudann'):
            HashGrid(4, 2, 8, 4, 8, implementation='tcnn')


class StandInEncoding(torch.nn.Module):
    """What tinycudann.Encoding promises: a grid of the config's sizes, all in flat params."""

    def __init__(self, n_input_dims, encoding_config, seed=1337, dtype=None) -> None:
        super().__init__()
        assert n_input_dims == 3
        assert dtype == torch.float32
        config = dict(encoding_config)
        assert config.pop('otype') == 'HashGrid'
        self.twin = HashGrid(
            config.pop('n_levels'),
            config.pop('n_features_per_level'),
            config.pop('log2_hashmap_size'),
            config.pop('base_resolution'),
            per_level_scale=config.pop('per_level_scale'),
        )
        assert not config
        self.twin.requires_grad_(False)
        self.params = torch.nn.Parameter(torch.zeros(self.twin.table.numel(), dtype=dtype))

    def forward(self, x):
        assert x.ndim == 2
        table = self.params.view_as(self.twin.table)
        return torch.func.functional_call(self.twin, {'table': table}, (x,))


@pytest.mark.parametrize('log2_hashmap_size', [9, 19])  # some levels hashed, none
def test_tcnn_reads_our_table_in_a_grid_of_our_sizes(monkeypatch, log2_hashmap_size) -> None:
    module = ModuleType('tinycudann')
    module.Encoding = StandInEncoding
    monkeypatch.setitem(sys.modules, 'tinycudann', module)
    grid = HashGrid(6, 2, log2_hashmap_size, 4, per_level_scale=1.6, implementation='tcnn')
    grid.table.data.normal_()
    read = load_backend('tcnn', grid.levels, 2, 1.6)
    points = torch.rand(20, 3, requires_grad=True)
    other = points.detach().clone().requires_grad_()
    upstream = torch.randn(20, 12)
    values = grid(points)  # not on a GPU: the torch path
    values.backward(upstream)
    expected, grid.table.grad = grid.table.grad, None
    found = read(other, grid.table)
    found.backward(upstream)
    torch.testing.assert_close(found, values)
    torch.testing.assert_close(grid.table.grad, expected)
    torch.testing.assert_close(other.grad, points.grad)


def test_tcnn_of_another_size_is_refused(monkeypatch) -> None:
    class Padded(StandInEncoding):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            self.params = torch.nn.Parameter(torch.zeros(self.params.numel() + 8))

    module = ModuleType('tinycudann')
    module.Encoding = Padded
    monkeypatch.setitem(sys.modules, 'tinycudann', module)
    with pytest.raises(ValueError, match='tinycudann makes a grid of 1160 values, not 1152'):
        HashGrid(2, 2, 9, 4, 8, implementation='tcnn')


def test_triton_kernels_equal_torch_under_the_interpreter(monkeypatch) -> None:
    pytest.importorskip('triton')
    monkeypatch.setenv('TRITON_INTERPRET', '1')  # read where kernels are defined
    name = 'oneformer3d.fields.networks.hash_grid_triton'
    monkeypatch.delitem(sys.modules, name, raising=False)
    triton_hash_grid = importlib.import_module(name).triton_hash_grid
    monkeypatch.delitem(sys.modules, name)
    grid = HashGrid(3, 2, 7, 4, 20)
    grid.table.data.normal_()
    points = torch.rand(130, 3, requires_grad=True)
    other = points.detach().clone().requires_grad_()
    upstream = torch.randn(130, 6)
    values = grid(points)
    values.backward(upstream)
    expected, grid.table.grad = grid.table.grad, None
    found = triton_hash_grid(other, grid.table, grid.levels)
    found.backward(upstream)
    torch.testing.assert_close(found, values)
    torch.testing.assert_close(grid.table.grad, expected)
    torch.testing.assert_close(other.grad, points.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('implementation', ['torch', 'triton', 'tcnn'])
def test_gpu_implementations_equal_the_cpu(implementation) -> None:
    if implementation != 'torch':
        pytest.importorskip('triton' if implementation == 'triton' else 'tinycudann')
    grid = HashGrid(8, 2, 12, 8, 100)
    grid.table.data.normal_()
    other = HashGrid(8, 2, 12, 8, 100, implementation=implementation).cuda()
    other.load_state_dict(grid.state_dict())
    points = torch.rand(1000, 3)
    on_gpu = points.cuda().requires_grad_()
    points.requires_grad_()
    upstream = torch.randn(1000, 16)
    values, found = grid(points), other(on_gpu)
    values.backward(upstream)
    found.backward(upstream.cuda())
    torch.testing.assert_close(found.cpu(), values, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other.table.grad.cpu(), grid.table.grad, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(on_gpu.grad.cpu(), points.grad, atol=1e-2, rtol=1e-2)
