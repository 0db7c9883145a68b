"""Both backends against each other, and our parameters in spconv's own modules.

On the CPU spconv is right with one thread only, and its backward pass asks for a CUDA stream.
"""

import sys

import pytest
import torch

from oneformer3d.backbones import spconv_backend
from oneformer3d.backbones.sparse_conv import (
    SparseConv3d,
    SparseInverseConv3d,
    SparseSequential,
    SubMConv3d,
)
from oneformer3d.backbones.sparse_tensor import SparseTensor
from oneformer3d.backbones.spconv_unet import SpConvUNet
from tests.helpers.dense_twin import assert_equal, gradients, random_tensor


@pytest.fixture
def spconv(monkeypatch):
    module = pytest.importorskip('spconv.pytorch')
    if not torch.cuda.is_available():
        monkeypatch.setattr(module.ops, 'get_current_stream', lambda: 0)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield module
    torch.set_num_threads(num_threads)


def on_backend(tensor: SparseTensor, backend: str) -> SparseTensor:
    return SparseTensor(
        tensor.features, tensor.coords, tensor.spatial_shape, tensor.batch_size, backend
    )


def test_parameters_mean_the_same_in_spconv(spconv):
    ours = SparseSequential(
        SubMConv3d(6, 8),
        SparseConv3d(8, 10, indice_key='down'),
        SubMConv3d(10, 12, 1),
        SparseInverseConv3d(12, 4, 2, 'down'),
        SubMConv3d(4, 4, 3, dilation=2, bias=True),
    )
    theirs = spconv.SparseSequential(
        spconv.SubMConv3d(6, 8, 3, bias=False),
        spconv.SparseConv3d(8, 10, 2, stride=2, bias=False, indice_key='down'),
        spconv.SubMConv3d(10, 12, 1, bias=False),
        spconv.SparseInverseConv3d(12, 4, 2, bias=False, indice_key='down'),
        spconv.SubMConv3d(4, 4, 3, dilation=2, bias=True),
    )
    assert list(theirs.state_dict()) == list(ours.state_dict())
    # Not by load_state_dict: mmdet3d patches it in spconv's modules to move axes.
    for theirs_value, ours_value in zip(theirs.parameters(), ours.parameters()):
        assert theirs_value.shape == ours_value.shape
        theirs_value.data.copy_(ours_value)
    tensor = random_tensor(400, 6, (9, 8, 7))
    expected = theirs(
        spconv.SparseConvTensor(tensor.features, tensor.coords, [9, 8, 7], 2)
    ).features
    got = ours(on_backend(tensor, 'torch')).features
    assert_equal(got, expected)
    wanted = gradients(expected, tensor.features, *theirs.parameters())
    for a, b in zip(gradients(got, tensor.features, *ours.parameters()), wanted):
        assert_equal(a, b)


@pytest.mark.parametrize('training', [True, False])
def test_network_is_the_same_on_both_backends(spconv, training):
    tensor = random_tensor(600, 4, (17, 16, 15))
    net = SpConvUNet([4, 6, 8]).train(training)
    results = []
    for backend in ('torch', 'spconv'):
        out = net(on_backend(tensor, backend)).features
        results.append((out, *gradients(out, tensor.features, *net.parameters())))
    for a, b in zip(*results):
        assert_equal(a, b, 1e-4)


def test_spconv_pairs_are_kept_and_checked(spconv):
    tensor = on_backend(random_tensor(50, 3), 'spconv')
    down, up = SparseConv3d(3, 3, indice_key='d'), SparseInverseConv3d(3, 3, 2, 'd')
    with pytest.raises(ValueError, match='came before'):
        up(tensor)
    first = up(down(tensor))
    assert first.coords is tensor.coords
    assert torch.equal(up(down(tensor)).features, first.features)
    with pytest.raises(ValueError, match='names another'):
        down(down(tensor))
    layer = SubMConv3d(3, 3)
    layer(tensor)
    num_pairs = len(tensor.indice_cache['spconv'])
    layer(layer(tensor))
    assert len(tensor.indice_cache['spconv']) == num_pairs


def test_spconv_runs_without_gradients(spconv):
    tensor = on_backend(random_tensor(50, 3), 'spconv')
    layer = SubMConv3d(3, 3)
    with torch.no_grad():
        out = layer(tensor).features
    torch.testing.assert_close(out, layer(on_backend(tensor, 'torch')).features)


def test_missing_spconv_is_named(monkeypatch):
    spconv_backend._import_spconv.cache_clear()
    monkeypatch.setitem(sys.modules, 'spconv', None)
    monkeypatch.setitem(sys.modules, 'spconv.pytorch', None)
    with pytest.raises(ImportError, match='spconv-cu126'):
        SubMConv3d(3, 3)(on_backend(random_tensor(5, 3), 'spconv'))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('backend', ['torch', 'spconv'])
def test_cuda_equals_cpu(backend):
    if backend == 'spconv':
        pytest.importorskip('spconv.pytorch')
    tensor = random_tensor(600, 8, (17, 16, 15))
    net = SpConvUNet([8, 16])
    expected = net(tensor).features
    (wanted,) = gradients(expected, tensor.features)
    features = tensor.features.detach().cuda().requires_grad_()
    there = SparseTensor(features, tensor.coords.cuda(), (17, 16, 15), 2, backend)
    got = net.cuda()(there).features
    (grad,) = gradients(got.cpu(), features)
    assert_equal(got.cpu(), expected, 1e-3)
    assert_equal(grad.cpu(), wanted, 1e-3)
