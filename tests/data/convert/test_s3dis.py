"""S3DIS' folder of text files in miniature."""

import numpy as np
import pytest
from mmengine.logging import MMLogger

from oneformer3d.data.convert.s3dis import convert_s3dis, read_object
from oneformer3d.data.infos import read_infos

OBJECTS = ('ceiling_1', 'chair_1', 'chair_2', 'chair_10', 'stairs_1', 'table_1')
RAW_IDS = {'ceiling': 0, 'chair': 8, 'stairs': 12, 'table': 7}


def _write_room(annotations, seed):
    annotations.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    parts = {}
    for k, name in enumerate(OBJECTS):
        xyz = rng.uniform(-3, 20, (4 + k, 3)).round(3)
        parts[name] = np.concatenate((xyz, rng.integers(0, 256, (4 + k, 3))), axis=1)
        np.savetxt(annotations / f'{name}.txt', parts[name], fmt='%.3f %.3f %.3f %d %d %d')
    return parts


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / 'Stanford3dDataset_v1.2_Aligned_Version'
    for area, room in ((1, 'office_1'), (1, 'office_2'), (5, 'hallway_6')):
        _write_room(root / f'Area_{area}' / room / 'Annotations', seed=area)
    (root / 'Area_1' / 'office_1' / 'office_1.txt').write_text('not read')
    return root


def test_room_is_converted(tree, tmp_path):
    out = tmp_path / 'out'
    counts = convert_s3dis(tree.parent, out, progress=False)
    assert counts == {'Area_1': 2, 'Area_5': 1, 'train': 2, 'val': 1}
    parts = _write_room(tmp_path / 'again', seed=5)
    points = np.fromfile(out / 'points' / 'Area_5_hallway_6.bin', np.float32).reshape(-1, 6)
    expected = np.concatenate(list(parts.values()))
    origin = expected[:, :3].min(0)
    np.testing.assert_allclose(points[:, :3], expected[:, :3] - origin, atol=1e-5)
    assert np.array_equal(points[:, 3:], expected[:, 3:])
    sizes = [len(part) for part in parts.values()]
    semantic = np.fromfile(out / 'semantic_mask' / 'Area_5_hallway_6.bin', np.int64)
    instance = np.fromfile(out / 'instance_mask' / 'Area_5_hallway_6.bin', np.int64)
    ids = [RAW_IDS[name.split('_')[0]] for name in parts]
    assert np.array_equal(semantic, np.repeat(ids, sizes))
    assert np.array_equal(instance, np.repeat(np.arange(1, 7), sizes))
    assert not (out / 'super_points').exists()


def test_infos_per_area_and_split(tree, tmp_path):
    out = tmp_path / 'out'
    convert_s3dis(tree, out, progress=False)
    for split, scenes in {
        'Area_1': ['Area_1_office_1', 'Area_1_office_2'],
        'Area_5': ['Area_5_hallway_6'],
        'train': ['Area_1_office_1', 'Area_1_office_2'],
        'val': ['Area_5_hallway_6'],
    }.items():
        infos = read_infos(out / f'oneformer3d_infos_{split}.json')
        assert infos['metainfo']['dataset'] == 's3dis'
        assert [scene['scene_id'] for scene in infos['data_list']] == scenes
        assert 'super_pts_path' not in infos['data_list'][0]
        listed = (out / 'meta_data' / f's3dis_{split}.txt').read_text().split()
        assert listed == scenes


def test_the_known_broken_line_is_read_and_others_are_named(tmp_path):
    path = tmp_path / 'ceiling_1.txt'
    path.write_bytes(b'1 2 3 10 20 30\n22.4 -6.2 3.0 185\x10187 189\n')
    assert read_object(path)[1].tolist() == [22.4, -6.2, 3.0, 185, 187, 189]
    path.write_bytes(b'1 2 3 10 20 30\n22.4 -6.2 3\x0e0 103.0\x100000 99.\x15 98\n')
    assert read_object(path)[1].tolist() == [22.4, -6.2, 3.0, 103, 99.5, 98]
    path.write_bytes(b'1 2 3 10 20 30\n1 2 3 10 2x 30\n')
    with pytest.raises(ValueError, match=r'ceiling_1.txt: line 2: expected x y z r g b'):
        read_object(path)
    path.write_bytes(b'1 2 3 10 20 30\n1 2 3 10 20 30\n1 2 3 10\n')
    with pytest.raises(ValueError, match=r'ceiling_1.txt: line 3'):
        read_object(path)
    path.write_bytes(b'1 2 3 10 20\n')
    with pytest.raises(ValueError, match='got 5 numbers'):
        read_object(path)
    path.write_bytes(b'1 2 3 10 20 30\nnan 2 3 10 20 30\n')
    with pytest.raises(ValueError, match='point 2: expected finite numbers'):
        read_object(path)
    path.write_bytes(b'1 2 3 10 20 256\n')
    with pytest.raises(ValueError, match='point 1: expected finite numbers and colours'):
        read_object(path)
    path.write_bytes(b'')
    with pytest.raises(ValueError, match=r'ceiling_1.txt: no points'):
        read_object(path)


def test_repairs_and_rooms_that_are_left_out_are_logged(tree, tmp_path, caplog):
    area = tree / 'Area_1'
    (area / 'office_1/Annotations').rename(area / 'office_1/annotations')
    ceiling = area / 'office_2/Annotations/ceiling_1.txt'
    ceiling.write_bytes(ceiling.read_bytes() + b'1 2 3 103.0\x100000 99 98\n')
    (area / 'office_3').mkdir()
    _write_room(area / 'office_4/Annotations', seed=4)
    (area / 'office_4/Annotations/table_1.txt').write_text('1 2 3 4 5 x')

    MMLogger.get_current_instance().addHandler(caplog.handler)
    counts = convert_s3dis(tree, tmp_path / 'out', areas=[1], progress=False)
    MMLogger.get_current_instance().removeHandler(caplog.handler)
    assert counts == {'Area_1': 2, 'train': 2}
    assert (
        f'{ceiling}: line 5 has a damaged character and is read as 1 2 3 103.00000' in caplog.text
    )
    assert f'{area / "office_3"}: left out: no folder Annotations' in caplog.text
    assert 'Area_1_office_4: left out: ' in caplog.text
    assert 'table_1.txt: line 1: expected x y z r g b' in caplog.text


def test_rerun_makes_only_what_is_missing(tree, tmp_path):
    out = tmp_path / 'out'
    convert_s3dis(tree, out, areas=[1], progress=False)
    made = (out / 'points' / 'Area_1_office_1.bin').stat().st_mtime_ns
    assert convert_s3dis(tree, out, progress=False)['val'] == 1
    assert (out / 'points' / 'Area_1_office_1.bin').stat().st_mtime_ns == made


def test_missing_folders(tree, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        convert_s3dis(tmp_path / 'nowhere', tmp_path / 'out')
    with pytest.raises(FileNotFoundError, match='none of Area_2, Area_3 is there'):
        convert_s3dis(tree, tmp_path / 'out', areas=[2, 3])
    (tree / 'Area_2').mkdir()
    with pytest.raises(FileNotFoundError, match='no rooms with a folder Annotations'):
        convert_s3dis(tree, tmp_path / 'out', areas=[2])
    (tree / 'Area_2' / 'lounge_1' / 'Annotations').mkdir(parents=True)
    with pytest.raises(ValueError, match='Annotations: no objects'):
        convert_s3dis(tree, tmp_path / 'out', areas=[2], progress=False)
