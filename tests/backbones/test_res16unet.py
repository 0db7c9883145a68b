"""Res16UNet34C: published names, and MinkowskiEngine's kernels against a slow dense twin."""

import itertools

import pytest
import torch
from torch import Tensor

from oneformer3d.backbones.res16unet import (
    Convolution,
    DownConvolution,
    Res16UNet34C,
    UpConvolution,
    weight_from_minkowski_kernel,
)
from oneformer3d.backbones.sparse_conv import SubMConv3d
from oneformer3d.backbones.sparse_tensor import SparseTensor
from oneformer3d.registry import MODELS
from tests.helpers.dense_twin import assert_equal, gradients, random_tensor
from tests.helpers.reference_values import published_parameters

SETTINGS = {
    'type': 'Res16UNet34C',
    'in_channels': 3,
    'out_channels': 96,
    'config': {'dilations': [1, 1, 1, 1], 'conv1_kernel_size': 5, 'bn_momentum': 0.02},
}


def minkowski_offsets(kernel_size: int, dilation: int = 1) -> list[tuple[int, int, int]]:
    """Offsets in MinkowskiEngine's order: a counter whose first digit is x."""
    first = -(kernel_size // 2) if kernel_size % 2 else 0
    steps = [dilation * (first + i) for i in range(kernel_size)]
    return [(x, y, z) for z, y, x in itertools.product(steps, steps, steps)]


def rows_by_voxel(tensor: SparseTensor) -> dict[tuple[int, ...], Tensor]:
    return {tuple(c): row for c, row in zip(tensor.coords.tolist(), tensor.features)}


@pytest.mark.parametrize(('kernel_size', 'dilation'), [(3, 1), (5, 1), (3, 2)])
def test_convolution_by_the_definition(kernel_size, dilation):
    tensor = random_tensor(80, 3, (5, 6, 7))
    layer = Convolution(3, 4, kernel_size, dilation)
    rows = rows_by_voxel(tensor)
    expected = []
    for b, x, y, z in tensor.coords.tolist():
        total = torch.zeros(4)
        for matrix, (i, j, k) in zip(layer.kernel, minkowski_offsets(kernel_size, dilation)):
            neighbour = rows.get((b, x + i, y + j, z + k))
            total = total if neighbour is None else total + neighbour @ matrix
        expected.append(total)
    expected = torch.stack(expected)
    out = layer(tensor).features
    assert_equal(out, expected)
    for got, want in zip(
        gradients(out, tensor.features, layer.kernel),
        gradients(expected, tensor.features, layer.kernel),
    ):
        assert_equal(got, want)


def test_strided_and_transposed_convolution_by_the_definition():
    tensor = random_tensor(80, 3, (6, 8, 4))
    down, up = DownConvolution(3, 4, 'd'), UpConvolution(4, 5, 'd')
    rows, offsets = rows_by_voxel(tensor), minkowski_offsets(2)
    coarse = down(tensor)
    assert len(coarse.coords) == len({(b, x // 2, y // 2, z // 2) for b, x, y, z in rows})
    for (b, x, y, z), got in rows_by_voxel(coarse).items():
        total = torch.zeros(4)
        for matrix, (i, j, k) in zip(down.kernel, offsets):
            child = rows.get((b, 2 * x + i, 2 * y + j, 2 * z + k))
            total = total if child is None else total + child @ matrix
        assert_equal(got, total)
    parents = rows_by_voxel(coarse)
    fine = up(coarse)
    assert torch.equal(fine.coords, tensor.coords)
    for (b, x, y, z), got in rows_by_voxel(fine).items():
        offset = offsets.index((x % 2, y % 2, z % 2))
        assert_equal(got, parents[b, x // 2, y // 2, z // 2] @ up.kernel[offset])


def test_pointwise_kernel_is_a_plain_matrix():
    tensor = random_tensor(20, 3)
    layer = Convolution(3, 4, 1, bias=True)
    torch.nn.init.normal_(layer.bias)
    assert layer.kernel.shape == (3, 4)
    assert_equal(layer(tensor).features, tensor.features @ layer.kernel + layer.bias)


def test_converted_kernel_in_an_spconv_layer():
    tensor = random_tensor(80, 3, (5, 6, 7))
    ours, converted = Convolution(3, 4, 3), SubMConv3d(3, 4)
    converted.weight.data = weight_from_minkowski_kernel(ours.kernel.detach())
    assert_equal(converted(tensor).features, ours(tensor).features)
    with pytest.raises(ValueError, match='k³'):
        weight_from_minkowski_kernel(torch.zeros(9, 3, 4))


def test_published_names_load_strictly():
    listed = published_parameters('scannet200')['live_shapes']
    with torch.device('meta'):
        net = MODELS.build(SETTINGS)
        values = {
            name.removeprefix('backbone.'): torch.empty(shape)
            for name, shape in listed.items()
            if name.startswith('backbone.')
        }
    assert len(values) > 300
    net.load_state_dict(values, strict=True, assign=True)


@pytest.fixture(scope='module')
def net() -> Res16UNet34C:
    torch.manual_seed(0)
    # In training mode the normalisations keep the features of all layers in range.
    return MODELS.build(SETTINGS).train()


def test_forward_and_backward(net):
    tensor = random_tensor(200, 3, (19, 17, 18))
    out = net(tensor)
    assert out.features.shape == (200, 96)
    assert out.coords is tensor.coords
    assert out.spatial_shape == tensor.spatial_shape
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    # The published checkpoints have a last layer that no forward pass uses.
    assert {n for n, p in net.named_parameters() if not p.requires_grad} == {
        'final.kernel',
        'final.bias',
    }
    for name, grad in zip(trained, gradients(out.features, *trained.values())):
        assert grad is not None, name
        assert torch.isfinite(grad).all(), name


def test_extent_of_the_grid_does_not_matter(net):
    tensor = random_tensor(100, 3, (19, 17, 18))
    wider = SparseTensor(tensor.features, tensor.coords, (64, 50, 33), 2)
    with torch.no_grad():
        assert_equal(net(wider).features, net(tensor).features, 1e-4)


def test_shifts_by_the_total_stride_do_not_matter(net):
    tensor = random_tensor(100, 3, (19, 17, 18))
    shifts = torch.tensor([[0, 16, 0, 32], [0, 1, 0, 0]])
    with torch.no_grad():
        expected = net(tensor).features
        same, other = (
            net(SparseTensor(tensor.features, tensor.coords + shift, (48, 48, 64), 2)).features
            for shift in shifts.int()
        )
    assert_equal(same, expected, 1e-4)
    assert not torch.allclose(other, expected, atol=1e-1)


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"unknown keys in config: \['dilation'\]"):
        Res16UNet34C(3, 96, {'dilation': 1})
    with pytest.raises(ValueError, match='dilations: expected 4'):
        Res16UNet34C(3, 96, {'dilations': [1]})
