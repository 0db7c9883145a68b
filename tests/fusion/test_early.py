"""Image features in the first convolution: absent at first, exactly zero where no view sees."""

import pytest
import torch

from oneformer3d.backbones.res16unet import Convolution, SideConvolution
from oneformer3d.backbones.sparse_conv import SideSubMConv3d, SubMConv3d
from oneformer3d.backbones.sparse_tensor import SparseTensor
from oneformer3d.registry import MODELS
from tests.helpers.bi_fusion_models import (
    assert_equal_predictions,
    build,
    build_segmentor,
    opened,
)
from tests.helpers.fusion_scenes import batch, scene, views_of
from tests.helpers.small_models import small_settings

FUSIONS = [{'fuse': 'early'}, {'fuse': 'both', 'mode': 'concat'}]
EARLY = 40


def build_pair(**changes):
    """A 3D segmentor, and a fused one with its weights."""
    plain = MODELS.build(small_settings()).eval()
    fused = build_segmentor(early_channels=EARLY, **changes)
    assert not fused.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    return plain, fused


def voxels(num_channels: int) -> SparseTensor:
    coords = torch.unique(torch.randint(0, 6, (120, 3)), dim=0).int()
    coords = torch.cat((torch.zeros(len(coords), 1, dtype=torch.int32), coords), dim=1)
    return SparseTensor(torch.randn(len(coords), num_channels), coords, (6, 6, 6), 1)


@pytest.mark.parametrize('changes', FUSIONS, ids=['early', 'both'])
def test_equals_the_3d_network_at_step_0(changes):
    plain, fused = build_pair(**changes)
    inputs, samples = batch(scene(0), scene(1))
    alone = {'points': inputs['points']}
    assert_equal_predictions(fused.predict(inputs, samples), plain.predict(alone, samples))

    torch.manual_seed(1)
    expected = plain.loss(alone, samples)
    torch.manual_seed(1)
    losses = fused.loss(inputs, samples)
    for name, value in expected.items():
        assert torch.equal(losses[name], value)

    with torch.no_grad():
        expected = plain(alone, samples)['cls_preds'][0]
        opened(fused.encoder.points_3d)
        assert not torch.allclose(fused(inputs, samples)['cls_preds'][0], expected, atol=1e-3)


@pytest.mark.parametrize('changes', FUSIONS, ids=['early', 'both'])
def test_without_views_it_stays_the_3d_network(changes):
    plain, fused = build_pair(**changes)
    opened(fused)
    points, views, sample = scene(0)
    alone = {'points': [points]}
    expected = plain.predict(alone, [sample])
    for hidden in (None, views_of(points, num_views=0)):
        found = fused.predict({'points': [points], 'views': [hidden]}, [sample])
        assert_equal_predictions(found, expected)

    # zero, not small: also beside points that are seen
    given = []
    hook = fused.encoder.early.register_forward_hook(lambda *args: given.append(args[-1]))
    fused.predict({'points': [points], 'views': [views]}, [sample])
    hook.remove()
    visible = torch.zeros(len(points), dtype=torch.bool)
    visible[views.pairs.point] = True
    assert not given[0][~visible].any()
    assert given[0][visible].any(1).all()


@pytest.mark.parametrize('changes', [{'mode': 'residual'}, {'mode': 'concat'}, {'mode': 'gate'}])
def test_training_without_views_gives_what_a_scene_without_views_gets(changes):
    encoder = build(fuse='both', early_channels=EARLY, train_without_views=True, **changes)
    inputs, _ = batch(scene(0), scene(1))
    opened(encoder).train()
    points = encoder(inputs)
    alone = encoder({'points': inputs['points']})
    torch.testing.assert_close(points.without_views, alone.features)
    assert not torch.allclose(points.features, alone.features, atol=1e-3)


def test_the_loss_reaches_the_image_branch_through_the_first_convolution():
    encoder = build(fuse='early', early_channels=EARLY).train()
    inputs, _ = batch(scene(0))
    encoder(inputs).features.square().sum().backward()
    side = encoder.points_3d.input_conv[0].early
    assert side.grad.any()  # it begins at zero and moves
    opened(encoder)
    encoder(inputs).features.square().sum().backward()
    assert encoder.image_branch.head.proj.weight.grad.any()
    assert all(parameter.grad is not None for parameter in encoder.early.parameters())


def test_outputs_of_early_fusion_alone():
    encoder = build(fuse='early', early_channels=EARLY)
    points, views, _ = scene(0)
    (sample,) = encoder({'points': [points], 'views': [views]}).samples()
    shapes = {name: tuple(sample[name].shape) for name in ('feat_fusion', 'gate', 'pe_xyz')}
    num_points = len(points)
    assert shapes == {
        'feat_fusion': (num_points, 4), 'gate': (num_points, 1), 'pe_xyz': (num_points, 0),
    }  # fmt: skip
    assert torch.equal(sample['frame_of_point'] >= 0, sample['valid'])
    with pytest.raises(ValueError, match='fuse: expected one of'):
        build(fuse='middle')


def test_a_side_convolution_is_one_widened_convolution():
    tensor = voxels(5 + 3)
    first = SideSubMConv3d(5, 7, side_channels=3)
    torch.nn.init.normal_(first.early)
    wide = SubMConv3d(8, 7)
    wide.weight.data = torch.cat((first.weight, first.early), dim=-1).detach()
    torch.testing.assert_close(first(tensor).features, wide(tensor).features)

    first = SideConvolution(5, 7, side_channels=3, kernel_size=3)
    torch.nn.init.normal_(first.early)
    wide = Convolution(8, 7, 3)
    wide.kernel.data = torch.cat((first.kernel, first.early), dim=1).detach()
    torch.testing.assert_close(first(tensor).features, wide(tensor).features)


def test_a_published_kernel_loads_beside_zeros():
    """Both kinds of first convolution, the same bits."""
    tensor = voxels(5 + 3)
    alone = tensor.with_features(tensor.features[:, :5])
    for plain, first in (
        (SubMConv3d(5, 7), SideSubMConv3d(5, 7, side_channels=3)),
        (Convolution(5, 7, 5), SideConvolution(5, 7, side_channels=3, kernel_size=5)),
    ):
        assert first.load_state_dict(plain.state_dict(), strict=False).missing_keys == ['early']
        assert torch.equal(first(tensor).features, plain(alone).features)


def test_the_backbone_of_scannet200_takes_side_features():
    encoder = MODELS.build(
        {
            'type': 'BackboneEncoder',
            'backbone': {'type': 'Res16UNet34C', 'in_channels': 3, 'out_channels': 5},
            'voxel_size': 0.1,
            'side_channels': 4,
        }
    ).eval()
    points = torch.rand(60, 6)
    with torch.no_grad():
        expected = encoder({'points': [points]}).features
        torch.nn.init.normal_(encoder.backbone.conv0p1s1.early)
        found = encoder({'points': [points], 'side_features': torch.zeros(60, 4)}).features
        assert torch.equal(found, expected)
        found = encoder({'points': [points], 'side_features': torch.rand(60, 4)}).features
        assert not torch.allclose(found, expected, atol=1e-3)
        with pytest.raises(ValueError, match='side_features'):
            encoder({'points': [points], 'side_features': torch.zeros(60, 5)})
