"""Infos: round trips, hostile names, hostile pickles, interrupted writes."""

import json
import os
import pickle
import signal
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from oneformer3d.data.infos import read_infos, write_infos
from oneformer3d.files.atomic import atomic_path, atomic_write_bytes
from oneformer3d.files.names import resolve_in_root, validate_relative_path, validate_scene_name
from tests.data.conftest import scene_infos


def infos_of(*scenes: dict) -> dict:
    return {'metainfo': {'dataset': 'scannet'}, 'data_list': list(scenes)}


def test_round_trip(tmp_path: Path) -> None:
    scenes = [scene_infos('scene0000_00'), scene_infos('scene0001_00')]
    scenes[1]['cam2img'] = np.array(scenes[1]['cam2img'], dtype=np.float32) + np.float32(0.1)
    scenes[1]['num_dropped_poses'] = np.int64(3)
    path = tmp_path / 'new' / 'infos.json'
    write_infos(path, infos_of(*scenes))
    assert len(path.read_text().splitlines()) == 4  # one line per scene
    infos = read_infos(path)
    assert infos['metainfo'] == {'dataset': 'scannet', 'schema_version': 1}
    assert [scene['scene_id'] for scene in infos['data_list']] == ['scene0000_00', 'scene0001_00']
    read = infos['data_list'][1]
    assert np.array_equal(np.array(read['cam2img'], dtype=np.float32), scenes[1]['cam2img'])
    assert read['num_dropped_poses'] == 3
    assert read['images'][0]['world_from_cam'] == np.eye(4).tolist()


def test_arguments_stay_as_they_are(tmp_path: Path) -> None:
    infos = {'data_list': [{'lidar_points': {'lidar_path': 'a.bin'}}]}
    write_infos(tmp_path / 'infos.json', infos)
    assert infos == {'data_list': [{'lidar_points': {'lidar_path': 'a.bin'}}]}
    assert read_infos(tmp_path / 'infos.json')['data_list'][0]['scene_id'] == 'a'


def test_no_scenes(tmp_path: Path) -> None:
    write_infos(tmp_path / 'infos.json', infos_of())
    assert read_infos(tmp_path / 'infos.json')['data_list'] == []


def broken(**changes: object) -> dict:
    return {**scene_infos('scene0000_00'), **changes}


@pytest.mark.parametrize(
    ('scene', 'fault'),
    [
        (['x'], 'expected an object, got list'),
        ({}, '"lidar_points" with "lidar_path" is missing'),
        (broken(lidar_points={'lidar_path': '../a.bin'}), 'lidar_path .*inside its folder'),
        (broken(lidar_points={'lidar_path': '/etc/passwd'}), 'lidar_path .*inside its folder'),
        (broken(lidar_points={'lidar_path': 'a.bin', 'num_pts_feats': 4}), 'should be 6'),
        (broken(scene_id='../up'), 'scene_id .*not a scene name'),
        (broken(super_pts_path='a/../../b'), 'super_pts_path .*inside its folder'),
        (broken(pts_semantic_mask_path=7), 'pts_semantic_mask_path 7: not a relative path'),
        (broken(cam2img=np.eye(4).tolist()), 'cam2img should be 3×3 finite'),
        (broken(cam2img=np.zeros((3, 3)).tolist()), 'cam2img is not the matrix of a camera'),
        (broken(cam2img=np.diag([500, 0, 1]).tolist()), 'cam2img is not the matrix of a camera'),
        (broken(cam2img=np.ones((3, 3)).tolist()), 'cam2img is not the matrix of a camera'),
        (
            broken(
                images=[
                    {
                        'frame': '07',
                        'img_path': 'a',
                        'world_from_cam': np.eye(4).tolist(),
                        'cam2img': np.zeros((3, 3)).tolist(),
                    }
                ]
            ),
            r'scene0000_00.*images\[0\] \(07\): cam2img is not the matrix of a camera',
        ),
        (broken(axis_align_matrix=[['a']]), 'axis_align_matrix should be 4×4 finite'),
        (broken(image_size=[0, 5]), 'image_size should be'),
        (broken(images=[{'frame': '0'}]), r'images\[0\]: img_path, world_from_cam missing'),
        (
            broken(images=[{'frame': '0', 'img_path': 'a', 'world_from_cam': [[1]]}]),
            'world_from_cam should be 4×4',
        ),
        (
            broken(images=[{'frame': '..', 'img_path': 'a', 'world_from_cam': []}]),
            'frame .*not a scene name',
        ),
    ],
)
def test_faulty_scene(tmp_path: Path, scene: dict, fault: str) -> None:
    path = tmp_path / 'infos.json'
    path.write_text(json.dumps(infos_of(scene), default=lambda array: array.tolist()))
    with pytest.raises(ValueError, match=rf'infos\.json: data_list\[0\].*{fault}') as caught:
        read_infos(path)
    assert '\n' not in str(caught.value)
    with pytest.raises(ValueError, match=fault):
        write_infos(tmp_path / 'out.json', infos_of(scene))
    assert not (tmp_path / 'out.json').exists()


@pytest.mark.parametrize(
    ('text', 'fault'),
    [
        ('', 'not valid JSON'),
        ('{"data_list": [', 'not valid JSON'),
        ('[1]', 'expected an object'),
        ('{"data_list": 3}', 'a list "data_list"'),
        ('{"metainfo": [], "data_list": []}', '"metainfo" should be an object'),
        ('{"metainfo": {"schema_version": 9}, "data_list": []}', 'schema_version 9 is not known'),
        ('{"data_list": [], "x": NaN}', 'NaN is not a finite number'),
        ('[' * 100_000, 'not valid JSON'),
        ('\udcff', 'not valid JSON'),
    ],
)
def test_faulty_file(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / 'infos.json'
    path.write_bytes(text.encode('utf-8', 'surrogateescape'))
    with pytest.raises(ValueError, match=rf'infos\.json: .*{fault}'):
        read_infos(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'none\.json: no such infos file'):
        read_infos(tmp_path / 'none.json')


def test_same_scene_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'data_list\[1\]: scene scene0000_00 is twice'):
        write_infos(tmp_path / 'i.json', infos_of(*[scene_infos('scene0000_00')] * 2))


@pytest.mark.parametrize('name', ['scene0000_00', 'Area_1.office-3', 'a' * 128, '.hidden'])
def test_scene_names(name: str) -> None:
    assert validate_scene_name(name) == name


@pytest.mark.parametrize(
    'name',
    ['', '.', '..', 'a/b', '/etc', 'a..b', 'a b', 'a\n', 'ü', 'a' * 129, 'a\0', '$(x)', None, 3],
)
def test_hostile_scene_names(name: object) -> None:
    with pytest.raises(ValueError, match='not a scene name'):
        validate_scene_name(name)


def test_resolve_in_root(tmp_path: Path) -> None:
    root = tmp_path / 'root'
    (root / 'deep').mkdir(parents=True)
    assert resolve_in_root(root, 'deep/new.bin') == root / 'deep' / 'new.bin'
    link = tmp_path / 'link'
    link.symlink_to(root)
    assert resolve_in_root(link, 'deep/new.bin') == root / 'deep' / 'new.bin'
    (root / 'out').symlink_to(tmp_path)
    with pytest.raises(ValueError, match='leads out of its folder'):
        resolve_in_root(root, 'out/secret')


@pytest.mark.parametrize('rel', ['', '/a', '../a', 'a/../../b', 'a\\b', 'C:/a', 'a\0b', None])
def test_hostile_paths(tmp_path: Path, rel: object) -> None:
    with pytest.raises(ValueError, match='not a relative path'):
        validate_relative_path(rel)


# --- pickles ------------------------------------------------------------------------------


def mmdet3d_like() -> dict:
    return {
        'metainfo': OrderedDict(dataset='scannet', info_version='1.1', categories={'cabinet': 0}),
        'data_list': [
            {
                'lidar_points': {'num_pts_feats': np.int64(6), 'lidar_path': 'scene0191_00.bin'},
                'super_pts_path': 'scene0191_00.bin',
                'axis_align_matrix': np.arange(16.0).reshape(4, 4).T,
                'instances': [{'bbox_3d': [0.5] * 6, 'bbox_label_3d': 3}],
                'extra': (1, b'bytes', None, True, {1, 2}, np.array(['a', 'bc'])),
                'big_endian': np.arange(3, dtype='>i4'),
                'scalar': np.float32(0.25),
            }
        ],
    }


@pytest.mark.parametrize('protocol', range(6))
def test_plain_pickle(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / 'infos.pkl'
    path.write_bytes(pickle.dumps(mmdet3d_like(), protocol=protocol))
    with pytest.raises(ValueError, match='only with allow_pickle=True'):
        read_infos(path)
    scene = read_infos(path, allow_pickle=True)['data_list'][0]
    expected = mmdet3d_like()['data_list'][0]
    assert scene['scene_id'] == 'scene0191_00'
    for key in ('axis_align_matrix', 'big_endian'):
        assert isinstance(scene[key], np.ndarray)
        assert scene[key].tolist() == expected[key].tolist()
    assert scene['extra'][:5] == expected['extra'][:5]
    assert scene['extra'][5].tolist() == ['a', 'bc']
    assert (scene['scalar'], scene['instances']) == (0.25, expected['instances'])


class Evil:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple:
        return self.reduced


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
@pytest.mark.parametrize('kind', ['system', 'eval', 'getattr', 'load', 'ndarray', 'object', 'void'])
def test_hostile_pickle(tmp_path: Path, kind: str, protocol: int) -> None:
    victim = tmp_path / 'victim'
    payload = {
        'system': lambda: Evil(os.system, f'touch {victim}'),
        'eval': lambda: Evil(eval, f'open({str(victim)!r}, "w")'),
        'getattr': lambda: Evil(getattr, 'x', 'join'),
        'load': lambda: Evil(np.load, str(victim)),
        'ndarray': lambda: Evil(np.ndarray, (3,)),
        'object': lambda: np.array([object, {}], dtype=object),
        'void': lambda: np.zeros(2, dtype=[('a', 'i4'), ('b', 'O')]),
    }[kind]()
    path = tmp_path / 'infos.pkl'
    path.write_bytes(pickle.dumps({'data_list': [payload]}, protocol=protocol))
    with pytest.raises(ValueError, match=r'infos\.pkl: not a pickle of plain data'):
        read_infos(path, allow_pickle=True)
    assert not victim.exists()


def test_truncated_pickle(tmp_path: Path) -> None:
    whole = pickle.dumps(mmdet3d_like(), protocol=4)
    path = tmp_path / 'infos.pkl'
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match='not a pickle of plain data'):
            read_infos(path, allow_pickle=True)


# --- atomic writes ------------------------------------------------------------------------


def test_atomic_path_keeps_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / 'a' / 'b.npy') as temporary:
        assert temporary.suffix == '.npy'
        np.save(temporary, np.arange(3))
    assert np.load(tmp_path / 'a' / 'b.npy').tolist() == [0, 1, 2]
    assert [p.name for p in (tmp_path / 'a').iterdir()] == ['b.npy']


@pytest.mark.parametrize('failing', ['fsync', 'replace', 'body'])
def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch, failing: str) -> None:
    path = tmp_path / 'file.json'
    atomic_write_bytes(path, b'old')

    def fail(*_: object) -> None:
        raise OSError('no space left')

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b'half of the n')
            if failing == 'body':
                fail()

    if failing != 'body':
        monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match='no space left'):
        write()
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / 'file.json'
    atomic_write_bytes(path, b'old')
    child = os.fork()
    if child == 0:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b'half')
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path.read_bytes() == b'old'
