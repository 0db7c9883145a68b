"""Lifting in chunks against lifting at once; how often images are looked at; what is kept."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from oneformer3d.lifting import (
    EfficientFeatureLifting,
    MapCache,
    Visibility,
    build_aggregator,
    compute_feature_confidence,
    lift_features_to_points,
)
from oneformer3d.lifting.pixel_shuffle import pixel_shuffle_features
from oneformer3d.store import FeatureStore, FeatureStoreWriter, StoreStamp
from tests.helpers.lifting_scenes import make_camera, room_depth, room_points
from tests.lifting.test_memory import _temporary_bytes

IMAGE = (48, 64)
SINGLE = torch.float32


class _Extractor(nn.Module):
    """Two maps of strides 4 and 8; counts the images that it sees."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, channels, 4, 4)
        self.coarse = nn.Conv2d(3, channels, 8, 8)
        self.num_images = 0

    def forward(self, images):
        self.num_images += len(images)
        return {'feat_1/4': self.fine(images), 'feat_1/8': self.coarse(images)}


class _Model(nn.Module):
    """A network whose head looks at all points, so that it must not run in chunks."""

    def __init__(self, aggregator: str = 'mean') -> None:
        super().__init__()
        self.extractor = _Extractor()
        self.aggregator = build_aggregator(aggregator, 16)
        self.head = nn.Linear(19, 5)
        self.max_views, self.distance_decay, self.normal_voxel = None, 10.0, None
        self.num_calls = 0

    def extract_maps(self, images):
        return self.extractor(images)

    def classify_points(self, points, features):
        self.num_calls += 1
        rows = torch.cat((points, features), 1)
        return self.head(rows - rows.mean(0))


def _scene(num_views=4, num_points=700):
    camera = make_camera(num_views, SINGLE)
    images = torch.rand(num_views, 3, *IMAGE)
    return room_points(num_points, SINGLE), camera, images, room_depth(camera)


@pytest.mark.parametrize(
    'name', ['mean', 'max', 'confidence', 'attention', 'pooled', 'gated', 'transformer', None]
)
@pytest.mark.parametrize('occlusion', [None, 'zbuffer'])
def test_chunks_change_nothing(name, occlusion):
    points, camera, images, depth = _scene()
    maps = {k: v.detach() for k, v in _Extractor()(images).items()}
    aggregate = None
    if name is not None:
        settings = {'type': name}
        if name == 'transformer':
            settings |= {'d_model': 32, 'num_layers': 1, 'dim_feedforward': 32}
        aggregate = build_aggregator(settings, 16).eval()
    arguments = (points, maps, camera.intrinsics, camera.world_from_cam, IMAGE)
    options = {'aggregate': aggregate, 'visibility': Visibility(occlusion=occlusion)}
    if occlusion is None:
        options['depth'] = depth
    whole = EfficientFeatureLifting(chunk_size=10_000).lift(*arguments, **options)
    for lifting in (EfficientFeatureLifting(37), EfficientFeatureLifting(byte_budget=20_000)):
        pieces = lifting.lift(*arguments, **options)
        torch.testing.assert_close(pieces, whole, atol=1e-6, rtol=0)
    assert whole.shape == (700, 16)
    assert whole.isfinite().all()


def test_aggregates_what_lifting_gives():
    """Against the dense features and confidences of every point and view."""
    points, camera, images, depth = _scene()
    maps = {k: v.detach() for k, v in _Extractor()(images).items()}
    arguments = (points, maps, camera.intrinsics, camera.world_from_cam, IMAGE)
    normals = nn.functional.normalize(torch.randn(len(points), 3), dim=1)
    lifted, visible = lift_features_to_points(*arguments, depth, padding_mode='border')
    confidence = compute_feature_confidence(points, camera.world_from_cam, normals) * visible
    dense = lifted.transpose(0, 1), confidence.T
    lifting = EfficientFeatureLifting(100)
    aggregator = build_aggregator('attention', 16).eval()
    for aggregate in (aggregator, None):
        found = lifting.lift(*arguments, depth, aggregate=aggregate, normals=normals)
        if aggregate is None:
            total = confidence.sum(0)
            expected = (lifted * confidence[..., None]).sum(0) / total.clamp(min=1e-9)[:, None]
            expected[total == 0] = 0
        else:
            views = torch.arange(4).expand(len(points), 4)
            expected = aggregator(*dense, visible.T, view_ids=views).detach()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('chunk_size', [50, 10_000])
def test_the_point_network_runs_once_on_everything(chunk_size):
    points, camera, images, depth = _scene()
    model = _Model().eval()
    done = []
    lifting = EfficientFeatureLifting(chunk_size, progress=lambda *counts: done.append(counts))
    cameras = list(zip(camera.intrinsics, camera.world_from_cam))
    labels = lifting.process_large_pointcloud(points, model, cameras, list(images), depth)
    assert model.num_calls == 1
    assert model.extractor.num_images == 4
    assert done[-1] == (700, 700)
    assert len(done) == math.ceil(700 / chunk_size)
    # The same by hand, without chunks or cache.
    with torch.no_grad():
        lifted, visible = lift_features_to_points(
            points,
            model.extractor(images),
            camera.intrinsics,
            camera.world_from_cam,
            IMAGE,
            depth,
            padding_mode='border',
        )
        features = model.aggregator(lifted.transpose(0, 1), None, visible.T)
        expected = model.classify_points(points, features).argmax(1)
    assert (labels == expected).float().mean() > 0.995  # ties of rounding aside
    lifting.process_large_pointcloud(points, model, cameras, images, depth)
    assert model.extractor.num_images == 8  # four of them were the loop by hand


def test_further_columns_of_the_points_reach_the_network():
    points, camera, images, depth = _scene()
    model = _Model().eval()
    model.classify_points = lambda points, features: points[:, 3:]
    labels = EfficientFeatureLifting().process_large_pointcloud(
        torch.cat((points, torch.eye(5)[torch.arange(700) % 5]), 1), model,
        list(zip(camera.intrinsics, camera.world_from_cam)), images, depth,
    )  # fmt: skip
    assert torch.equal(labels, torch.arange(700) % 5)


def test_images_are_looked_at_once():
    images = torch.rand(5, 3, *IMAGE)
    extractor = _Extractor()
    lifting = EfficientFeatureLifting(image_batch=2)
    expected = {k: v.detach() for k, v in _Extractor.forward(extractor, images).items()}
    extractor.num_images = 0
    first = lifting.image_features(extractor, images)
    again = lifting.image_features(extractor, images[[4, 0, 0]])
    assert extractor.num_images == 5
    for name, maps in expected.items():
        torch.testing.assert_close(first[name], maps)
        torch.testing.assert_close(again[name], maps[[4, 0, 0]])
    # The same picture twice is one picture.
    lifting.image_features(extractor, torch.ones(3, 3, *IMAGE))
    assert extractor.num_images == 6


def test_new_weights_and_other_extractors_are_noticed():
    images, extractor = torch.rand(2, 3, *IMAGE), _Extractor()
    lifting = EfficientFeatureLifting()
    before = lifting.image_features(extractor, images)
    with torch.no_grad():
        extractor.fine.weight.mul_(2)
    after = lifting.image_features(extractor, images)
    assert extractor.num_images == 4
    assert not torch.equal(before['feat_1/4'], after['feat_1/4'])
    other = _Extractor()
    lifting.image_features(other, images)
    assert other.num_images == 2


def test_the_least_recently_used_go_first():
    def maps():
        return {'a': torch.zeros(4, 8, 8)}  # 1 KiB

    cache = MapCache(max_bytes=3 << 10)
    for name in 'abc':
        cache.put(name, maps())
    assert cache.get('a') is not None
    cache.put('d', maps())
    assert cache.get('b') is None
    assert [cache.get(x) is not None for x in 'acd'] == [True] * 3
    assert cache.num_bytes == 3 << 10
    cache.put('huge', {'a': torch.zeros(4, 64, 64)})
    assert cache.get('huge') is None
    assert len(cache) == 3
    cache.put('a', {'a': torch.zeros(2, 8, 8)})
    assert cache.num_bytes == (2 << 10) + 512
    cache.clear()
    assert (len(cache), cache.num_bytes) == (0, 0)
    # Kept maps do not hold their batch alive.
    batch = torch.zeros(100, 4, 8, 8)
    kept = cache.stored({'a': batch[3]})['a']
    assert kept.untyped_storage().nbytes() == 1 << 10
    assert MapCache(10, torch.float16).stored({'a': batch[0]})['a'].dtype == torch.float16


def test_maps_outlive_the_process_in_a_feature_store(tmp_path):
    stamp = StoreStamp(
        encoder='test', weights_digest='0' * 8, layer='two', mode='tokens', attn_mode='none',
        input_size=IMAGE, dtype='float32', preprocessing='none', channels=8, grid=(12, 16),
    )  # fmt: skip
    images, keys = torch.rand(3, 3, *IMAGE), [('room', f'{i:05}') for i in range(3)]
    extractor = _Extractor()
    with FeatureStoreWriter(tmp_path / 'store', stamp) as writer:
        lifting = EfficientFeatureLifting(cache_bytes=0, store=writer)
        first = lifting.image_features(extractor, images, keys)
        assert extractor.num_images == 3
        again = lifting.image_features(extractor, images, keys)
        assert extractor.num_images == 3
    for name, maps in first.items():
        assert torch.equal(again[name], maps)
    # Another process reads them: writing is not needed when all are there.
    later = EfficientFeatureLifting(store=FeatureStore(tmp_path / 'store', stamp))
    found = later.image_features(extractor, images, keys)
    assert extractor.num_images == 3
    assert torch.equal(found['feat_1/8'], first['feat_1/8'])
    with pytest.raises(ValueError, match='a store needs keys'):
        later.image_features(extractor, images)


@pytest.mark.parametrize('factor', [1, 2])
def test_single_maps_of_other_writers_are_read_as_tokens(tmp_path, factor):
    """Extraction deals tokens to more cells and names no maps."""
    stamp = StoreStamp(
        encoder='test', weights_digest='0' * 8, layer='last', mode='tokens', attn_mode='none',
        input_size=IMAGE, dtype='float32', preprocessing='none', channels=8 // factor**2,
        grid=(3 * factor, 4 * factor), postprocessing=f'pixel_shuffle{factor}',
    )  # fmt: skip
    tokens = torch.randn(2, 8, 3, 4)
    keys = [('a', '3'), ('a', '7')]
    with FeatureStoreWriter(tmp_path / 'store', stamp) as writer:
        for key, feat in zip(keys, pixel_shuffle_features(tokens, factor)):
            writer.put(*key, {'feat': feat.numpy(), 'clip_global': np.ones(3, dtype=np.float32)})

    lifting = EfficientFeatureLifting(store=FeatureStore(tmp_path / 'store', stamp))
    images = torch.rand(2, 3, *IMAGE)
    assert torch.equal(lifting.image_features(_Extractor(), images, keys)['feat'], tokens)


def test_maps_go_into_a_shuffled_store_and_come_back(tmp_path):
    stamp = StoreStamp(
        encoder='test', weights_digest='0' * 8, layer='two', mode='tokens', attn_mode='none',
        input_size=IMAGE, dtype='float32', preprocessing='none', channels=2, grid=(24, 32),
        postprocessing='pixel_shuffle2',
    )  # fmt: skip
    images, keys = torch.rand(1, 3, *IMAGE), [('room', '0')]
    with FeatureStoreWriter(tmp_path / 'store', stamp) as writer:
        lifting = EfficientFeatureLifting(cache_bytes=0, store=writer)
        first = lifting.image_features(_Extractor(), images, keys)
        again = lifting.image_features(_Extractor(), images, keys)
    assert list(again) == list(first)
    for name, maps in first.items():
        assert torch.equal(again[name], maps)


def test_temporary_memory_stays_within_the_budget():
    points, camera, _, _ = _scene(8, 12_000)
    maps = {'a': torch.randn(8, 64, 12, 16).contiguous(memory_format=torch.channels_last)}
    aggregator = build_aggregator('gated', 64).eval()
    budget = 2 << 20
    lifting = EfficientFeatureLifting(4000, byte_budget=budget)
    used = _temporary_bytes(
        lambda: lifting.lift(
            points, maps, camera.intrinsics, camera.world_from_cam, IMAGE, aggregate=aggregator
        )
    )
    chunk = 4000 * (2 * 60 + 4 * 64)  # pairs, confidences and the rows of one chunk of points
    assert 0 < used <= budget + chunk
    assert budget + chunk < 12_000 * 8 * 64 * 4  # the dense table would not fit


def test_a_bar_on_request(capsys):
    points, camera, images, _ = _scene()
    maps = {k: v.detach() for k, v in _Extractor()(images).items()}
    arguments = (points, maps, camera.intrinsics, camera.world_from_cam, IMAGE)
    EfficientFeatureLifting(100, progress=True).lift(*arguments)
    assert 'lifting: 100%' in capsys.readouterr().err
    EfficientFeatureLifting(100).lift(*arguments)
    assert capsys.readouterr().err == ''


def test_nothing_and_bad_input():
    points, camera, images, depth = _scene()
    cameras = list(zip(camera.intrinsics, camera.world_from_cam))
    lifting, model = EfficientFeatureLifting(), _Model().eval()
    labels = lifting.process_large_pointcloud(points[:0], model, cameras, images, depth)
    assert labels.shape == (0,)
    unseen = lifting.process_large_pointcloud(points + 1e3, model, cameras, images)
    assert unseen.shape == (700,)
    maps = model.extractor(images)
    empty = lifting.lift(points[:0], maps, camera.intrinsics, camera.world_from_cam, IMAGE)
    assert empty.shape == (0, 16)
    for message, call in (
        ('at least one, got 0', lambda: lifting.process_large_pointcloud(points, model, [], [])),
        ('got 3 and 4', lambda: lifting.process_large_pointcloud(
            points, model, cameras[:3], images)),
        ('no images', lambda: lifting.image_features(model.extractor, [])),
        ('2 keys for 4', lambda: lifting.image_features(model.extractor, images, [(0, 1)] * 2)),
        ('chunk_size', lambda: EfficientFeatureLifting(0)),
        ('cache_bytes', lambda: EfficientFeatureLifting(cache_bytes=-1)),
        ('image_batch', lambda: EfficientFeatureLifting(image_batch=0)),
        ('byte_budget', lambda: EfficientFeatureLifting(byte_budget=0)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match='no_such'):
        lifting.process_large_pointcloud(points, model, cameras, images, no_such=1)
