"""Recordings in every layout come out as the room they were rendered from."""

import json

import cv2
import numpy as np
import pytest

from oneformer3d.data.fuse_rgbd import fuse
from oneformer3d.data.layouts import find_layout, unknown_layout
from oneformer3d.data.layouts.pixels import read_color, read_depth
from tests.helpers import foreign_layouts as foreign
from tests.helpers import rgbd_scenes as rooms

NUMBERS = ' '.join(map(str, (rooms.K[0, 0], rooms.K[1, 1], rooms.K[0, 2], rooms.K[1, 2])))
MIRRORED = ' '.join(map(str, (rooms.K[0, 0], -rooms.K[1, 1], rooms.K[0, 2], rooms.K[1, 2])))
WRITERS = {
    '7-Scenes': (rooms.write_seven_scenes, {}),
    "ScanNet's export": (rooms.write_exported_scannet, {}),
    'posed_images': (rooms.write_posed_images, {}),
    'TUM RGB-D': (foreign.write_tum, {}),
    'Redwood': (foreign.write_redwood, {}),
    'Open3D': (foreign.write_open3d_json, {}),
    'Replica': (foreign.write_replica, {}),
    'slambook2': (foreign.write_slambook, {'intrinsics': NUMBERS}),
    'HoloLens': (foreign.write_hololens, {}),
    'nerfstudio': (foreign.write_nerfstudio, {}),
    'ARKitScenes': (foreign.write_arkitscenes, {}),
    'ScanNet++': (foreign.write_scannetpp, {}),
    'COLMAP': (foreign.write_colmap, {}),
}


@pytest.mark.parametrize('name', WRITERS)
def test_room_comes_back(tmp_path, name):
    write, options = WRITERS[name]
    views = rooms.render_views(6)
    found = find_layout(write(tmp_path / '4711', views), **options)
    assert name in found.source
    assert len(found.frames) == 6
    for frame, view in zip(found.frames, views):
        np.testing.assert_allclose(frame.world_from_cam, view.world_from_cam, atol=1e-6)
        np.testing.assert_allclose(frame.depth_intrinsics, rooms.K, atol=1e-9)
        depth = read_depth(frame)
        measured = depth > 0
        assert np.abs(depth - view.depth / 1000)[measured].max() < 2e-3
        assert read_color(frame).shape[:2] == frame.image_size
    points, poses = fuse(found, 0.1)
    assert poses.shape == (6, 4, 4)
    assert np.quantile(rooms.distance_to_walls(points[:, :3].astype(np.float64)), 0.9) < 0.003


def test_icl_nuim_is_mirrored_and_that_is_said(tmp_path):
    """fy < 0 means y up in the camera and in the world; both are turned over."""
    views = rooms.render_views(6)
    folder = foreign.write_icl_nuim(tmp_path / 'room', views)
    found = find_layout(folder, intrinsics=MIRRORED, depth_scale=5000)
    assert any('mirrored (6 frames)' in warning for warning in found.warnings)
    for frame, view in zip(found.frames, views):
        np.testing.assert_allclose(frame.world_from_cam, view.world_from_cam, atol=1e-6)
        np.testing.assert_allclose(frame.K, rooms.K)


def test_tum_by_associations_and_by_names(tmp_path):
    views = rooms.render_views(6)
    by_list = find_layout(foreign.write_tum(tmp_path / 'a', views, associations=True))
    folder = foreign.write_tum(tmp_path / 'b', views)
    for name in ('rgb.txt', 'depth.txt'):
        (folder / name).unlink()
    by_name = find_layout(folder)
    for found in (by_list, by_name):
        assert [frame.depth_scale for frame in found.frames] == [5000.0] * 6
        poses = [frame.world_from_cam for frame in found.frames]
        np.testing.assert_allclose(poses, [view.world_from_cam for view in views], atol=1e-6)
    # images that no pose is near are left out with their count
    lines = (folder / 'groundtruth.txt').read_text().splitlines()
    (folder / 'groundtruth.txt').write_text('\n'.join(lines[:-2]))
    short = find_layout(folder)
    assert len(short.frames) == 4
    assert any('2 of 6 colour images' in warning for warning in short.warnings)


@pytest.mark.parametrize('lens', [{'k1': -0.12, 'k2': 0.03, 'p1': 0.001}, {'k1': 0.05}])
@pytest.mark.parametrize('model', ['OPENCV', 'OPENCV_FISHEYE'])
def test_lens_distortion_is_taken_out(tmp_path, lens, model):
    """Images drawn through the lens come back as the pinhole images; maps of OpenCV's points."""
    if model == 'OPENCV_FISHEYE':
        lens = {key: value for key, value in lens.items() if key.startswith('k')}
    (view,) = rooms.render_views(1)
    height, width = rooms.SIZE
    v, u = np.mgrid[:height, :width].astype(np.float64)
    pixels = np.stack([u.ravel(), v.ravel()], -1)[:, None]  # (HW, 1, 2)

    # the distorted image shows at a pixel what the pinhole shows at its undistorted place
    if model == 'OPENCV':
        values = np.array([lens.get(key, 0.0) for key in ('k1', 'k2', 'p1', 'p2')])
        places = cv2.undistortPoints(pixels, rooms.K, values, P=rooms.K)
    else:
        values = np.array([lens.get(key, 0.0) for key in ('k1', 'k2', 'k3', 'k4')])
        places = cv2.fisheye.undistortPoints(pixels, rooms.K, values, P=rooms.K)
    maps = np.float32(places.reshape(height, width, 2))
    seen = [
        cv2.remap(image, maps[..., 0], maps[..., 1], cv2.INTER_NEAREST)
        for image in (view.color, view.depth)
    ]
    distorted = rooms.View(view.world_from_cam, *seen)
    folder = foreign.write_nerfstudio(tmp_path / 'ns', [distorted], {'camera_model': model, **lens})
    (frame,) = find_layout(folder).frames
    depth, expected = read_depth(frame), view.depth / 1000
    inner = (slice(8, -8), slice(8, -8))
    both = (depth[inner] > 0) & (expected[inner] > 0)
    assert both.mean() > 0.95
    assert np.quantile(np.abs(depth - expected)[inner][both], 0.95) < 0.08
    without = np.abs(seen[1] / 1000 - expected)[inner][both]
    assert np.abs(depth - expected)[inner][both].mean() < 0.5 * without.mean()


def test_nerfstudio_scales_and_mirrored_axes_are_undone(tmp_path):
    views = rooms.render_views(3)
    mirror = [[1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]  # exchanged axes: left-handed
    folder = foreign.write_nerfstudio(tmp_path / 'ns', views)
    content = json.loads((folder / 'transforms.json').read_text())
    content |= {'applied_scale': 0.5, 'applied_transform': mirror, 'depth_unit_scale_factor': 0.001}
    applied = np.eye(4)
    applied[:3] = mirror
    for frame in content['frames']:
        pose = applied @ np.array(frame['transform_matrix'])
        pose[:3, 3] *= 0.5
        frame['transform_matrix'] = pose.tolist()
    (folder / 'transforms.json').write_text(json.dumps(content))
    found = find_layout(folder)
    for frame, view in zip(found.frames, views):
        np.testing.assert_allclose(frame.world_from_cam, view.world_from_cam, atol=1e-6)


def test_posed_images_without_depth_have_no_points(tmp_path):
    folder = foreign.write_colmap(tmp_path / 'room', rooms.render_views(3), depth=False)
    found = find_layout(folder)
    assert not found.has_depth
    points, poses = fuse(found)
    np.testing.assert_allclose(points, [[0.5, 0.25, 1, 10, 20, 30], [1, 2, 3, 40, 50, 60]])
    found.cloud.unlink()
    points, poses = fuse(find_layout(folder))
    assert points.shape == (0, 6)
    assert poses.shape == (3, 4, 4)


def test_unknown_folder_is_told_what_it_holds(tmp_path):
    (tmp_path / 'photos').mkdir()
    for name in ('a.txt', 'b.jpg', 'c.jpg'):
        (tmp_path / name).write_bytes(b'no')
    assert find_layout(tmp_path) is None
    message = unknown_layout(tmp_path)
    assert 'found there: photos/, 2 .jpg (b.jpg, …), a.txt' in message
    assert 'transforms.json' in message


def test_names_that_differ_between_colour_and_depth(tmp_path):
    """Redwood's own recordings: the number is common, the time stamp behind it is not."""
    views = rooms.render_views(6)
    folder = foreign.write_redwood(tmp_path / 'loft', views)
    (folder / 'depth').rename(folder / 'depth_maps')
    for inner, step in (('color', 33369), ('depth_maps', 33401)):
        for index, path in enumerate(sorted((folder / inner).iterdir())):
            path.rename(path.with_name(f'{index + 1:07d}-{index * step:012d}{path.suffix}'))
    found = find_layout(folder)
    assert len(found.frames) == 6
    for frame, view in zip(found.frames, views):
        np.testing.assert_allclose(read_depth(frame), view.depth / 1000, atol=1e-6)
        np.testing.assert_allclose(frame.world_from_cam, view.world_from_cam, atol=1e-6)


def test_the_one_recording_inside_a_download_is_found(tmp_path):
    views = rooms.render_views(3)
    foreign.write_hololens(tmp_path / 'download' / 'data' / 'seq-01', views)
    assert len(find_layout(tmp_path / 'download').frames) == 3
    foreign.write_hololens(tmp_path / 'download' / 'data' / 'seq-02', views)
    assert find_layout(tmp_path / 'download') is None
    message = unknown_layout(tmp_path / 'download')
    assert message.endswith('holds 2 recordings, give one of them: data/seq-01, data/seq-02')


def test_nerfstudio_with_an_opening_angle_and_images_of_another_size(tmp_path):
    """As blender's files: no K at all; and K of the photographs beside smaller images."""
    folder = foreign.write_nerfstudio(tmp_path / 'ns', rooms.render_views(2))
    path = folder / 'transforms.json'
    content = json.loads(path.read_text())
    for frame in content['frames']:
        for key in ('w', 'h', 'fl_x', 'fl_y', 'cx', 'cy'):
            frame[key] *= 2
    content['frames'][0]['cx'], content['frames'][0]['cy'] = 63.5, 47.5
    path.write_text(json.dumps(content))
    np.testing.assert_allclose(find_layout(folder).frames[0].K, rooms.K, atol=1e-9)
    for frame in content['frames']:
        for key in ('w', 'h', 'fl_x', 'fl_y', 'cx', 'cy'):
            del frame[key]
    angle = 2 * np.arctan(rooms.SIZE[1] / 2 / rooms.K[0, 0])
    path.write_text(json.dumps(content | {'camera_angle_x': angle}))
    np.testing.assert_allclose(find_layout(folder).frames[1].K, rooms.K, atol=1e-9)


def test_paths_of_a_list_may_not_leave_the_folder(tmp_path):
    folder = foreign.write_tum(tmp_path / 'a', rooms.render_views(2), associations=True)
    path = folder / 'associations.txt'
    path.write_text(path.read_text().replace('rgb/', '../rgb/'))
    with pytest.raises(ValueError, match='not a relative path inside its folder'):
        find_layout(folder)
