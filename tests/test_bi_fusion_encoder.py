"""The Bi-Fusion encoder: equal to the 3D network at first, blind where no view sees, per sample."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from oneformer3d.bi_fusion_encoder import MODES, BiFusionEncoder
from oneformer3d.clip.store import FeatureStore, FeatureStoreWriter
from oneformer3d.fused_points import FusedPoints
from oneformer3d.image_branch import batch_views
from oneformer3d.online_clip import OnlineClip
from oneformer3d.registry import MODELS

from .clip.small_clips import SMALL_VIT
from .clip.store_samples import STAMP
from .fusion_scenes import (
    CHANNELS,
    IMAGE_SIZE,
    INTRINSICS,
    batch,
    encoder_settings,
    poses,
    scene,
    segmentor_settings,
    views_of,
)
from .small_models import small_settings

CONS = {'type': 'ClipConsCriterion', 'warmup_iters': 0}
CLIP = {'model': SMALL_VIT, 'weights': 'none'}


def build(**changes) -> BiFusionEncoder:
    return MODELS.build(encoder_settings(**changes)).eval()


def build_segmentor(**changes):
    return MODELS.build(segmentor_settings(**changes)).eval()


def opened(model: nn.Module) -> nn.Module:
    """The encoder or segmentor as if trained: what starts at zero is no longer zero."""
    for name, parameter in model.named_parameters():
        if name.endswith(('out.weight', '.side')) and not parameter.any():
            nn.init.normal_(parameter)
    return model


def assert_equal_predictions(first, second) -> None:
    for a, b in zip(first, second):
        for name in ('pts_semantic_mask', 'pts_instance_mask'):
            for x, y in zip(a.pred_pts_seg[name], b.pred_pts_seg[name]):
                assert np.array_equal(x, y)
        assert np.array_equal(a.pred_pts_seg.instance_scores, b.pred_pts_seg.instance_scores)


# -- the 3D network inside ------------------------------------------------------------------


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
def test_training_without_views_sees_what_a_scan_without_images_gives(mode):
    encoder = opened(build(mode=mode, train_without_views=True)).train()
    inputs = batch(scene(0), scene(1))[0]
    points = encoder(inputs)
    alone = encoder({'points': inputs['points']})
    torch.testing.assert_close(points.without_views, alone.features)
    assert not torch.allclose(points.features, alone.features)
    assert encoder.eval()(inputs).without_views is None


@pytest.mark.parametrize('mode', MODES)
def test_training_without_views_takes_the_mean_of_both_losses(mode):
    model = opened(build_segmentor(mode=mode)).train()
    model.query_thr = 1.0  # all superpoints are queries, whatever is drawn
    inputs, samples = batch(scene(0), scene(1))
    with_views = model.loss(inputs, samples)
    without = model.loss({'points': inputs['points']}, samples)
    model.encoder.train_without_views = True
    both = model.loss(inputs, samples)
    names = [name for name in both if 'loss' in name]
    assert names
    for name in names:
        torch.testing.assert_close(
            both[name], (with_views[name] + without[name]) / 2, rtol=1e-4, atol=1e-5
        )


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


def test_gate_mode_gives_the_decoder_the_fused_channels():
    encoder = build(mode='gate')
    points = encoder(batch(scene())[0])
    assert points.features is points.fused
    assert points.features.shape == (400, 96)
    model = build_segmentor(mode='gate').train()
    total, _ = model.parse_losses(model.loss(*batch(scene(0), scene(1))))
    assert torch.isfinite(total)


# -- the image branch -----------------------------------------------------------------------


def test_lifting_equals_sampling_first_and_projecting_then():
    """The documented order: enlarge, sample each pair, project each sample, average."""
    branch = build().image_branch
    views = scene(num_views=4)[1]
    lifted = branch(batch_views([views], [400], CHANNELS, torch.device('cpu')))
    maps = F.layer_norm(views.feat.float().permute(0, 2, 3, 1), (CHANNELS,)).permute(0, 3, 1, 2)
    cells = branch.head(maps)
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
        return branch(batch_views([seen], [400], CHANNELS, torch.device('cpu')))

    order = torch.arange(len(views.pairs)).repeat_interleave(2)
    pairs = replace(views.pairs, **{n: getattr(views.pairs, n)[order] for n in vars(views.pairs)})
    one, two = lift(views), lift(replace(views, pairs=pairs))
    torch.testing.assert_close(one.features, two.features, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(1 - two.conf, (1 - one.conf) ** 2, atol=1e-5, rtol=1e-4)


# -- missing images -------------------------------------------------------------------------


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
        for v in (replace(views, pixels_hidden=True), zeros, views)
    ]
    assert torch.equal(results[0].features, results[1].features)
    assert torch.equal(results[0].lifted.valid, results[2].lifted.valid)
    assert torch.equal(results[0].geo, results[2].geo)
    assert not torch.equal(results[0].features, results[2].features)


# -- batches and augmentation ---------------------------------------------------------------


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


# -- training -------------------------------------------------------------------------------


@pytest.mark.parametrize('mode', MODES)
def test_every_parameter_is_there_from_the_start_and_moves(mode):
    model = build_segmentor(mode=mode, clip_cons=CONS, use_tiny_sa_2d=True).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(2):
        losses = model.loss(*batch(scene(2 * step), scene(2 * step + 1)))
        total, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    after = model.state_dict()
    assert after.keys() == before.keys()
    parameters = {
        name.replace('encoder.points_3d.', '').replace('encoder.', '')
        for name, _ in model.named_parameters()
    }
    assert parameters <= before.keys()
    for name in parameters:
        assert not torch.equal(after[name], before[name]), name


def test_clip_cons_reaches_the_fusion_at_once():
    encoder = build(clip_cons=CONS).train()
    losses = encoder.auxiliary_losses(encoder(batch(scene(0), scene(1))[0]))
    assert losses['clip_cons_loss'] > 0
    assert losses['cross_view_loss'] > 0
    (losses['clip_cons_loss'] + losses['cross_view_loss']).backward()
    for name in ('fusion_gate', 'image_branch', 'tiny_sa', 'point_linear', 'geo_pe', 'points_3d'):
        for key, parameter in getattr(encoder, name).named_parameters():
            assert parameter.grad is not None, f'{name}.{key}'
            assert parameter.grad.abs().max() > 0, f'{name}.{key}'
    assert encoder.out.weight.grad is None


def test_clip_cons_targets_come_from_the_frozen_map():
    """Hiding the pixels from the network leaves the targets; other maps change them."""
    encoder = build(clip_cons={**CONS, 'view_weight': 0.0})
    points, views, _ = scene()

    def loss_of(seen):
        return encoder.auxiliary_losses(encoder({'points': [points], 'views': [seen]}))[
            'clip_cons_loss'
        ]

    hidden = replace(views, pixels_hidden=True)
    other = replace(hidden, feat=torch.randn(views.feat.shape))
    assert not torch.allclose(loss_of(hidden), loss_of(other))


def test_mixed_precision():
    """Autocast around the whole model, as the runner's wrapper does it, and its backward pass."""
    model = build_segmentor(clip_cons=CONS, use_tiny_sa_2d=True).train()
    inputs, samples = batch(scene(0), scene(1))
    torch.manual_seed(0)
    full = model.loss(inputs, samples)
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = model.loss(inputs, samples)
    for name in ('clip_cons_loss', 'coverage', 'conf_mean', 'gate_mean'):
        torch.testing.assert_close(half[name], full[name], atol=0.02, rtol=0.05)
    model.parse_losses(half)[0].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_statistics():
    encoder = build()
    inputs, _ = batch(scene(0), scene(1, num_views=0))
    result = encoder(inputs)
    metrics = encoder.auxiliary_losses(result)
    assert not any('loss' in name for name in metrics)
    num_pairs, seen = len(inputs['views'][0].pairs), result.lifted.valid.sum()
    torch.testing.assert_close(metrics['coverage'], seen / 800)
    torch.testing.assert_close(metrics['valid_rate'], torch.tensor(num_pairs / (400 * 3)))
    torch.testing.assert_close(metrics['views_per_point'], num_pairs / seen)
    torch.testing.assert_close(metrics['gate_mean'], result.gate[result.lifted.valid].mean())
    model = build_segmentor()
    total, logged = model.parse_losses(model.loss(*batch(scene(0), scene(1))))
    torch.testing.assert_close(total, logged['inst_loss'] + logged['seg_loss'])
    assert set(metrics) <= set(logged)


# -- the documented call --------------------------------------------------------------------


def standalone_arguments(num_points: int = 120):
    points = torch.rand(2, num_points, 6) * 2 - 1
    images = torch.randint(0, 256, (2, 3, *IMAGE_SIZE), dtype=torch.uint8)
    return points, images, INTRINSICS, poses(2)


@pytest.mark.parametrize('as_lists', [False, True])
def test_contract_of_the_outputs(as_lists):
    encoder = build(offline_clip_feat=False, clip=CLIP, image_channels=None)
    points, images, intrinsics, extrinsics = standalone_arguments()
    if as_lists:
        points, images = [points[0], points[1][:90]], list(images)
        intrinsics, extrinsics = [intrinsics] * 2, list(extrinsics)
    outputs = encoder(
        points,
        images,
        intrinsics,
        extrinsics,
        scene_ids=['room_a', 'room_b'],
        frame_ids=[['00007'], ['00042']],
    )
    assert len(outputs) == 2
    for i, (sample, cloud) in enumerate(zip(outputs, points)):
        num_points = len(cloud)
        shapes = {
            'feat_fusion': (num_points, 4),
            'conf_2d': (num_points,),
            'pe_xyz': (num_points, 32),
            'gate': (num_points, 96),
            'valid': (num_points,),
            'frame_of_point': (num_points,),
            'clip_global': (1, SMALL_VIT['embed_dim']),
        }
        assert {name: tuple(sample[name].shape) for name in shapes} == shapes
        assert set(sample) == {*shapes, 'scene_id', 'frame_ids'}
        assert sample['valid'].dtype == torch.bool
        assert sample['scene_id'] == ('room_a', 'room_b')[i]
        assert sample['frame_ids'] == (('00007',), ('00042',))[i]
        assert 0 < sample['valid'].sum() < num_points
        assert torch.equal(sample['frame_of_point'] == 0, sample['valid'])
        assert torch.equal(sample['frame_of_point'] == -1, ~sample['valid'])
        assert ((sample['conf_2d'] >= 0) & (sample['conf_2d'] < 1)).all()


def test_standalone_equals_the_call_of_the_segmentor():
    encoder = opened(build())
    points = torch.rand(2, 120, 6) * 2 - 1
    views = [views_of(cloud, num_views=3, seed=i) for i, cloud in enumerate(points)]
    expected = encoder({'points': list(points), 'views': views}).samples()
    maps, cameras = [v.feat for v in views], [v.world_from_cam for v in views]
    found = encoder(points, maps, INTRINSICS, cameras, image_size=IMAGE_SIZE)
    for a, b in zip(found, expected):
        for name in ('feat_fusion', 'conf_2d', 'valid', 'pe_xyz'):
            assert torch.equal(a[name], b[name])
    far = [torch.full((3, *IMAGE_SIZE), 1e3)] * 2
    hidden = encoder(points, maps, INTRINSICS, cameras, far, image_size=IMAGE_SIZE)
    assert not any(sample['valid'].any() for sample in hidden)
    assert isinstance(encoder({'points': list(points)}), FusedPoints)


def test_without_images():
    encoder = build()
    outputs = encoder(torch.rand(2, 50, 6))
    assert [sample['clip_global'] for sample in outputs] == [None, None]
    assert not any(sample['valid'].any() for sample in outputs)


# -- CLIP in the model ----------------------------------------------------------------------


def test_online_features_fill_the_store_on_first_use(tmp_path, monkeypatch):
    path = tmp_path / 'store'
    clip = OnlineClip(CLIP, store=path)
    points, images, _, _ = standalone_arguments()
    views = views_of(points[0], num_views=2, feat=None, clip_global=None, images=images)
    first = clip(views)
    assert sorted(FeatureStore(path)) == ['scene0/00000', 'scene0/00001']
    monkeypatch.setattr(clip, 'encode', lambda images: pytest.fail('computed twice'))
    again = clip(views)
    assert torch.equal(first.feat, again.feat)
    assert torch.equal(first.clip_global, again.clip_global)
    assert first.feat.dtype == torch.float16
    assert first.feat.shape[1] == clip.num_channels == FeatureStore(path).stamp.channels
    clip.close()
    without = OnlineClip(CLIP)
    without.load_state_dict(clip.state_dict())
    torch.testing.assert_close(without(views).feat, first.feat)


def test_online_equals_offline(tmp_path):
    encoder = opened(build(offline_clip_feat=False, clip=CLIP, image_channels=None))
    points, images, _, _ = standalone_arguments()
    views = views_of(points[0], num_views=2, feat=None, clip_global=None, images=images)
    online = encoder({'points': [points[0]], 'views': [views]})
    stored = encoder.online_clip(views)
    encoder.online_clip = None
    offline = encoder({'points': [points[0]], 'views': [stored]})
    assert torch.equal(online.features, offline.features)


def test_clip_stays_frozen_unless_asked():
    frozen = build(offline_clip_feat=False, clip=CLIP, image_channels=None).train()
    assert not any(p.requires_grad for p in frozen.online_clip.parameters())
    assert not frozen.online_clip.clip.visual.training
    partly = build(offline_clip_feat=False, clip=CLIP, image_channels=None, freeze_blocks=1).train()
    trained = [n for n, p in partly.online_clip.named_parameters() if p.requires_grad]
    assert trained
    assert all('resblocks.2' in name for name in trained)
    points, images, _, _ = standalone_arguments()
    views = views_of(points[0], num_views=2, feat=None, clip_global=None, images=images)
    result = opened(partly)({'points': [points[0]], 'views': [views]})
    result.features.square().sum().backward()
    for name, parameter in partly.online_clip.named_parameters():
        assert (parameter.grad is not None) == (name in trained), name
    assert any(p.grad.abs().max() > 0 for p in partly.online_clip.parameters() if p.requires_grad)


def test_a_store_cannot_keep_features_that_train(tmp_path):
    with pytest.raises(ValueError, match='freeze_blocks'):
        OnlineClip(CLIP, num_train_blocks=1, store=tmp_path / 'store')


def test_offload_depends_on_the_budget(monkeypatch):
    memory = type('Properties', (), {'total_memory': 6 << 30})
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: memory)
    cuda = torch.device('cuda')
    assert OnlineClip(CLIP)._offloads(cuda)
    assert not OnlineClip(CLIP, memory_budget=4 << 30)._offloads(cuda)
    assert not OnlineClip(CLIP)._offloads(torch.device('cpu'))


# -- settings and bad input -----------------------------------------------------------------


def test_channels_are_read_from_the_store(tmp_path):
    FeatureStoreWriter(tmp_path / 'store', STAMP).close()
    assert build(clip_store=str(tmp_path / 'store')).image_channels == STAMP.channels
    assert build(clip_store=str(tmp_path / 'none')).image_channels == CHANNELS
    with pytest.raises(ValueError, match='image_channels'):
        build(clip_store=str(tmp_path / 'none'), image_channels=None)


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
    with pytest.raises(ValueError, match='one grid'):
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


def test_standalone_arguments_that_do_not_fit():
    encoder = build()
    points, images, intrinsics, extrinsics = standalone_arguments()
    with pytest.raises(ValueError, match='intrinsics and extrinsics'):
        encoder(points, images)
    with pytest.raises(ValueError, match='image_size'):
        encoder(points, images, intrinsics, extrinsics)
    with pytest.raises(ValueError, match='2 point clouds but 1'):
        encoder(points, images, intrinsics, extrinsics[:1], image_size=IMAGE_SIZE)
    with pytest.raises(ValueError, match='1 images but 2 poses'):
        encoder(points, images, intrinsics, [poses(2), poses(1)], image_size=IMAGE_SIZE)
    with pytest.raises(ValueError, match='1 images but 2 frame_ids'):
        encoder(
            points, images, intrinsics, extrinsics, image_size=IMAGE_SIZE, frame_ids=['ab', 'cd']
        )
