"""Data sets on disk: layout, determinism, resuming, refusing to mix."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from oneformer3d.data.infos import read_infos
from oneformer3d.data.synthetic import files, generate_dataset, generate_scene, tiny_settings
from oneformer3d.data.synthetic.generate import STAMP_PATH

SETTINGS = tiny_settings()


def make(root, num_train=2, num_val=1, seed=0, **changes):
    options = {'num_workers': 1, 'progress': False, 'settings': SETTINGS, **changes}
    return generate_dataset(root, num_train, num_val, seed, **options)


def contents(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp('rooms')
    summary = make(root)
    assert summary.num_scenes == summary.num_generated == 3
    return root


def test_clouds_read_back_as_generated(dataset):
    scan = generate_scene(0, SETTINGS, 'room5000_00')
    points = np.fromfile(dataset / 'points/room5000_00.bin', np.float32).reshape(-1, 6)
    np.testing.assert_array_equal(points, scan.points)
    for folder, expected in (
        ('super_points', scan.superpoints),
        ('semantic_mask', scan.semantic),
        ('instance_mask', scan.instance),
    ):
        labels = np.fromfile(dataset / folder / 'room5000_00.bin', np.int64)
        np.testing.assert_array_equal(labels, expected)


def test_frames_read_back_as_generated(dataset):
    scan = generate_scene(0, SETTINGS, 'room0001_00')
    folder = dataset / 'posed_images/room0001_00'
    np.testing.assert_allclose(np.loadtxt(folder / 'intrinsic.txt'), scan.intrinsics, atol=1e-8)
    for index, frame in enumerate(scan.frames):
        stem = f'{folder}/{index:05d}'
        color = cv2.imread(f'{stem}.jpg')[..., ::-1].astype(int)
        assert np.abs(color - frame.color).mean() < 3.0  # JPEG
        for suffix, expected in (
            ('.png', frame.depth),
            ('.semantic.png', frame.semantic),
            ('.instance.png', frame.instance),
        ):
            image = cv2.imread(stem + suffix, cv2.IMREAD_UNCHANGED)
            assert image.dtype == expected.dtype
            np.testing.assert_array_equal(image, expected)
        np.testing.assert_allclose(np.loadtxt(f'{stem}.txt'), frame.world_from_cam, atol=1e-8)


def test_infos_and_scene_lists_name_what_is_there(dataset):
    train = read_infos(dataset / 'oneformer3d_infos_train.json')
    val = read_infos(dataset / 'oneformer3d_infos_val.json')
    assert train['metainfo']['dataset'] == 'synthetic'
    names = [scene['scene_id'] for scene in train['data_list']]
    assert names == ['room0000_00', 'room0001_00']
    assert [scene['scene_id'] for scene in val['data_list']] == ['room5000_00']
    lists = dataset / 'meta_data'
    assert (lists / 'synthetic_train.txt').read_text().split() == names
    assert (lists / 'synthetic_train_debug.txt').read_text().split() == names
    assert (lists / 'synthetic_val.txt').read_text().split() == ['room5000_00']
    for scene in train['data_list'] + val['data_list']:
        assert (dataset / 'points' / scene['lidar_points']['lidar_path']).is_file()
        assert len(scene['images']) == SETTINGS.num_views
        for image in scene['images']:
            assert (dataset / 'posed_images' / image['img_path']).is_file()
            assert (dataset / 'posed_images' / image['depth_path']).is_file()
            pose = (dataset / 'posed_images' / image['img_path']).with_suffix('.txt')
            np.testing.assert_allclose(image['world_from_cam'], np.loadtxt(pose))


def test_several_workers_write_the_same_bytes(dataset, tmp_path):
    make(tmp_path / 'two', num_workers=2)
    assert contents(tmp_path / 'two') == contents(dataset)


def test_a_second_run_makes_nothing_and_missing_scenes_come_back(tmp_path):
    make(tmp_path)
    before = contents(tmp_path)
    assert make(tmp_path).num_generated == 0
    (tmp_path / 'points/room0001_00.bin').unlink()
    assert make(tmp_path).num_generated == 1
    assert contents(tmp_path) == before


def test_a_set_grows_without_changing_its_scenes(tmp_path):
    make(tmp_path, num_train=1)
    before = contents(tmp_path)
    assert make(tmp_path, num_train=2).num_generated == 1
    after = contents(tmp_path)
    for name, content in before.items():
        if 'infos' not in name and 'meta_data' not in name:
            assert after[name] == content


def test_an_interrupted_scene_is_not_complete_and_leaves_no_scraps(tmp_path, monkeypatch):
    def full_disk(path, content):
        if path.parent.name == 'points':
            raise OSError('no space left')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(files, 'atomic_write_bytes', full_disk)
        with pytest.raises(OSError, match='no space left'):
            make(tmp_path, num_train=1, num_val=0)
    assert not (tmp_path / 'points').exists()
    assert make(tmp_path, num_train=1, num_val=0).num_generated == 1
    assert not [name for name in contents(tmp_path) if name.rsplit('/', 1)[-1].startswith('.')]


def test_other_seeds_and_settings_are_not_mixed_in(dataset):
    before = contents(dataset)
    with pytest.raises(ValueError, match='seed 0, asked for 1'):
        make(dataset, seed=1)
    with pytest.raises(ValueError, match='jpeg_quality 95, asked for 90'):
        make(dataset, settings=replace(SETTINGS, jpeg_quality=90))
    assert contents(dataset) == before


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / 'points').mkdir()
    with pytest.raises(ValueError, match='not made by this generator'):
        make(tmp_path)
    file = tmp_path / 'file'
    file.write_text('')
    with pytest.raises(ValueError, match='expected a folder'):
        make(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'points']


@pytest.mark.parametrize('content', ['not json', json.dumps([1])])
def test_a_broken_stamp_is_named(tmp_path, content):
    path = tmp_path / STAMP_PATH
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ValueError, match='synthetic_settings'):
        make(tmp_path)


@pytest.mark.parametrize(
    'wrong',
    [
        {'num_train': 0, 'num_val': 0},
        {'num_train': -1},
        {'seed': -1},
        {'num_train': 5001},
        {'num_workers': 0},
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(ValueError, match='expected'):
        make(tmp_path / 'new', **wrong)
    assert not (tmp_path / 'new').exists()
