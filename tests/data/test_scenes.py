"""A data root as records, against the infos they come from."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from oneformer3d.data.scenes import (
    check_point_files,
    find_data_root,
    make_scene,
    read_scene_list,
    read_scenes,
)


def infos_of(root, split='train') -> list[dict]:
    return json.loads((root / f'oneformer3d_infos_{split}.json').read_text())['data_list']


def test_records_say_what_the_infos_say(tiny_rooms):
    scenes = read_scenes(tiny_rooms, 'train')
    infos = infos_of(tiny_rooms)
    assert list(scenes) == [info['scene_id'] for info in infos]
    for info, scene in zip(infos, scenes.values()):
        assert scene.points_path == tiny_rooms / 'points' / info['lidar_points']['lidar_path']
        assert scene.image_size == tuple(info['image_size'])
        assert scene.depth_size == tuple(info['depth_size'])
        assert scene.class_table == 'synthetic'
        np.testing.assert_array_equal(scene.intrinsics, info['cam2img'])
        np.testing.assert_array_equal(scene.depth_intrinsics, info['depth2img'])
        for image, frame in zip(info['images'], scene.frames, strict=True):
            assert frame.key == f'{info["scene_id"]}/{image["frame"]}'
            assert frame.image_path == tiny_rooms / 'posed_images' / image['img_path']
            assert frame.depth_path == tiny_rooms / 'posed_images' / image['depth_path']
            assert frame.label_path('.semantic.png').is_file()
            np.testing.assert_array_equal(frame.world_from_cam, image['world_from_cam'])
            assert frame.fault is None


def test_cameras_of_many_frames_are_those_of_each(tiny_rooms):
    scene = next(iter(read_scenes(tiny_rooms).values()))
    cameras = scene.cameras(scene.frames)
    depth_cameras = scene.depth_cameras(scene.frames, (30, 40))
    assert cameras.batch_shape == (len(scene.frames),)
    for row, frame in enumerate(scene.frames):
        for many, one in (
            (cameras[row], frame.camera),
            (depth_cameras[row], frame.depth_camera((30, 40))),
        ):
            assert torch.equal(many.intrinsics, one.intrinsics)
            assert torch.equal(many.world_from_cam, one.world_from_cam)
            assert many.image_size == one.image_size
    assert scene.cameras([]).world_from_cam.shape == (0, 4, 4)
    assert replace(scene, depth_intrinsics=None).depth_cameras(scene.frames, (30, 40)) is None


def test_splits_and_names(tiny_rooms):
    train, val, every = (read_scenes(tiny_rooms, split) for split in ('train', 'val', None))
    assert set(every) == set(train) | set(val)
    two = list(every)[1::-1]
    assert list(read_scenes(tiny_rooms, names=two + two)) == two
    with pytest.raises(ValueError, match='no infos of 2 scenes: nowhere, nothing'):
        read_scenes(tiny_rooms, names=[*two, 'nowhere', 'nothing'])
    with pytest.raises(FileNotFoundError, match='no such infos file'):
        read_scenes(tiny_rooms, 'test')


def test_frames_are_made_when_asked_for_and_pickle_small(tiny_rooms, monkeypatch):
    monkeypatch.setattr('oneformer3d.data.scenes.Frame', None)
    scene = next(iter(read_scenes(tiny_rooms).values()))
    size = len(pickle.dumps(scene))
    monkeypatch.undo()
    assert size < 1.5 * len(pickle.dumps(scene.images)) + 2000
    again = pickle.loads(pickle.dumps(scene))
    assert [frame.name for frame in again.frames] == [frame.name for frame in scene.frames]
    assert all(frame.scene is again for frame in again.frames)


def test_a_pose_that_is_no_rigid_motion_is_a_fault(tiny_rooms):
    scene = next(iter(read_scenes(tiny_rooms).values()))
    images = [dict(image) for image in scene.images]
    images[1]['world_from_cam'] = (2 * np.eye(4)).tolist()
    scene = replace(scene, images=images)
    assert [frame.fault for frame in scene.frames[:2]] == [None, 'the pose is not a rigid motion']
    assert len(scene.usable_frames) == len(images) - 1
    assert replace(scene, images=[]).frames == ()


def test_paths_stay_in_their_folder(tiny_rooms, tmp_path):
    root = shutil.copytree(tiny_rooms, tmp_path / 'rooms')
    frame = next(iter(read_scenes(root).values())).frames[0]
    frame.image_path.unlink()
    frame.image_path.symlink_to(tmp_path / 'elsewhere.jpg')
    with pytest.raises(ValueError, match='leads out of its folder'):
        _ = frame.image_path
    with pytest.raises(ValueError, match='not a relative path inside its folder'):
        _ = replace(frame, depth_file='../secret.png').depth_path


def test_images_need_a_camera(tiny_rooms):
    info = infos_of(tiny_rooms)[0]
    del info['cam2img']
    with pytest.raises(ValueError, match='has images, but no image_size or no cam2img'):
        make_scene(info, 'points.bin', 'posed_images')
    assert make_scene({**info, 'images': {}}, 'points.bin', 'posed_images').frames == ()


def test_scene_lists_and_data_roots(tiny_rooms, tmp_path):
    path = tmp_path / 'list.txt'
    for text, fault in (('', 'holds no scenes'), ('../etc', 'not a scene name')):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf'list\.txt: .*{fault}'):
            read_scene_list(path)
    path.write_text('b a\nb\n')
    assert read_scene_list(path) == ['b', 'a', 'b']
    with pytest.raises(FileNotFoundError, match='give the data root'):
        find_data_root(str(path), None)
    with pytest.raises(FileNotFoundError, match='holds no oneformer3d_infos'):
        find_data_root(None, str(tmp_path))
    assert find_data_root(str(path), str(tiny_rooms)) == tiny_rooms


def test_missing_points_are_named(tiny_rooms):
    scene = next(iter(read_scenes(tiny_rooms).values()))
    check_point_files(scene.frames)
    elsewhere = replace(scene, points_path=tiny_rooms / 'none.bin')
    with pytest.raises(FileNotFoundError, match=r'1 scenes have no points .*none\.bin'):
        check_point_files(elsewhere.frames)
