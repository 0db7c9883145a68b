"""Sparse convolutions against dense ones on the occupied voxels."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneformer3d.backbones import rulebook as rulebook_module
from oneformer3d.backbones import sparse_conv as sparse_conv_module
from oneformer3d.backbones.sparse_conv import (
    BatchNorm1d,
    SparseConv3d,
    SparseInverseConv3d,
    SparseSequential,
    SubMConv3d,
    concatenate,
)
from oneformer3d.backbones.sparse_tensor import SparseTensor
from tests.helpers.dense_twin import (
    assert_equal,
    dense_of,
    dense_weight,
    gradients,
    random_tensor,
    rows_of,
)


@pytest.mark.parametrize('num_voxels', [0, 1, 2, 60, 700])
@pytest.mark.parametrize(
    ('kernel_size', 'dilation'), [(3, 1), (5, 1), (3, 2), ((1, 3, 5), (1, 2, 1))]
)
def test_submanifold_equals_dense(num_voxels, kernel_size, dilation):
    tensor = random_tensor(num_voxels, 5)
    layer = SubMConv3d(5, 4, kernel_size, dilation, bias=True)
    out = layer(tensor)
    padding = [k // 2 * d for k, d in zip(layer.kernel_size, layer.dilation)]
    dense = F.conv3d(
        dense_of(tensor),
        dense_weight(layer.weight),
        layer.bias,
        padding=padding,
        dilation=layer.dilation,
    )
    expected = rows_of(dense, tensor.coords)
    assert out.coords is tensor.coords
    assert_equal(out.features, expected)
    inputs = (tensor.features, layer.weight, layer.bias)
    for got, want in zip(gradients(out.features, *inputs), gradients(expected, *inputs)):
        assert_equal(got, want)


@pytest.mark.parametrize('num_voxels', [0, 1, 2, 60, 700])
@pytest.mark.parametrize(
    'geometry',
    [(2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 0, 1), (2, 3, 1, 2), ((1, 2, 3), (1, 2, 1), (0, 0, 1), 1)],
)
def test_strided_equals_dense(num_voxels, geometry):
    tensor = random_tensor(num_voxels, 5)
    layer = SparseConv3d(5, 4, *geometry)
    out = layer(tensor)
    settings = {'stride': layer.stride, 'padding': layer.padding, 'dilation': layer.dilation}
    dense = F.conv3d(dense_of(tensor), dense_weight(layer.weight), **settings)
    occupied = dense_of(tensor.with_features(torch.ones(num_voxels, 1)))
    seen = F.conv3d(occupied, torch.ones(1, 1, *layer.kernel_size), **settings)[:, 0] > 0.5
    assert out.spatial_shape == tuple(dense.shape[2:])
    assert {tuple(c) for c in out.coords.tolist()} == {tuple(c) for c in seen.nonzero().tolist()}
    assert len(out.coords) == int(seen.sum())
    expected = rows_of(dense, out.coords)
    assert_equal(out.features, expected)
    inputs = (tensor.features, layer.weight)
    for got, want in zip(gradients(out.features, *inputs), gradients(expected, *inputs)):
        assert_equal(got, want)


@pytest.mark.parametrize('num_voxels', [0, 1, 2, 60, 700])
@pytest.mark.parametrize('geometry', [(2, 2, 0), (3, 2, 1), (3, 1, 0)])
def test_inverse_equals_dense_transposed(num_voxels, geometry):
    tensor = random_tensor(num_voxels, 5)
    kernel_size, stride, padding = geometry
    down = SparseConv3d(5, 4, kernel_size, stride, padding, indice_key='down')
    up = SparseInverseConv3d(4, 3, kernel_size, 'down', bias=True)
    middle = down(tensor)
    out = up(middle)
    weight = up.weight.permute(4, 0, 1, 2, 3)
    # Extents that the stride does not divide lose cells on the way down.
    lost = [(s + 2 * padding - kernel_size) % stride for s in tensor.spatial_shape]
    grid = F.conv_transpose3d(
        dense_of(middle), weight, stride=stride, padding=padding, output_padding=lost
    )
    expected = rows_of(grid, tensor.coords) + up.bias
    assert out.coords is tensor.coords
    assert out.spatial_shape == tensor.spatial_shape
    assert_equal(out.features, expected)
    inputs = (tensor.features, down.weight, up.weight)
    for got, want in zip(gradients(out.features, *inputs), gradients(expected, *inputs)):
        assert_equal(got, want)


@pytest.mark.parametrize('kind', ['submanifold', 'strided', 'inverse'])
def test_gradients_in_float64(kind):
    tensor = random_tensor(12, 2, (4, 3, 5), dtype=torch.float64)
    down = SparseConv3d(2, 3, indice_key='down').double()
    layers = {
        'submanifold': SubMConv3d(2, 3).double(),
        'strided': down,
        'inverse': SparseInverseConv3d(3, 2, 2, 'down').double(),
    }
    layer = layers[kind]
    entering = down(tensor) if kind == 'inverse' else tensor
    features = entering.features.detach().requires_grad_()

    def convolve(features, weight):
        call = torch.func.functional_call
        return call(layer, {'weight': weight}, (entering.with_features(features),)).features

    assert torch.autograd.gradcheck(convolve, (features, layer.weight))


@pytest.mark.parametrize('layer_type', [SubMConv3d, SparseConv3d])
def test_pointwise_kernel_is_reinterpreted_not_transposed(layer_type):
    tensor = random_tensor(20, 3)
    settings = {'stride': 1} if layer_type is SparseConv3d else {}
    layer = layer_type(3, 2, 1, **settings)
    expected = tensor.features @ layer.weight.detach().flatten().view(3, 2)
    assert torch.equal(layer(tensor).features, expected)
    transposed = tensor.features @ layer.weight.view(2, 3).T
    assert not torch.allclose(expected, transposed, atol=1e-2)


def test_sizes_of_blocks_and_groups_change_nothing(monkeypatch):
    tensor, layer = random_tensor(500, 4), SubMConv3d(4, 6)
    expected = layer(tensor).features
    wanted = gradients(expected, tensor.features, layer.weight)
    for name, value in {'BLOCK_ROWS': 96, 'GROUP_SIZE': 4}.items():
        monkeypatch.setattr(rulebook_module, name, value)
    fresh = SparseTensor(tensor.features, tensor.coords, tensor.spatial_shape, 2)
    got = layer(fresh).features
    assert_equal(got, expected)
    for a, b in zip(gradients(got, tensor.features, layer.weight), wanted):
        assert_equal(a, b)


def test_order_of_voxels_does_not_matter():
    tensor = random_tensor(300, 4)
    down, up = SparseConv3d(4, 6, indice_key='d'), SparseInverseConv3d(6, 4, 2, 'd')
    net = SparseSequential(SubMConv3d(4, 4), down, up)
    order = torch.randperm(300)
    shuffled = SparseTensor(tensor.features[order], tensor.coords[order], tensor.spatial_shape, 2)
    assert_equal(net(shuffled).features, net(tensor).features[order])


def test_samples_of_a_batch_do_not_mix():
    layer = SubMConv3d(4, 4, 5)
    tensor = random_tensor(400, 4, (6, 6, 6), batch_size=3)
    for i in range(3):
        of_sample = tensor.coords[:, 0] == i
        coords = tensor.coords[of_sample].clone()
        coords[:, 0] = 0
        alone = SparseTensor(tensor.features[of_sample], coords, tensor.spatial_shape, 1)
        got = layer(tensor).features[of_sample]
        assert_equal(got, layer(alone).features)


def test_runs_are_bitwise_equal():
    def once():
        tensor = random_tensor(600, 8, (20, 20, 9))
        out = layer(tensor).features
        return out, *gradients(out, tensor.features, layer.weight)

    layer = SubMConv3d(8, 8)
    assert all(torch.equal(a, b) for a, b in zip(once(), once()))


@pytest.mark.parametrize('kernel_size', [1, 3])
def test_autocast_keeps_full_precision_on_a_cpu_without_bfloat16(monkeypatch, kernel_size):
    monkeypatch.setattr(sparse_conv_module, 'has_bfloat16_instructions', lambda: False)
    tensor, layer = random_tensor(400, 16), SubMConv3d(16, 16, kernel_size)
    halved = tensor.with_features(tensor.features.bfloat16())
    expected = layer(halved.with_features(halved.features.float())).features
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = layer(halved).features
    assert torch.equal(out, expected)
    grads = gradients(out, tensor.features, layer.weight)
    assert {grad.dtype for grad in grads} == {torch.float32}


def autocast_convolutions() -> list[tuple[SparseTensor, nn.Module, Tensor]]:
    """Tensor, layer and weight of each kind of convolution."""
    made = []
    for channels in (16, 40):
        tensor, layer = random_tensor(700, channels), SubMConv3d(channels, 24, bias=True)
        made.append((tensor, layer, layer.weight))
    tensor, down = random_tensor(700, 16), SparseConv3d(16, 24, indice_key='down')
    up = SparseInverseConv3d(24, 16, 2, 'down')
    made.append((tensor, SparseSequential(down, up), up.weight))
    return made


def test_autocast_multiplies_in_bfloat16_and_adds_in_float32(monkeypatch):
    """At most the rounding of both factors and of a product: 3 · 2⁻⁹ of the absolute terms."""
    monkeypatch.setattr(sparse_conv_module, 'has_bfloat16_instructions', lambda: True)
    for tensor, layer, weight in autocast_convolutions()[:2]:
        exact = layer(tensor).features
        with torch.autocast('cpu', dtype=torch.bfloat16):
            out = layer(tensor).features
        assert out.dtype == torch.float32
        assert not torch.equal(out, exact)

        absolute = SubMConv3d(weight.shape[-1], len(weight), bias=True)
        absolute.weight.data, absolute.bias.data = weight.detach().abs(), layer.bias.detach().abs()
        terms = absolute(tensor.with_features(tensor.features.detach().abs())).features
        assert ((out - exact).abs() <= 3 * 2**-9 * terms).all()


def test_gradients_under_autocast(monkeypatch):
    monkeypatch.setattr(sparse_conv_module, 'has_bfloat16_instructions', lambda: True)
    for tensor, layer, weight in autocast_convolutions():
        exact = layer(tensor).features
        wanted = gradients(exact, tensor.features, weight)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            out = layer(tensor).features
        for got, want in zip(gradients(out, tensor.features, weight), wanted):
            assert got.dtype == torch.float32
            assert 0 < (got - want).norm() < 0.01 * want.norm()


def test_half_precision_features_and_weights():
    tensor, layer = random_tensor(400, 16), SubMConv3d(16, 16)
    expected = layer(tensor).features
    wanted = gradients(expected, tensor.features, layer.weight)
    halved = tensor.with_features(tensor.features.bfloat16())
    out = layer.bfloat16()(halved).features
    assert out.dtype == torch.bfloat16
    for got, want in zip(
        (out, *gradients(out, tensor.features, layer.weight)), (expected, *wanted)
    ):
        assert (got.float() - want).norm() < 0.01 * want.norm()


def test_frozen_inputs_get_no_gradient():
    layer = SubMConv3d(4, 4)
    tensor = random_tensor(50, 4)
    tensor = tensor.with_features(tensor.features.detach())
    layer(tensor).features.sum().backward()
    assert layer.weight.grad.abs().sum() > 0
    layer = layer.requires_grad_(False)
    tensor.features.requires_grad_()
    layer(tensor).features.sum().backward()
    assert tensor.features.grad.abs().sum() > 0
    assert layer.weight.grad is not None


def test_rulebooks_are_built_once_per_level(monkeypatch):
    built = []
    original = rulebook_module.Rulebook.__init__

    def counting(self, *args, **kwargs):
        built.append(self)
        original(self, *args, **kwargs)

    monkeypatch.setattr(rulebook_module.Rulebook, '__init__', counting)
    net = SparseSequential(
        SubMConv3d(4, 4),
        nn.ReLU(),
        SubMConv3d(4, 4),
        SparseConv3d(4, 4, indice_key='down'),
        SubMConv3d(4, 4),
        SubMConv3d(4, 4),
        SparseInverseConv3d(4, 4, 2, 'down'),
        SubMConv3d(4, 4),
    )
    tensor = random_tensor(100, 4)
    net(tensor)
    assert len(built) == 3
    net(tensor)
    assert len(built) == 3
    net(random_tensor(100, 4))
    assert len(built) == 6


def test_sequential_state_dict_has_spconv_names():
    net = SparseSequential(BatchNorm1d(3), nn.ReLU(), SubMConv3d(3, 4), SubMConv3d(4, 5, bias=True))
    state = net.state_dict()
    assert state['2.weight'].shape == (4, 3, 3, 3, 3)
    assert '2.bias' not in state
    assert state['3.bias'].shape == (5,)


def test_batch_norm_of_one_row():
    norm = BatchNorm1d(3)
    norm(torch.randn(10, 3))
    statistics = norm.running_mean.clone()
    row = torch.randn(1, 3, requires_grad=True)
    out = norm(row)
    out.sum().backward()
    torch.testing.assert_close(out, (row - norm.running_mean) / (norm.running_var + 1e-5).sqrt())
    assert torch.equal(norm.running_mean, statistics)
    assert norm(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ('coords', 'fault'),
    [
        ([[0, 0, 0, 9]], 'within the grid'),
        ([[0, -1, 0, 0]], 'within the grid'),
        ([[0, 1, 1, 1], [0, 1, 1, 1]], 'twice'),
    ],
)
def test_bad_coordinates_are_refused(coords, fault):
    coords = torch.tensor(coords)
    tensor = SparseTensor(torch.ones(len(coords), 2), coords, (4, 4, 4), 2)
    for layer in (SubMConv3d(2, 2), SparseConv3d(2, 2)):
        with pytest.raises(ValueError, match=fault):
            layer(tensor)


def test_wrong_use_is_refused():
    tensor = random_tensor(10, 3)
    with pytest.raises(ValueError, match='expected 4 channels, got 3'):
        SubMConv3d(4, 4)(tensor)
    with pytest.raises(ValueError, match='odd kernel'):
        SubMConv3d(4, 4, 2)
    with pytest.raises(ValueError, match="no convolution with indice_key 'd'"):
        SparseInverseConv3d(3, 3, 2, 'd')(tensor)
    out = SparseConv3d(3, 3, indice_key='d')(tensor)
    with pytest.raises(ValueError, match='names another'):
        SparseConv3d(3, 3, indice_key='d')(out)
    with pytest.raises(ValueError, match='other voxels'):
        SparseInverseConv3d(3, 3, 2, 'd')(tensor)
    with pytest.raises(ValueError, match='kernel: expected'):
        SparseInverseConv3d(3, 3, 3, 'd')(out)
    with pytest.raises(ValueError, match='same voxels'):
        concatenate(tensor, out)
    with pytest.raises(ValueError, match=r'expected .* N=10, got'):
        tensor.with_features(torch.ones(9, 3))
    with pytest.raises(ValueError, match='integers'):
        SparseTensor(torch.ones(2, 3), torch.ones(2, 4), (4, 4, 4), 1)
    with pytest.raises(ValueError, match='backend'):
        SparseTensor(torch.ones(2, 3), torch.ones(2, 4).int(), (4, 4, 4), 1, backend='cuda')
