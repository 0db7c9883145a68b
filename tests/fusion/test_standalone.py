"""The Bi-Fusion encoder on plain tensors, as documented, and with CLIP as a part of it."""

from dataclasses import replace

import pytest
import torch

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.fusion.fused_points import FusedPoints
from oneformer3d.fusion.online_clip import OnlineClip
from oneformer3d.lifting.pixel_shuffle import pixel_shuffle_features
from oneformer3d.store import FeatureStore, FeatureStoreWriter
from tests.helpers.bi_fusion_models import CLIP, build, opened
from tests.helpers.fusion_scenes import CHANNELS, IMAGE_SIZE, INTRINSICS, poses, views_of
from tests.helpers.small_clips import SMALL_VIT
from tests.helpers.store_samples import STAMP


def standalone_arguments(num_points: int = 120):
    points = torch.rand(2, num_points, 6) * 2 - 1
    images = torch.randint(0, 256, (2, 3, *IMAGE_SIZE), dtype=torch.uint8)
    return points, images, INTRINSICS, poses(2)


@pytest.mark.parametrize('as_lists', [False, True])
def test_contract_of_the_outputs(as_lists):
    encoder = build(offline_clip_feat=False, clip=CLIP, clip_channels=None)
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


def test_offline_features_are_read_by_the_names_of_scene_and_frame(tmp_path):
    """The document's call: images and names; the store has the maps."""
    points, images, _, cameras = standalone_arguments()
    views = [views_of(cloud, num_views=1, seed=i) for i, cloud in enumerate(points)]
    stamp = {'channels': CHANNELS // 4, 'grid': (10, 12), 'postprocessing': 'pixel_shuffle2'}
    with FeatureStoreWriter(tmp_path, replace(STAMP, dtype='float16', **stamp)) as writer:
        for sample in views:
            stored = pixel_shuffle_features(sample.feat[0], 2)
            writer.put(sample.scene_id, sample.frames[0], {'feat': stored.numpy()})

    encoder = opened(build(clip_store=str(tmp_path)))
    names = {'scene_ids': [v.scene_id for v in views], 'frame_ids': [v.frames for v in views]}
    maps = [v.feat for v in views]
    expected = encoder(points, maps, INTRINSICS, cameras, image_size=IMAGE_SIZE, **names)
    found = encoder(points, images, INTRINSICS, cameras, **names)
    by_name = encoder(points, None, INTRINSICS, cameras, image_size=IMAGE_SIZE, **names)
    for a, b, c in zip(expected, found, by_name):
        assert a['valid'].any()
        assert torch.equal(a['feat_fusion'], b['feat_fusion'])
        assert torch.equal(a['feat_fusion'], c['feat_fusion'])

    with pytest.raises(KeyError, match='99999'):
        encoder(points, images, INTRINSICS, cameras, **{**names, 'frame_ids': [['99999']] * 2})
    with pytest.raises(ValueError, match='scene_ids, frame_ids and an encoder with a clip_store'):
        encoder(points, images, INTRINSICS, cameras)


def test_without_images():
    encoder = build()
    outputs = encoder(torch.rand(2, 50, 6))
    assert [sample['clip_global'] for sample in outputs] == [None, None]
    assert not any(sample['valid'].any() for sample in outputs)


def test_online_features_fill_the_store_on_first_use(tmp_path, monkeypatch):
    path = tmp_path / 'store'
    clip = OnlineClip(CLIP, clip_store=path)
    points, images, _, _ = standalone_arguments()
    views = views_of(points[0], num_views=2, feat=None, clip_global=None, images=images)
    first = clip(views)
    assert sorted(FeatureStore(path)) == ['scene0/00000', 'scene0/00001']
    monkeypatch.setattr(clip, 'encode', lambda images: pytest.fail('computed twice'))
    again = clip(views)
    assert torch.equal(first.feat, again.feat)
    assert torch.equal(first.clip_global, again.clip_global)
    assert first.feat.dtype == torch.float16
    assert first.feat.shape[1] == clip.clip_channels == FeatureStore(path).stamp.token_channels
    clip.close()
    without = OnlineClip(CLIP)
    without.load_state_dict(clip.state_dict())
    torch.testing.assert_close(without(views).feat, first.feat)


def test_online_equals_offline(tmp_path):
    encoder = opened(build(offline_clip_feat=False, clip=CLIP, clip_channels=None))
    points, images, _, _ = standalone_arguments()
    views = views_of(points[0], num_views=2, feat=None, clip_global=None, images=images)
    online = encoder({'points': [points[0]], 'views': [views]})
    stored = encoder.online_clip(views)
    encoder.online_clip = None
    offline = encoder({'points': [points[0]], 'views': [stored]})
    assert torch.equal(online.features, offline.features)


def test_clip_stays_frozen_unless_asked():
    frozen = build(offline_clip_feat=False, clip=CLIP, clip_channels=None).train()
    assert not any(p.requires_grad for p in frozen.online_clip.parameters())
    assert not frozen.online_clip.clip.visual.training
    partly = build(offline_clip_feat=False, clip=CLIP, clip_channels=None, freeze_blocks=1).train()
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
        OnlineClip(CLIP, num_train_blocks=1, clip_store=tmp_path / 'store')


def test_offload_depends_on_the_budget(monkeypatch):
    memory = type('Properties', (), {'total_memory': 6 << 30})
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: memory)
    cuda = torch.device('cuda')
    assert OnlineClip(CLIP)._offloads(cuda)
    assert not OnlineClip(CLIP, memory_budget=4 << 30)._offloads(cuda)
    assert not OnlineClip(CLIP)._offloads(torch.device('cpu'))


def test_online_clip_computes_in_half_precision_where_use_amp_says_so(monkeypatch):
    """As on a GPU, where extraction stores what was computed in float16 under the same stamp."""
    cuda = torch.device('cuda')
    clip = OnlineClip(CLIP)
    exactly = OnlineClip(CLIP, use_amp=False)
    assert exactly.stamp_on(cuda) == exactly.stamp_on(torch.device('cpu')) != clip.stamp_on(cuda)
    extraction = ClipEncoder(**CLIP, dtype='fp16', compute_dtype='fp16')
    extraction.clip.load_state_dict(clip.clip.clip.state_dict())
    digest = {'weights_digest': clip.clip.weights_digest}
    assert clip.stamp_on(cuda) == replace(extraction.stamp(pixel_shuffle=2), **digest)

    images = torch.randint(0, 256, (3, 3, 40, 60), dtype=torch.uint8)
    exact, _ = clip.encode(images)
    computed = []
    clip.clip.visual.conv1.register_forward_hook(lambda *call: computed.append(call[-1].dtype))
    monkeypatch.setattr(clip, '_compute_dtype', lambda device: torch.float16)
    half, embedding = clip.encode(images)
    assert computed == [torch.float16]
    assert (half.dtype, embedding.dtype) == (torch.float16, torch.float32)
    assert 0 < (half.float() - exact.float()).norm() < 0.01 * exact.float().norm()
    torch.testing.assert_close(half, extraction(images).feat, rtol=0.02, atol=0.02)


def test_online_clip_is_not_told_by_the_training_around_it():
    """Its stamp says float32 on a CPU, also under ``train --amp``."""
    clip = OnlineClip(CLIP)
    images = torch.randint(0, 256, (2, 3, 40, 60), dtype=torch.uint8)
    expected, _ = clip.encode(images)
    with torch.autocast('cpu', torch.bfloat16):
        found, _ = clip.encode(images)
    assert torch.equal(found, expected)


def test_standalone_arguments_that_do_not_fit():
    encoder = build()
    points, _, intrinsics, extrinsics = standalone_arguments()
    images = torch.rand(2, CHANNELS, 5, 6)  # maps in their place
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
