"""Extraction of features from the images of a data root, through its Python interface."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.data.samples.views import LoadPosedViews
from oneformer3d.extraction.frames import list_frames, select_frames
from oneformer3d.extraction.run import (
    build_encoder,
    encode_batch,
    extract_features,
    extraction_stamp,
)
from oneformer3d.extraction.settings import make_settings
from oneformer3d.files.images import read_image
from oneformer3d.files.yaml import read_yaml
from oneformer3d.fusion.image_branch import ImageBranch
from oneformer3d.fusion.point_head import load_point_head
from oneformer3d.lifting import PixelPairs
from oneformer3d.lifting.pixel_shuffle import frozen_tokens, pixel_shuffle_features
from oneformer3d.lifting.sampling import gather_pairs
from oneformer3d.store import FeatureStore, FeatureStoreWriter, StampMismatchError, read_views
from oneformer3d.store.export import read_npz
from oneformer3d.structures import ViewBatch
from tests.helpers.clip_files import CHANNELS, EMBED_DIM, GRID, write_small_clip

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> str:
    return str(write_small_clip(tmp_path_factory.mktemp('clip') / 'clip.pth'))


@pytest.fixture
def settings(tiny_rooms, weights, tmp_path):
    return make_settings(
        {
            'data_root': str(tiny_rooms),
            'weights': weights,
            'output_dir': str(tmp_path / 'out'),
            'frames_per_scene': 2,
            'batch_size': 3,
        }
    )


def copy_of(root: Path, target: Path) -> Path:
    return Path(shutil.copytree(root, target))


def test_the_store_holds_what_the_encoder_gives(settings, weights):
    report = extract_features(settings)
    frames = list_frames(settings)
    assert report.num_new == report.num_encoded == len(frames) == 10
    encoder = ClipEncoder(weights=weights, dtype='fp16')
    with FeatureStore(settings.store_path, {'weights_digest': encoder.weights_digest}) as store:
        assert sorted(store) == sorted(frame.key for frame in frames)
        frame = frames[0]
        arrays = store.get(frame.scene.name, frame.name)
    with Image.open(frame.image_path) as image:
        whole = torch.from_numpy(np.asarray(image.convert('RGB')).copy()).permute(2, 0, 1)
    expected = encoder(whole[None])
    assert arrays['feat'].shape == (CHANNELS // 4, 2 * GRID[0], 2 * GRID[1])
    assert arrays['feat'].dtype == np.float16
    assert arrays['clip_global'].shape == (EMBED_DIM,)
    # channel 4c + 2i + j of a cell is pixel (i, j) of channel c after the shuffle
    unshuffled = torch.from_numpy(arrays['feat']).float()
    cells = unshuffled.unflatten(1, (-1, 2)).unflatten(3, (-1, 2))
    cells = cells.permute(0, 2, 4, 1, 3).reshape(CHANNELS, *GRID)
    # the image is squashed in 8 bit on the way, so the two agree to a grey level
    cosine = torch.cosine_similarity(cells, expected.feat[0].float(), dim=0)
    assert cosine.min() > 0.999


def test_exact_resize_equals_online_features(settings, weights):
    """The store that the online encoder would fill, up to rounding, under the same stamp."""
    extract_features(replace(settings, exact_resize=True, batch_size=1))
    encoder = ClipEncoder(weights=weights, dtype='fp16')
    store = FeatureStore(settings.store_path, expected_stamp=encoder.stamp(pixel_shuffle=2))
    frame = list_frames(settings)[3]
    with Image.open(frame.image_path) as image:
        whole = torch.from_numpy(np.asarray(image.convert('RGB')).copy()).permute(2, 0, 1)
    features = encoder(whole[None])
    arrays = store.get(frame.scene.name, frame.name)
    expected = pixel_shuffle_features(features.feat, 2)[0].numpy()
    np.testing.assert_allclose(arrays['feat'], expected, atol=2e-3)
    np.testing.assert_allclose(arrays['clip_global'], features.clip_global[0], atol=1e-5)


def test_point_features_through_a_trained_head(settings, tmp_path):
    """The image branch of a checkpoint gives what it gives to a segmentor with one view."""
    branch = ImageBranch(CHANNELS)
    state = {f'encoder.image_branch.{k}': v for k, v in branch.state_dict().items()}
    torch.save({'state_dict': {**state, 'decoder.x': torch.zeros(3)}}, tmp_path / 'head.pth')
    head = str(tmp_path / 'head.pth')
    extract_features(replace(settings, point_files=True, head=head, dtype='fp32'))
    frame = list_frames(settings)[0]
    path = Path(settings.output_dir) / frame.scene.name / f'frame_{frame.name}.npz'
    arrays = np.load(path, allow_pickle=False)
    stored = FeatureStore(settings.store_path).get(frame.scene.name, frame.name)['feat']
    feat = frozen_tokens(torch.from_numpy(stored), 2)
    point = np.flatnonzero(arrays['valid'])
    grid = torch.tensor(feat.shape[1:])
    height, width = frame.scene.image_size
    cells = torch.from_numpy((arrays['uv_idx'][point] + 0.5) / (width, height))
    cells = (cells * grid.flip(0) - 0.5).float()
    order = torch.arange(len(point))
    pairs = PixelPairs(order, torch.zeros_like(order), cells, torch.ones(len(point)))
    views = ViewBatch(feat[None].float(), torch.tensor([False]), pairs, (len(point),), (1,))
    with torch.no_grad():
        expected = branch.eval()(views).features
    np.testing.assert_allclose(arrays['pts_feat'][point], expected, atol=1e-4)
    assert 'trained: encoder.image_branch' in str(arrays['projection'])
    with pytest.raises(ValueError, match='expected one image branch'):
        load_point_head(head, channels=5)


def test_readers_get_tokens_in_which_views_of_a_point_agree(settings):
    """Beside the stored map, whose cells hold different channels of one token."""
    extract_features(replace(settings, frames_per_scene=0))
    scene = list_frames(settings)[0].scene
    load = LoadPosedViews(str(settings.store_path))
    points = np.fromfile(scene.points_path, dtype=np.float32).reshape(-1, 6)
    views = load({'scene': scene, 'points': points, 'augmented_from_original': np.eye(4)})['views']
    store = FeatureStore(settings.store_path)
    stored = np.stack([store.get(scene.name, name)['feat'] for name in views.frames])
    stored = torch.from_numpy(stored).float()
    tokens = views.feat.float()
    assert tokens.shape[1:] == (CHANNELS, *GRID)
    assert torch.equal(pixel_shuffle_features(tokens), stored)

    # two views of each point, which follow each other in the sorted pairs
    point = views.pairs.point
    first = (point[1:] == point[:-1]).nonzero()[:, 0]
    assert len(first) > 100

    def agreement(maps):
        rows, _ = gather_pairs(
            maps, views.pairs, views.image_size, num_points=len(points), reduce=None
        )
        rows = rows - rows.mean(0)
        return torch.cosine_similarity(rows[first], rows[first + 1]).mean()

    def share_of_cell_pattern(maps):
        """Energy at a period of two cells, as a share of all that varies."""
        power = torch.fft.fft2(maps - maps.mean((-2, -1), keepdim=True)).abs().square().sum((0, 1))
        height, width = power.shape
        return (power[height // 2].sum() + power[:, width // 2].sum()) / power.sum()

    assert agreement(tokens) > agreement(stored) + 0.15
    assert share_of_cell_pattern(stored) > 0.9
    assert share_of_cell_pattern(tokens) < 0.45  # of noise it would be 8 of 15 frequencies


def test_a_network_of_timm_takes_the_place_of_clip(settings, tmp_path):
    """The same content through store and reader; random weights are those of the seed."""
    timm = {'model': 'timm/vit_tiny_patch16_224', 'weights': 'none', 'input_size': [64, 96]}
    settings = replace(settings, output_dir=str(tmp_path), layers=None, seed=3, **timm)
    extract_features(replace(settings, exact_resize=True))
    frame = list_frames(settings)[0]
    store = FeatureStore(tmp_path)
    assert (store.stamp.encoder, store.stamp.token_channels) == (timm['model'], 192)

    image = torch.from_numpy(read_image(frame.image_path, frame.scene.image_size).copy())
    expected = build_encoder(settings)(image.permute(2, 0, 1)[None]).feat[0]
    content = read_views(store, frame.scene.name, [frame.name])
    torch.testing.assert_close(content['feat'][0], expected, atol=2e-2, rtol=1e-2)
    with pytest.raises(ValueError, match='mode: of timm/vit_tiny_patch16_224 only tokens'):
        build_encoder(replace(settings, mode='clip'))


def test_any_number_of_ranks_gives_the_same_bytes(settings, tmp_path):
    checksums = []
    for world_size in (1, 2, 3):
        shared = replace(settings, output_dir=str(tmp_path / f'ranks{world_size}'))
        counts = [
            extract_features(shared, rank=rank, world_size=world_size).num_new
            for rank in range(world_size)
        ]
        assert sum(counts) == 10
        assert len(list(shared.store_path.glob('features.*.lmdb'))) == world_size
        checksums.append(FeatureStore(shared.store_path).checksums())
    assert checksums[0] == checksums[1] == checksums[2]


def test_resume_computes_what_is_missing_only(settings, monkeypatch):
    full = extract_features(settings)
    checksums = FeatureStore(settings.store_path).checksums()
    again = extract_features(replace(settings, resume=True))
    assert (again.num_present, again.num_encoded, again.num_new) == (full.num_frames, 0, 0)
    unchanged = extract_features(settings)
    assert (unchanged.num_encoded, unchanged.num_new) == (full.num_frames, 0)
    assert FeatureStore(settings.store_path).checksums() == checksums


def test_an_interrupted_run_is_completed_to_the_same_bytes(settings, tmp_path):
    whole = replace(settings, output_dir=str(tmp_path / 'whole'))
    extract_features(whole)

    class Stopped(Exception):
        pass

    def stop_after_four(done: int, total: int) -> None:
        assert total == 10
        if done > 4:
            raise Stopped

    with pytest.raises(Stopped):
        extract_features(settings, progress=stop_after_four)
    part = FeatureStore(settings.store_path).checksums()
    assert 0 < len(part) < 10
    report = extract_features(replace(settings, resume=True), rank=1, world_size=2)
    report_0 = extract_features(replace(settings, resume=True), rank=0, world_size=2)
    assert report.num_present + report_0.num_present == len(part)
    expected = FeatureStore(whole.store_path).checksums()
    assert FeatureStore(settings.store_path).checksums() == expected
    assert {key: expected[key] for key in part} == part


def test_point_files_hold_the_sampled_map(settings, tiny_rooms):
    report = extract_features(replace(settings, vis=True))
    frames = list_frames(settings)
    for frame in frames:
        folder = Path(settings.output_dir) / frame.scene.name
        with np.load(folder / f'frame_{frame.name}.npz', allow_pickle=False) as content:
            arrays = dict(content)
        num_points = frame.scene.points_path.stat().st_size // 24
        assert arrays['pts_feat'].shape == (num_points, 128)
        assert arrays['pts_feat'].dtype == np.float32
        assert arrays['pts_feat_raw'].shape == (num_points, CHANNELS)
        assert arrays['uv_idx'].shape == (num_points, 2)
        assert 'not trained' in str(arrays['projection'])
        valid, confidence = arrays['valid'], arrays['conf_2d']
        assert 0 < valid.sum() < num_points
        assert (confidence[~valid] == 0).all()
        assert (confidence >= 0).all()
        assert (confidence <= 1).all()
        assert not arrays['pts_feat_raw'][~valid].any()
        with Image.open(folder / f'vis_{frame.name}.png') as picture:
            assert picture.width == 2 * picture.height
    # an orthogonal projection keeps lengths
    raw, projected = arrays['pts_feat_raw'].astype(np.float32), arrays['pts_feat']
    lengths = np.linalg.norm(raw, axis=1)
    np.testing.assert_allclose(np.linalg.norm(projected, axis=1), lengths, rtol=0.01, atol=0.01)
    assert report.file_bytes > 0


def test_uv_and_validity_by_hand(settings):
    """Projection through numpy's inverse, and the depth test pixel by pixel."""
    extract_features(replace(settings, point_files=True, frames_per_scene=1))
    frame = list_frames(settings)[0]
    path = Path(settings.output_dir) / frame.scene.name / f'frame_{frame.name}.npz'
    arrays = np.load(path, allow_pickle=False)
    points = np.fromfile(frame.scene.points_path, dtype=np.float32).reshape(-1, 6)[:, :3]
    in_cam = np.linalg.inv(frame.world_from_cam) @ np.c_[points, np.ones(len(points))].T
    pixels = frame.scene.intrinsics @ in_cam[:3]
    z = in_cam[2]
    front = z > 0.05
    uv = (pixels[:2] / z).T
    assert np.abs(uv - arrays['uv_idx'])[front & arrays['valid']].max() < 0.01
    depth = np.asarray(Image.open(frame.depth_path)).astype(np.float64) / 1000
    height, width = depth.shape
    column, row = np.floor(uv.T + 0.5)
    inside = front & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    measured = np.zeros(len(points))
    measured[inside] = depth[row[inside].astype(int), column[inside].astype(int)]
    valid = inside & (measured > 0) & (np.abs(z - measured) <= 0.05 + 0.01 * measured)
    assert (valid != arrays['valid']).sum() <= 2  # pixels on a rounding edge


def test_rates_agree_with_the_point_files(settings):
    report = extract_features(replace(settings, point_files=True))
    for scene, rate in report.scenes.items():
        files = sorted((Path(settings.output_dir) / scene).glob('frame_*.npz'))
        valid = np.stack([np.load(path)['valid'] for path in files])
        assert rate['frames'] == len(files) == 2
        assert rate['valid'] == pytest.approx(valid.mean())
        assert rate['covered'] == pytest.approx(valid.any(0).mean())
        assert rate['in_view'] >= rate['valid'] > 0


def test_unreadable_frames_are_left_out_with_their_reason(settings, tiny_rooms, tmp_path):
    root = copy_of(tiny_rooms, tmp_path / 'rooms')
    broken = replace(settings, data_root=str(root), rate_points=100)
    frames = list_frames(broken)
    cut, missing, other_size, bad_depth = frames[0], frames[1], frames[3], frames[4]
    cut.image_path.write_bytes(cut.image_path.read_bytes()[:500])
    missing.image_path.unlink()
    Image.new('RGB', (20, 10)).save(other_size.image_path)
    bad_depth.depth_path.write_bytes(b'no png')
    report = extract_features(broken)
    assert set(report.skipped) == {cut.key, missing.key, other_size.key}
    assert 'no such image' in report.skipped[missing.key]
    assert '10×20 pixels' in report.skipped[other_size.key]
    assert set(report.without_depth) == {bad_depth.key}
    keys = set(FeatureStore(broken.store_path))
    assert keys == {frame.key for frame in frames} - set(report.skipped)
    assert cut.key in report.table()
    with pytest.raises(ValueError, match=cut.key):
        extract_features(replace(broken, strict=True, output_dir=str(tmp_path / 'strict')))


def test_a_frame_without_rigid_pose_is_left_out(settings, tiny_rooms, tmp_path):
    root = copy_of(tiny_rooms, tmp_path / 'rooms')
    path = root / 'oneformer3d_infos_train.json'
    infos = json.loads(path.read_text())
    image = infos['data_list'][0]['images'][0]
    image['world_from_cam'][0][0] += 0.5
    path.write_text(json.dumps(infos))
    report = extract_features(replace(settings, data_root=str(root)))
    key = f'{infos["data_list"][0]["scene_id"]}/{image["frame"]}'
    assert report.skipped == {key: 'the pose is not a rigid motion'}


def test_other_weights_are_refused(settings):
    extract_features(settings)
    with pytest.raises(StampMismatchError, match='mode'):
        extract_features(replace(settings, mode='clip'))


@pytest.mark.parametrize('store', ['npz', 'h5'])
def test_other_formats_hold_the_same(settings, store, tmp_path):
    extract_features(settings)
    other = replace(settings, store=store, output_dir=str(tmp_path / store))
    report = extract_features(other)
    expected = FeatureStore(settings.store_path)
    assert FeatureStore(other.store_path).checksums() == expected.checksums()

    files = [*other.store_path.glob('*/*.npz'), *other.store_path.glob('*.h5')]
    shards = list(other.store_path.glob('*.lmdb'))
    assert report.store_bytes == sum(path.stat().st_size for path in [*files, *shards])
    assert len(files) == (len(expected) if store == 'npz' else 1)
    for key, arrays in expected.items():
        found = exported(other.store_path, store, key)
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


def exported(folder, store, key):
    if store == 'npz':
        return read_npz(folder / f'{key}.npz')
    with h5py.File(folder / 'features.r0000.h5') as file:
        return {name: dataset[()] for name, dataset in file[key].items()}


@pytest.mark.parametrize('store', ['npz', 'h5'])
def test_an_interrupted_run_loses_nothing_and_exports_at_its_end(settings, store):
    class Stopped(Exception):
        pass

    def stop_after_four(done: int, total: int) -> None:
        if done > 4:
            raise Stopped

    other = replace(settings, store=store)
    with pytest.raises(Stopped):
        extract_features(other, progress=stop_after_four)
    part = set(FeatureStore(other.store_path))
    assert 0 < len(part) < 10
    report = extract_features(replace(other, resume=True))
    assert report.num_present == len(part)
    assert len(FeatureStore(other.store_path)) == 10
    for key in FeatureStore(other.store_path):
        assert exported(other.store_path, store, key).keys() == {'feat', 'clip_global'}


@pytest.mark.parametrize('store', ['npz', 'h5'])
def test_the_last_rank_exports_what_all_have_stored(settings, store):
    other = replace(settings, store=store)
    stamp = extraction_stamp(build_encoder(settings), 2)
    with FeatureStoreWriter(other.store_path, stamp, rank=1):  # as if it were still at work
        extract_features(other, rank=0, world_size=2)
        assert not [*other.store_path.glob('*/*.npz'), *other.store_path.glob('*.h5')]
    extract_features(other, rank=1, world_size=2)
    keys = list(FeatureStore(other.store_path))
    assert len(keys) == 10
    for key in keys:
        assert exported(other.store_path, store, key).keys() == {'feat', 'clip_global'}


def test_an_error_while_writing_ends_the_run(settings, monkeypatch):
    def fail(self, scene, frame, arrays):
        raise OSError('no space left')

    monkeypatch.setattr('oneformer3d.store.FeatureStoreWriter.put', fail)
    with pytest.raises(OSError, match='no space left'):
        extract_features(settings)


def test_clip_maps_are_stored_as_they_are(settings, weights):
    extract_features(replace(settings, mode='clip', frames_per_scene=1))
    store = FeatureStore(settings.store_path)
    assert store.stamp.postprocessing == 'none'
    assert store.stamp.channels == EMBED_DIM
    feat = store.get(*next(store.keys()).split('/'))['feat'].astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(feat, axis=0), 1, atol=1e-3)


def test_random_weights_are_the_same_in_every_process(settings):
    config = replace(settings, model='ViT-S-32-alt', weights='none', seed=3)
    first, second = (build_encoder(config).weights_digest for _ in range(2))
    assert first == second


def test_out_of_memory_halves_the_batch(settings, weights):
    encoder = ClipEncoder(weights=weights)

    class Small(torch.nn.Module):
        mean = encoder.mean

        def forward(self, images):
            if len(images) > 2:
                raise torch.OutOfMemoryError('too much')
            return encoder(images)

    images = list(np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8))
    feat, embedding = encode_batch(Small(), images, 2)
    expected_feat, expected_embedding = encode_batch(encoder, images, 2)
    torch.testing.assert_close(feat, expected_feat, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embedding, expected_embedding, rtol=1e-4, atol=1e-5)


def test_frame_selection():
    frames = list(range(10))
    assert select_frames(frames, 3, 'first') == [0, 1, 2]
    assert select_frames(frames, 4, 'uniform') == [0, 3, 6, 9]
    drawn = select_frames(frames, 4, 'random', seed=5)
    assert drawn == sorted(set(drawn)) == select_frames(frames, 4, 'random', seed=5)
    assert drawn != select_frames(frames, 4, 'random', seed=6)
    assert select_frames(frames, 0, 'first') == select_frames(frames, 99, 'random') == frames


def test_draft_decoding_is_close_to_full_decoding(tmp_path):
    y, x = np.mgrid[:256, :320] / 40
    smooth = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1) * 100 + 127
    path = tmp_path / 'image.jpg'
    Image.fromarray(smooth.astype(np.uint8)).save(path, quality=95)
    with Image.open(path) as image:
        full = image.convert('RGB').resize((80, 64), Image.Resampling.BICUBIC)
    error = np.abs(read_image(path, (64, 80)).astype(int) - np.asarray(full).astype(int))
    assert error.mean() < 2


def test_the_committed_yaml_is_the_defaults(tmp_path):
    config = read_yaml(REPOSITORY / 'configs' / 'clip_feat.yaml')
    assert make_settings(config, {'data_root': 'x'}) == make_settings({'data_root': 'x'})


@pytest.mark.parametrize(
    ('bad', 'message'),
    [
        ({'batchsize': 3}, 'unknown settings batchsize'),
        ({'batch_size': 'many'}, 'batch_size should be int'),
        ({'batch_size': 0}, 'batch_size'),
        ({'store': 'zarr'}, 'store: expected one of'),
        ({'store': 'npz', 'vis': 1}, 'give store_dir'),
        ({'vis': 2}, 'vis should be bool'),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        make_settings({'data_root': 'x', **bad})


def test_yaml_that_makes_objects_is_refused(tmp_path):
    path = tmp_path / 'evil.yaml'
    path.write_text('model: !!python/object/apply:os.system ["true"]\n')
    with pytest.raises(ValueError, match='evil'):
        read_yaml(path)


def test_missing_scenes_are_all_named(settings, tiny_rooms, tmp_path):
    path = tmp_path / 'scenes.txt'
    path.write_text('room0000_00\nnowhere_00\nnowhere_01\n')
    with pytest.raises(ValueError, match='nowhere_00, nowhere_01'):
        extract_features(replace(settings, scenes_file=str(path)))
