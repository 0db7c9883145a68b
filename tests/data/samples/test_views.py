"""Views of a scene: which points they see, and that nothing else changes it."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.dataset.utils import pseudo_collate
from mmengine.logging import MMLogger

from oneformer3d.data.samples.preprocessor import SceneDataPreprocessor
from oneformer3d.data.samples.views import LoadPosedViews
from oneformer3d.lifting import Camera
from oneformer3d.store import FeatureStore, FeatureStoreWriter
from tests.helpers.view_samples import AUGMENT, PACK, STAMP, dataset, infos_of, pair_set, views_of


def test_pairs_are_those_of_the_geometry(tiny_rooms, store):
    loaded = dataset(tiny_rooms, LoadPosedViews(str(store)))[1]
    views, frames = loaded['views'], loaded['scene'].frames[:-1]
    assert views.frames == tuple(frame.name for frame in frames)
    assert views.feat.shape == (len(frames), 4, 6, 8)
    assert views.feat.dtype == torch.float16
    assert views.feat[:, 0, 0, 0].tolist() == list(range(1, len(frames) + 1))
    assert views.clip_global[:, 0].tolist() == list(range(1, len(frames) + 1))
    points = torch.from_numpy(loaded['points'][:, :3])
    poses = torch.tensor(np.array([frame.world_from_cam for frame in frames])).float()
    infos = infos_of(tiny_rooms)[1]
    camera = Camera(torch.tensor(infos['cam2img']), poses, tuple(infos['image_size']))
    uv, z = camera.project(points)
    pairs = views.pairs
    assert len(pairs) > 0.5 * len(points)
    torch.testing.assert_close(pairs.uv, uv[pairs.view, pairs.point], atol=1e-2, rtol=0)
    torch.testing.assert_close(pairs.depth_z, z[pairs.view, pairs.point])
    assert (pairs.point.diff() >= 0).all()


def test_colours_at_the_pixels_are_those_of_the_points(tiny_rooms):
    loaded = dataset(tiny_rooms, LoadPosedViews())[0]
    views, points = loaded['views'], torch.from_numpy(loaded['points'])
    assert views.images.dtype == torch.uint8
    assert tuple(views.images.shape[2:]) == loaded['scene'].image_size
    u, v = (views.pairs.uv + 0.5).floor().long().unbind(1)
    seen = views.images[views.pairs.view, :, v, u].float()
    error = (seen - points[views.pairs.point, 3:]).abs().mean(1)
    assert error.median() < 25
    shuffled = (seen - points[views.pairs.point.flip(0), 3:]).abs().mean(1)
    assert shuffled.median() > 2 * error.median()


@pytest.mark.parametrize('seed', range(3))
def test_augmentation_leaves_the_sampled_pixels_unchanged(tiny_rooms, store, seed):
    plain = views_of(tiny_rooms, LoadPosedViews(str(store)))
    np.random.seed(seed)
    before = views_of(tiny_rooms, LoadPosedViews(str(store)), *AUGMENT)
    for name in ('point', 'view', 'uv', 'depth_z'):
        assert torch.equal(getattr(before.pairs, name), getattr(plain.pairs, name))
    np.random.seed(seed)
    after = views_of(tiny_rooms, *AUGMENT, LoadPosedViews(str(store)))
    differing = pair_set(plain.pairs) ^ pair_set(after.pairs)  # points on the tolerance's edge
    assert len(differing) < 0.005 * len(plain.pairs)
    if not differing:
        torch.testing.assert_close(after.pairs.uv, plain.pairs.uv, atol=0.05, rtol=0)


def test_augmented_points_project_where_the_original_ones_did(tiny_rooms, store):
    sample = dataset(tiny_rooms, LoadPosedViews(str(store)), *AUGMENT, *PACK)[2]
    views, points = sample['inputs']['views'], sample['inputs']['points'][:, :3]
    intrinsics = torch.tensor(infos_of(tiny_rooms)[2]['cam2img'])
    camera = Camera(intrinsics, views.augmented_from_cam, views.image_size)
    uv, _ = camera.project(points)
    pairs = views.pairs
    torch.testing.assert_close(pairs.uv, uv[pairs.view, pairs.point], atol=0.05, rtol=0)
    assert not torch.allclose(views.augmented_from_cam, views.world_from_cam)


def test_elastic_distortion_moves_no_pixel(tiny_rooms, store):
    elastic = {'type': 'ElasticDistortion', 'voxel_size': 0.05, 'prob': 1.0}
    sample = dataset(tiny_rooms, LoadPosedViews(str(store)), elastic, *PACK)[0]
    plain = views_of(tiny_rooms, LoadPosedViews(str(store)))
    assert torch.equal(sample['inputs']['views'].pairs.uv, plain.pairs.uv)


def test_number_and_choice_of_views(tiny_rooms, store):
    num_frames = len(infos_of(tiny_rooms)[0]['images']) - 1
    every = views_of(tiny_rooms, LoadPosedViews(str(store)))
    assert every.num_views == num_frames
    first = views_of(tiny_rooms, LoadPosedViews(str(store), num_views=2, select='first'))
    assert first.frames == every.frames[:2]
    even = views_of(tiny_rooms, LoadPosedViews(str(store), num_views=2, select='even'))
    assert even.frames == (every.frames[0], every.frames[-1])
    np.random.seed(0)
    scenes = dataset(tiny_rooms, LoadPosedViews(str(store), num_views=2, select='random'))
    drawn = {scenes[0]['views'].frames for _ in range(8)}
    assert len(drawn) > 1
    assert all(len(frames) == 2 for frames in drawn)
    # The pairs of a choice are those of its views among all pairs.
    expected = {(p, v) for p, v in pair_set(every.pairs) if v < 2}
    assert pair_set(first.pairs) == expected


def test_dropout_of_views_and_of_all_images(tiny_rooms, store):
    np.random.seed(0)
    transform = LoadPosedViews(str(store), view_dropout=0.5, image_dropout=0.4)
    scene = dataset(tiny_rooms, transform)
    drawn = [scene[0]['views'] for _ in range(200)]
    none = sum(views.num_views == 0 for views in drawn)
    masked = [views for views in drawn if views.pixels_masked]
    assert 20 <= none <= 75  # 0.2 of all, and now and then every view on its own
    assert 20 <= len(masked) <= 60
    # Masked pixels are masked by the network; the maps stay, as targets.
    assert all((views.feat > 0).all() for views in masked)
    counts = [views.num_views for views in drawn if views.num_views]
    num_frames = len(infos_of(tiny_rooms)[0]['images']) - 1
    assert 0.35 * num_frames < np.mean(counts) < 0.75 * num_frames


def test_masked_pixels_and_no_views(tiny_rooms, store):
    plain = views_of(tiny_rooms, LoadPosedViews(str(store)))
    masked = views_of(tiny_rooms, LoadPosedViews(str(store), hide='pixels'))
    assert masked.pixels_masked
    assert not masked.feat.any()
    assert not masked.clip_global.any()
    assert torch.equal(masked.pairs.uv, plain.pairs.uv)
    assert torch.equal(masked.world_from_cam, plain.world_from_cam)
    none = views_of(tiny_rooms, LoadPosedViews(str(store), hide='views'))
    assert none.num_views == len(none.pairs) == len(none.feat) == 0
    assert none.world_from_cam.shape == (0, 4, 4)


def test_batches_keep_views_as_they_are(tiny_rooms, store):
    scenes = dataset(tiny_rooms, LoadPosedViews(str(store), num_views=3), *PACK)
    scenes.pipeline.transforms[2].view_dropout = 0.5
    samples = [pickle.loads(pickle.dumps(scenes[index])) for index in range(4)]
    batch = SceneDataPreprocessor()(pseudo_collate(samples), training=True)
    for sample, views in zip(samples, batch['inputs']['views']):
        assert views.frames == sample['inputs']['views'].frames
        assert torch.equal(views.pairs.uv, sample['inputs']['views'].pairs.uv)
        assert views.augmented_from_original.dtype == torch.float32


def test_points_drawn_after_the_views_are_an_error(tiny_rooms, store):
    draw = {'type': 'SamplePoints', 'num_points': 100, 'replace': False}
    with pytest.raises(ValueError, match='after the points are drawn'):
        dataset(tiny_rooms, LoadPosedViews(str(store)), draw, *PACK)[0]


def test_scene_without_stored_frames(tiny_rooms, tmp_path):
    FeatureStoreWriter(tmp_path / 'empty', STAMP).close()
    with pytest.raises(ValueError, match='are unusable, more than 20 %: not in the store'):
        views_of(tiny_rooms, LoadPosedViews(str(tmp_path / 'empty')))
    with pytest.raises(ValueError, match='no features of scene'):
        views_of(tiny_rooms, LoadPosedViews(str(tmp_path / 'empty'), max_lost=1.0))
    views = views_of(tiny_rooms, LoadPosedViews(str(tmp_path / 'empty'), allow_missing=True))
    assert views.num_views == 0


def test_frames_that_the_store_lacks_are_counted_up_front(tiny_rooms, tmp_path, monkeypatch):
    every = dataset(tiny_rooms)
    scenes = [every.get_data_info(index)['scene'] for index in range(len(every))]
    num_frames = sum(len(scene.frames) for scene in scenes)
    with FeatureStoreWriter(tmp_path / 'store', STAMP) as writer:
        for scene in scenes:
            for frame in scene.frames[: len(scene.frames) // 2]:
                writer.put(scene.name, frame.name, {'feat': np.ones((4, 6, 8), np.float16)})

    with pytest.raises(ValueError, match=rf'of {num_frames} frames are unusable, more than 20 %'):
        dataset(tiny_rooms, LoadPosedViews(str(tmp_path / 'store')))

    # within the limit they are told
    told = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'handle', told.append)
    dataset(tiny_rooms, LoadPosedViews(str(tmp_path / 'store'), max_lost=0.9))
    assert 'frames left out: not in the store' in told[-1].getMessage()


def test_missing_store_is_found_out_at_first_use(tiny_rooms, tmp_path):
    transform = LoadPosedViews(str(tmp_path / 'none'))
    with pytest.raises(FileNotFoundError):
        views_of(tiny_rooms, transform)


def test_pose_that_is_no_rigid_motion_is_dropped(tiny_rooms, store):
    def spoil(results):
        images = [dict(image) for image in results['scene'].images]
        images[0]['world_from_cam'] = (2 * np.eye(4)).tolist()
        return {**results, 'scene': replace(results['scene'], images=images)}

    views = views_of(tiny_rooms, spoil, LoadPosedViews(str(store)))
    assert views.frames == views_of(tiny_rooms, LoadPosedViews(str(store))).frames[1:]


def test_store_of_the_fixture_holds_what_it_says(store, tiny_rooms):
    assert len(FeatureStore(store)) == sum(len(s['images']) - 1 for s in infos_of(tiny_rooms))


@pytest.mark.parametrize(
    'settings',
    [
        {'select': 'best'},
        {'hide': 'points'},
        {'occlusion': 'maybe'},
        {'view_dropout': 1.5},
        {'image_dropout': -0.1},
        {'num_views': -1},
        {'cache_bytes': -1},
    ],
)
def test_bad_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        LoadPosedViews(**settings)
