"""The Bi-Fusion encoder: equal to the 3D network at first, blind where no view sees, per sample."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from oneformer3d.backbones.sub_pixel import group_norm_of_cells
from oneformer3d.fusion.encoder import MODES
from oneformer3d.registry import MODELS
from oneformer3d.segmentor.weights import load_checkpoint
from oneformer3d.store import FeatureStoreWriter
from oneformer3d.structures import ViewBatch
from tests.helpers.bi_fusion_models import (
    CONS,
    assert_equal_predictions,
    build,
    build_segmentor,
    opened,
)
from tests.helpers.fusion_scenes import CHANNELS, IMAGE_SIZE, batch, scene, views_of
from tests.helpers.small_models import small_settings
from tests.helpers.store_samples import STAMP


@pytest.mark.parametrize('mode', ['residual', 'concat'])
def test_equals_the_3d_network_at_step_0(mode):
    plain = MODELS.build(small_settings()).eval()
    fused = build_segmentor(mode=mode)
    assert not fused.load_state_dict(plain.state_dict(), strict=False).unexpected_keys

    inputs, samples = batch(scene(0), scene(1))
    alone = {'points': inputs['points']}
    with torch.no_grad():
        expected = plain.encoder(alone).features
        assert torch.equal(fused.encoder(inputs).features[:, :4], expected)
    assert_equal_predictions(fused.predict(inputs, samples), plain.predict(alone, samples))

    torch.manual_seed(1)
    expected = plain.loss(alone, samples)
    torch.manual_seed(1)
    losses = fused.loss(inputs, samples)
    for name, value in expected.items():
        assert torch.equal(losses[name], value)

    with torch.no_grad():
        expected = plain(alone, samples)['cls_preds'][0]
        assert torch.equal(fused(inputs, samples)['cls_preds'][0], expected)
        opened(fused)
        assert not torch.allclose(fused(inputs, samples)['cls_preds'][0], expected, atol=1e-3)


def test_without_views_concat_mode_stays_the_3d_network():
    plain = MODELS.build(small_settings()).eval()
    fused = opened(build_segmentor(mode='concat'))
    fused.load_state_dict(plain.state_dict(), strict=False)
    points, _, sample = scene(0)
    alone = {'points': [points]}
    assert_equal_predictions(fused.predict(alone, [sample]), plain.predict(alone, [sample]))
    hidden = {'points': [points], 'views': [views_of(points, num_views=0)]}
    assert_equal_predictions(fused.predict(hidden, [sample]), plain.predict(alone, [sample]))


@pytest.mark.parametrize('mode', MODES)
def test_3d_weights_load_with_only_the_fusion_missing(mode):
    plain = MODELS.build(small_settings())
    fused = build_segmentor(mode=mode, clip_cons=CONS)
    names = set(fused.state_dict())
    encoder_names = {n for n in plain.state_dict() if n.startswith(('input', 'unet', 'output'))}
    assert encoder_names <= names

    missing, unexpected = fused.load_state_dict(
        {name: plain.state_dict()[name] for name in encoder_names}, strict=False
    )
    assert not unexpected

    fusion = (
        'image_branch',
        'tiny_sa',
        'point_linear',
        'geo_pe',
        'fusion_gate',
        'out',
        'clip_cons',
    )
    for name in missing:
        assert name.removeprefix('encoder.').startswith((*fusion, 'decoder.', 'criterion.')), name
    for name in encoder_names:
        assert torch.equal(fused.state_dict()[name], plain.state_dict()[name])

    again = build_segmentor(mode=mode, clip_cons=CONS)
    again.load_state_dict(fused.state_dict())  # strict


def test_a_checkpoint_from_before_the_sub_pixels_loads_strictly():
    """Its image head had one convolution for all cells of the shuffled map."""
    now = build_segmentor(use_tiny_sa_2d=True)
    state = now.state_dict()
    names = [name for name in state if name.endswith('head.proj.weight')]
    assert names == ['image_branch.head.proj.weight']
    before = nn.Conv2d(CHANNELS // 4, 256, 1).state_dict()
    for name, value in before.items():
        state[f'image_branch.head.proj.{name}'] = value

    load_checkpoint(now, {'state_dict': state})
    tokens = torch.randn(2, CHANNELS, 3, 4)
    expected = F.conv2d(F.pixel_shuffle(tokens, 2), before['weight'], before['bias'])
    found = now.encoder.image_branch.head.proj(tokens)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    state['image_branch.head.proj.weight'] = torch.zeros(256, CHANNELS // 2, 1, 1)
    with pytest.raises(ValueError, match='2 of another shape'):
        load_checkpoint(now, {'state_dict': state})


def test_gate_mode_gives_the_decoder_the_fused_channels():
    encoder = build(mode='gate')
    points = encoder(batch(scene())[0])
    assert points.features is points.fused
    assert points.features.shape == (400, 96)
    model = build_segmentor(mode='gate').train()
    total, _ = model.parse_losses(model.loss(*batch(scene(0), scene(1))))
    assert torch.isfinite(total)


def test_lifting_equals_sampling_first_and_projecting_then():
    """The documented order: enlarge, sample each pair, project each sample, average."""
    branch = build().image_branch
    nn.init.normal_(branch.head.proj.weight)  # sub-pixels that differ
    views = scene(num_views=4)[1]
    lifted = branch(ViewBatch.of_maps([views], CHANNELS, 'cpu'))
    cells = branch.head(group_norm_of_cells(views.feat.float(), 2))
    conf = torch.sigmoid(branch.confidence(cells.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)

    def enlarged(x):
        return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)

    sums, weights = torch.zeros(400, 256), torch.zeros(400, 1)
    height, width = IMAGE_SIZE
    for point, view, (u, v) in zip(views.pairs.point, views.pairs.view, views.pairs.uv):
        where = torch.tensor([[[[(2 * u + 1) / width - 1, (2 * v + 1) / height - 1]]]])

        def at_pixel(x, where=where, view=view):
            grid = F.grid_sample(
                enlarged(x)[view : view + 1], where, padding_mode='border', align_corners=False
            )
            return grid.flatten()

        sums[point] += at_pixel(cells * conf)
        weights[point] += at_pixel(conf)
    valid = weights[:, 0] > 0
    assert 0.3 < valid.float().mean() < 1
    assert torch.equal(lifted.valid, valid)
    expected = branch.linear(sums[valid] / weights[valid])
    torch.testing.assert_close(lifted.features[valid], expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(lifted.conf, 1 - torch.exp(-weights[:, 0]), atol=1e-5, rtol=1e-4)
    assert not lifted.features[~valid].any()


def test_views_of_other_image_sizes_sample_the_same_place():
    encoder = opened(build())
    points, views, _ = scene()
    double = replace(
        views,
        image_size=(60, 80),
        pairs=replace(views.pairs, uv=(views.pairs.uv + 0.5) * 2 - 0.5),
    )
    one = encoder({'points': [points], 'views': [views]}).features
    other = encoder({'points': [points], 'views': [double]}).features
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_unseen_points_have_no_gate_and_no_image():
    encoder = opened(build())
    points, views, _ = scene()
    result = encoder({'points': [points], 'views': [views]})
    seen = torch.zeros(400, dtype=torch.bool)
    seen[views.pairs.point] = True
    assert 0 < seen.sum() < 400
    assert torch.equal(result.lifted.valid, seen)
    assert (result.gate[~seen] == 0).all()
    assert (result.gate[seen] > 0).all()
    assert (result.lifted.conf[~seen] == 0).all()
    assert ((result.lifted.conf > 0) == seen).all()
    # Other pixels change what seen points get, and nothing else.
    other = replace(views, feat=torch.randn(views.feat.shape))
    changed = encoder({'points': [points], 'views': [other]})
    assert torch.equal(changed.features[~seen], result.features[~seen])
    assert (changed.fused[seen] != result.fused[seen]).any(1).all()


def test_views_drawn_twice_count_as_often_but_mean_the_same():
    """A weighted mean over views: doubling every view keeps features and raises confidence."""
    branch = build().image_branch
    views = scene()[1]

    def lift(seen):
        return branch(ViewBatch.of_maps([seen], CHANNELS, 'cpu'))

    order = torch.arange(len(views.pairs)).repeat_interleave(2)
    pairs = replace(views.pairs, **{n: getattr(views.pairs, n)[order] for n in vars(views.pairs)})
    one, two = lift(views), lift(replace(views, pairs=pairs))
    torch.testing.assert_close(one.features, two.features, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(1 - two.conf, (1 - one.conf) ** 2, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('mode', MODES)
def test_zero_views(mode):
    encoder = opened(build(mode=mode, clip_cons=CONS)).train()
    points = scene()[0]
    none = views_of(points, num_views=0)
    results = [
        encoder(inputs).features
        for inputs in (
            {'points': [points]},
            {'points': [points], 'views': [None]},
            {'points': [points], 'views': [none]},
        )
    ]

    assert torch.isfinite(results[0]).all()
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])

    result = encoder({'points': [points], 'views': [none]})
    assert not result.gate.any()
    losses = encoder.auxiliary_losses(result)
    total = result.features.square().sum() + sum(v for k, v in losses.items() if 'loss' in k)
    total.backward()

    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_hidden_pixels_are_zeros_but_poses_stay():
    encoder = opened(build())
    points, views, _ = scene()
    zeros = replace(views, feat=torch.zeros_like(views.feat))
    results = [
        encoder({'points': [points], 'views': [v]})
        for v in (replace(views, pixels_masked=True), zeros, views)
    ]
    assert torch.equal(results[0].features, results[1].features)
    assert torch.equal(results[0].lifted.valid, results[2].lifted.valid)
    assert torch.equal(results[0].geo, results[2].geo)
    assert not torch.equal(results[0].features, results[2].features)


@pytest.mark.parametrize('mode', MODES)
def test_batch_of_2_equals_2_batches_of_1(mode):
    encoder = opened(build(mode=mode, use_tiny_sa_2d=True))
    scenes = [scene(0), scene(1, num_points=300, num_views=4), scene(2, num_views=0)]
    with torch.no_grad():
        together = encoder(batch(*scenes)[0]).samples()
        for alone, expected in zip(scenes, together):
            found = encoder(batch(alone)[0]).samples()[0]
            assert found.keys() == expected.keys()
            for name, value in found.items():
                if torch.is_tensor(value):
                    torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-4)
                else:
                    assert value == expected[name]


def test_every_sample_has_its_own_cameras():
    """Exchanging the views of two samples changes both."""
    encoder = opened(build())
    first, second = scene(0), scene(1)
    inputs, _ = batch(first, second)
    result = encoder(inputs).samples()
    crossed = [views_of(first[0], seed=1), views_of(second[0], seed=0)]
    other = encoder({'points': inputs['points'], 'views': crossed}).samples()
    for a, b in zip(result, other):
        assert not torch.allclose(a['feat_fusion'], b['feat_fusion'])


def test_turned_scene_keeps_what_it_sees():
    """Points and cameras move together: lifted features, and the offsets to cameras, turn along."""
    encoder = build()
    points, views, _ = scene()
    turn = torch.eye(4)
    turn[:2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    turn[:3, 3] = torch.tensor([0.5, -1.0, 0.25])
    moved = torch.cat((points[:, :3] @ turn[:3, :3].T + turn[:3, 3], points[:, 3:]), dim=1)
    with torch.no_grad():
        plain = encoder({'points': [points], 'views': [views]})
        turned = encoder(
            {'points': [moved], 'views': [replace(views, augmented_from_original=turn)]}
        )
    assert torch.equal(plain.lifted.features, turned.lifted.features)
    assert torch.equal(plain.view_of_point, turned.view_of_point)


def test_deterministic():
    encoder = opened(build(use_tiny_sa_2d=True))
    inputs, _ = batch(scene(0), scene(1))
    assert torch.equal(encoder(inputs).features, encoder(inputs).features)


def test_channels_are_read_from_the_store(tmp_path):
    FeatureStoreWriter(tmp_path / 'store', STAMP).close()
    assert build(clip_store=str(tmp_path / 'store')).clip_channels == STAMP.token_channels
    assert build(clip_store=str(tmp_path / 'none')).clip_channels == CHANNELS
    with pytest.raises(ValueError, match='clip_channels'):
        build(clip_store=str(tmp_path / 'none'), clip_channels=None)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'feat': torch.zeros(3, CHANNELS + 1, 5, 6)}, 'maps'),
        ({'feat': None}, 'no feature maps'),
        ({'num_points': 399}, 'views of 399 points'),
    ],
)
def test_views_that_do_not_fit(changes, message):
    points, views, _ = scene()
    with pytest.raises(ValueError, match=message):
        build()({'points': [points], 'views': [replace(views, **changes)]})


def test_maps_of_a_batch_share_one_grid():
    first, second = scene(0)[0], scene(1)[0]
    views = [views_of(first), views_of(second, grid=(7, 6))]
    with pytest.raises(ValueError, match='share one size'):
        build()({'points': [first, second], 'views': views})


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'mode': 'sum'}, 'mode'),
        ({'freeze_blocks': 1}, 'offline_clip_feat'),
        ({'clip': {}}, 'offline_clip_feat'),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)
