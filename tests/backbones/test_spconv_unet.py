"""The U-Net against published parameter names and reference values."""

import pytest
import torch
from torch import nn

from oneformer3d.backbones.sparse_conv import (
    BatchNorm1d,
    SparseModule,
    SparseSequential,
    SubMConv3d,
)
from oneformer3d.backbones.sparse_tensor import SparseTensor
from oneformer3d.backbones.spconv_unet import SpConvUNet
from oneformer3d.registry import MODELS
from oneformer3d.segmentor.weights import adapt_sparse_conv_layout, load_checkpoint
from tests.helpers.dense_twin import gradients, random_tensor
from tests.helpers.reference_values import oneformer3d_reference, published_parameters

PREFIXES = ('input_conv.', 'unet.', 'output_layer.')


class Encoder(SparseModule):
    """The sparse part of a published segmentor."""

    def __init__(self, in_channels: int, num_planes: list[int]) -> None:
        super().__init__()
        self.input_conv = SparseSequential(SubMConv3d(in_channels, num_planes[0], padding=1))
        self.unet = MODELS.build(
            {'type': 'SpConvUNet', 'num_planes': num_planes, 'return_blocks': True}
        )
        self.output_layer = SparseSequential(BatchNorm1d(num_planes[0], eps=1e-4), nn.ReLU())

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        return self.output_layer(self.unet(self.input_conv(tensor)))


def encoder_part(values: dict) -> dict:
    return {name: value for name, value in values.items() if name.startswith(PREFIXES)}


def test_reference_values():
    reference = oneformer3d_reference()
    net = Encoder(6, reference['config']['backbone']['num_planes'])
    state_dict = encoder_part(reference['state_dict'])
    tensor = SparseTensor(
        reference['voxel_feats'],
        reference['voxel_coords'],
        reference['spatial_shape'],
        len(reference['points']),
    )
    published = {
        name: value.permute(1, 2, 3, 4, 0) if value.ndim == 5 else value
        for name, value in state_dict.items()
    }
    for values in (state_dict, published):
        load_checkpoint(net, values)
        with torch.no_grad():
            features = net.eval()(tensor).features[reference['inverse']]
        start = 0
        for superpoints, expected in zip(reference['superpoints'], reference['sp_feats']):
            of_scene = features[start : start + len(superpoints)]
            start += len(superpoints)
            ids = superpoints - superpoints.min()
            sums = torch.zeros_like(expected).index_add(0, ids, of_scene)
            mean = sums / torch.bincount(ids)[:, None]
            torch.testing.assert_close(mean, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ('name', 'planes'),
    [('scannet', [32, 64, 96, 128, 160]), ('s3dis', [64, 128, 192, 256, 320])],
)
def test_published_names_and_shapes_load_strictly(name, planes):
    listed = published_parameters(name)
    with torch.device('meta'):
        net = Encoder(6, planes)
        live = {k: torch.empty(v) for k, v in encoder_part(listed['live_shapes']).items()}
        moved = {k: torch.empty(v) for k, v in encoder_part(listed['published_shapes']).items()}
    assert len(moved) > 40
    for values in (live, {**live, **moved}):
        adapted = adapt_sparse_conv_layout(values, net.state_dict())
        net.load_state_dict(adapted, strict=True, assign=True)


def test_gradients_reach_every_parameter():
    net = SpConvUNet([4, 6, 8])
    tensor = random_tensor(500, 4, (20, 20, 20))
    for grad in gradients(net(tensor).features, tensor.features, *net.parameters()):
        assert grad is not None
        assert torch.isfinite(grad).all()
        assert grad.abs().sum() > 0


def test_levels_run_from_coarse_to_fine():
    net = SpConvUNet([4, 6, 8]).eval()
    tensor = random_tensor(500, 4, (20, 20, 20))
    levels = net.forward_levels(tensor)
    assert [level.spatial_shape for level in levels] == [(5, 5, 5), (10, 10, 10), (20, 20, 20)]
    assert [level.features.shape[1] for level in levels] == [8, 6, 4]
    assert torch.equal(levels[-1].features, net(tensor).features)


@pytest.mark.parametrize('num_voxels', [0, 1, 2])
@pytest.mark.parametrize('training', [True, False])
def test_hardly_any_voxels(num_voxels, training):
    net = SpConvUNet([4, 6, 8]).train(training)
    tensor = random_tensor(num_voxels, 4, (16, 16, 16))
    out = net(tensor).features
    assert out.shape == (num_voxels, 4)
    assert torch.isfinite(out).all()
    assert torch.isfinite(torch.autograd.grad(out.sum(), tensor.features)[0]).all()


def test_voxels_lost_at_the_border_keep_their_skipped_features():
    net = SpConvUNet([4, 6]).eval()
    coords = torch.tensor([[0, 4, 4, 4]])
    features = torch.randn(1, 4)
    out = net(SparseTensor(features, coords, (5, 5, 5), 1))
    assert out.features.shape == (1, 4)
    wider = net(SparseTensor(features, coords, (6, 6, 6), 1))
    assert not torch.allclose(out.features, wider.features)


def test_bfloat16_autocast_trains():
    net = SpConvUNet([8, 16])
    tensor = random_tensor(500, 8, (16, 16, 16))
    expected = net(tensor).features
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = net(tensor).features
    assert (out.float() - expected).norm() < 0.05 * expected.norm()
    out.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in net.parameters())


def test_settings_are_checked():
    with pytest.raises(ValueError, match='num_planes'):
        SpConvUNet([])
    with pytest.raises(ValueError, match='block_reps'):
        SpConvUNet([4], block_reps=0)
