"""Sparse tensors as dense grids, where torch's own convolutions tell what is right."""

import torch
from torch import Tensor

from oneformer3d.backbones.sparse_tensor import SparseTensor


def random_tensor(
    num_voxels: int,
    num_channels: int,
    shape: tuple[int, int, int] = (7, 6, 9),
    batch_size: int = 2,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> SparseTensor:
    """Voxels at random, in no order, with features that need a gradient."""
    generator = torch.Generator().manual_seed(seed)
    extents = torch.tensor([batch_size, *shape])
    cells = torch.randperm(int(extents.prod()), generator=generator)[:num_voxels]
    coords = torch.stack(torch.unravel_index(cells, tuple(extents.tolist())), dim=1).int()
    features = torch.randn(num_voxels, num_channels, generator=generator, dtype=torch.float64)
    return SparseTensor(features.to(dtype).requires_grad_(), coords, shape, batch_size)


def dense_of(tensor: SparseTensor) -> Tensor:
    """(B, C, X, Y, Z), zero where no voxel is; differentiable."""
    batch, x, y, z = tensor.coords.long().unbind(1)
    grid = tensor.features.new_zeros(
        tensor.batch_size, *tensor.spatial_shape, tensor.features.shape[1]
    )
    grid = grid.index_put((batch, x, y, z), tensor.features)
    return grid.movedim(-1, 1)


def rows_of(grid: Tensor, coords: Tensor) -> Tensor:
    """(N, C) features of a dense grid at voxels."""
    batch, x, y, z = coords.long().unbind(1)
    return grid.movedim(1, -1)[batch, x, y, z]


def dense_weight(weight: Tensor) -> Tensor:
    """(out, kD, kH, kW, in) as torch's (out, in, kD, kH, kW)."""
    return weight.movedim(-1, 1)


def gradients(out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of a sum with fixed random weights."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    return torch.autograd.grad(out, inputs, weights, retain_graph=True, allow_unused=True)


def assert_equal(got: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """No difference beyond ``tolerance`` of the largest value."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    if expected.numel():
        error = (got - expected).abs().max()
        assert error <= tolerance * expected.abs().max(), f'differs by {error:.1e}'
