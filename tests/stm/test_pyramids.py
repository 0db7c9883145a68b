"""Pyramids: whose maps they are, and that their levels lie over each other."""

from dataclasses import replace

import pytest
import torch

from oneformer3d.lifting.pixel_shuffle import pixel_shuffle_features
from oneformer3d.registry import MODELS
from oneformer3d.stm.image_pyramids import ClipPyramid, FPNPyramid
from oneformer3d.stm.pyramids import MapPyramid, pad_even
from oneformer3d.stm.sampling import corners, gather_rows
from oneformer3d.structures import PosedViews, ViewBatch
from tests.helpers.fusion_scenes import CHANNELS, IMAGE_SIZE, batch
from tests.helpers.stm_scenes import open_gates, posed_scene, stm_segmentor

TINY_RESNET = {
    'embed_dim': 16,
    'vision_cfg': {'image_size': 64, 'layers': [1, 1, 1, 1], 'width': 8},
    'text_cfg': {'context_length': 8, 'vocab_size': 49408, 'width': 16, 'heads': 2, 'layers': 1},
}
TINY_VIT = {
    'embed_dim': 16,
    'vision_cfg': {'image_size': 64, 'layers': 4, 'width': 16, 'head_width': 8, 'patch_size': 16},
    'text_cfg': {'context_length': 8, 'vocab_size': 49408, 'width': 16, 'heads': 2, 'layers': 1},
}


def with_images(num_views=2, seed=0, **changes):
    _, views, _ = posed_scene(seed, num_views)
    images = torch.randint(0, 256, (num_views, 3, *IMAGE_SIZE), dtype=torch.uint8)
    return replace(views, feat=None, images=images, **changes)


def second_view(views: PosedViews) -> PosedViews:
    pairs = views.pairs.select(views.pairs.view == 1)
    return replace(
        views,
        pairs=replace(pairs, view=pairs.view - 1),
        world_from_cam=views.world_from_cam[1:2],
        feat=views.feat[1:2],
    )


def ramp(height, width, cell=1.0):
    """(1, 2, h, w) x and y of cell centres, edge-based."""
    x = ((torch.arange(width) + 0.5) * cell).expand(height, width)
    y = ((torch.arange(height) + 0.5) * cell)[:, None].expand(height, width)
    return torch.stack((x, y))[None]


def test_finer_and_coarser_levels_lie_over_the_stored_map():
    """Convolutions that copy or average turn a ramp of coordinates into a ramp of coordinates."""
    pyramid = MapPyramid(clip_channels=4, channels=2, num_groups=1, num_levels=4)
    with torch.no_grad():
        for conv in (pyramid.finer, *pyramid.coarser):
            conv.bias.zero_()
            share = 1.0 if conv is pyramid.finer else 0.25
            conv.weight.copy_(torch.eye(2)[:, :, None, None].expand(2, 2, 2, 2) * share)
        base = ramp(8, 12, 16.0)
        finer = pyramid.finer(base)
        torch.testing.assert_close(finer[..., ::2, ::2], base)  # four cells of 8 over one of 16
        coarser = pyramid.coarser[0](pad_even(base))
        torch.testing.assert_close(coarser, ramp(4, 6, 32.0))
        torch.testing.assert_close(pyramid.coarser[1](pad_even(coarser)), ramp(2, 3, 64.0))
        odd = pyramid.coarser[0](pad_even(ramp(5, 7, 16.0)))
    assert odd.shape[-2:] == (3, 4)
    torch.testing.assert_close(odd[..., :2, :3], ramp(3, 4, 32.0)[..., :2, :3])


def test_strides_sizes_and_images_of_the_map_pyramid():
    scenes = [posed_scene(0, 3)[1], None, posed_scene(1, 0)[1], posed_scene(2, 2)[1]]
    pyramid = MapPyramid(CHANNELS, channels=8, num_groups=2, num_levels=3)(scenes)
    assert pyramid.table.strides == (8.0, 16.0, 32.0)
    assert pyramid.table.sizes == ((20, 24), (10, 12), (5, 6))  # tokens are 5 × 6
    assert pyramid.canvas == (160, 192)
    assert pyramid.table.num_images == 5
    assert pyramid.first_image == (0, 3, 3, 3)
    assert pyramid.mapping_stride == 4.0
    single = MapPyramid(CHANNELS, channels=8, num_levels=1)(scenes)
    assert single.table.sizes == ((10, 12),)
    patches = MapPyramid(CHANNELS, channels=8, num_levels=2, sub_pixel=1)(scenes)
    assert patches.table.sizes == ((10, 12), (5, 6))
    assert patches.canvas == (80, 96)


def test_weights_from_before_the_sub_pixels_give_the_same_levels():
    """Then a convolution that all cells shared read the shuffled map."""
    views = posed_scene(0, 3)[1]
    shuffled = replace(views, feat=pixel_shuffle_features(views.feat, 2))
    before, module = MapPyramid(CHANNELS // 4, channels=8, sub_pixel=1), MapPyramid(CHANNELS, 8)
    module.load_state_dict(before.state_dict())
    found, expected = module([views]), before([shuffled])
    assert found.canvas == expected.canvas
    torch.testing.assert_close(found.table.rows, expected.table.rows, atol=1e-5, rtol=1e-5)


def test_each_view_has_rows_of_its_own():
    views = posed_scene(0, 3)[1]
    module = MapPyramid(CHANNELS, channels=8, num_groups=2)
    together, alone = module([views]), module([second_view(views)])
    table = together.table
    xy, weights = torch.rand(7, 2) * 60, torch.rand(7, 3).softmax(-1)
    cells, corner_weights = corners(xy, weights, table.sizes, table.strides)
    first = gather_rows(table.rows, (1 * table.num_cells + cells) * 2 + 1, corner_weights)
    expected = gather_rows(alone.table.rows, cells * 2 + 1, corner_weights)
    # both tables hold three and one images; rows of the second image are the only one's
    torch.testing.assert_close(first[:, :], expected, rtol=1e-4, atol=1e-5)


def test_channels_come_from_the_store(tmp_path):
    with pytest.raises(ValueError, match='no feature store'):
        MapPyramid(clip_store=str(tmp_path / 'none'))
    assert MapPyramid(7, clip_store=str(tmp_path / 'none')).clip_channels == 7
    with pytest.raises(ValueError, match='4 groups do not divide 6'):
        MapPyramid(7, channels=6)
    with pytest.raises(ValueError, match='num_levels'):
        MapPyramid(7, num_levels=0)


def test_masked_views_are_zero_maps():
    views = posed_scene(0, 2)[1]
    stacked = ViewBatch.of_maps([views, replace(views, pixels_masked=True)], CHANNELS, 'cpu')
    assert stacked.maps[2:].any()
    assert stacked.visible_maps()[:2].any()
    assert not stacked.visible_maps()[2:].any()
    with pytest.raises(ValueError, match='share one size'):
        ViewBatch.of_maps([views, posed_scene(1, 2, feat=views.feat[..., :4])[1]], CHANNELS, 'cpu')


@pytest.mark.parametrize('model', [TINY_RESNET, TINY_VIT], ids=['resnet', 'vit'])
def test_clip_intermediates(model):
    pyramid = ClipPyramid(
        {'model': model, 'weights': 'none', 'input_size': (64, 128)}, channels=8, num_groups=2
    )
    views = [with_images(2), with_images(1, seed=1)]
    made = pyramid(views)
    first = 4 if model is TINY_RESNET else 8
    assert made.table.strides == tuple(first * 2.0**k for k in range(4))
    assert made.canvas == (64, 128)
    assert made.table.sizes == tuple((64 // s, 128 // s) for s in map(int, made.table.strides))
    assert made.table.num_images == 3
    made.table.rows.square().sum().backward()
    assert all(not p.requires_grad for p in pyramid.encoder.parameters())
    learned = [p for p in pyramid.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learned)
    # the tower's maps do not depend on what else is in the batch
    rows = pyramid([views[1]]).table.rows
    torch.testing.assert_close(made.table.rows[-len(rows) :], rows, rtol=1e-3, atol=1e-3)
    hidden = pyramid([replace(views[1], pixels_masked=True)]).table.rows
    assert not torch.allclose(hidden, rows)
    empty = pyramid([None])
    empty.table.rows.sum().backward()
    assert empty.table.num_images == 1


def test_fpn():
    pyramid = FPNPyramid('resnet18', channels=8, num_groups=2).eval()
    made = pyramid([with_images(2)])
    assert made.table.strides == (4.0, 8.0, 16.0, 32.0)
    assert made.canvas == IMAGE_SIZE  # 30 × 40, padded to 32 × 64 behind
    assert made.table.sizes == ((8, 16), (4, 8), (2, 4), (1, 2))
    made.table.rows.square().sum().backward()
    assert all(p.grad is not None for p in pyramid.laterals.parameters())
    assert next(pyramid.image_net.parameters()).grad is not None


def test_a_segmentor_reads_images_through_an_fpn():
    model = open_gates(stm_segmentor(pyramid={'type': 'FPNPyramid', 'backbone': 'resnet18'}))
    points, views, sample = posed_scene(0, 2)
    images = torch.randint(0, 256, (2, 3, *IMAGE_SIZE), dtype=torch.uint8)
    inputs, samples = batch((points, replace(views, feat=None, images=images), sample))
    total, _ = model.parse_losses(model(inputs, samples, mode='loss'))
    total.backward()
    assert torch.isfinite(total)
    assert model.decoder.view_pyramid.laterals[0].weight.grad.any()


def test_wrong_input_is_named():
    views = posed_scene(0, 2)[1]
    with pytest.raises(ValueError, match='have no images'):
        ViewBatch.of_images([views], 'cpu')
    other = with_images(2)
    smaller = replace(other, images=other.images[..., :20])
    with pytest.raises(ValueError, match='share one size'):
        ViewBatch.of_images([other, smaller], 'cpu')
    settings = {'model': TINY_RESNET, 'weights': 'none'}
    with pytest.raises(ValueError, match='mode tokens'):
        ClipPyramid({**settings, 'mode': 'clip'})
    with pytest.raises(ValueError, match='four layers'):
        ClipPyramid({**settings, 'layers': ['layer3']})
    with pytest.raises(KeyError):
        MODELS.build({'type': 'NoPyramid'})
