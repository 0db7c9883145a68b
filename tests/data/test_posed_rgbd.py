"""Posed RGB-D folders: a room rendered in closed form comes back as its walls."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from oneformer3d.data.convert.conversion import write_cloud
from oneformer3d.data.convert.posed_rgbd_dataset import convert_posed_rgbd
from oneformer3d.data.fuse_rgbd import (
    VoxelCloud,
    colored_points,
    depth_edges,
    fuse_folder,
    fuse_posed_rgbd,
)
from oneformer3d.data.infos import read_infos
from oneformer3d.data.posed_rgbd import load_posed_rgbd
from oneformer3d.lifting.camera import project
from tests.helpers.rgbd_scenes import (
    ROOM,
    SIZE,
    WALL_COLORS,
    K,
    distance_to_walls,
    render_views,
    write_exported_scannet,
    write_posed_images,
    write_seven_scenes,
)

WRITERS = (write_seven_scenes, write_exported_scannet, write_posed_images)


@pytest.mark.parametrize('write', WRITERS)
def test_fused_points_lie_on_the_walls_with_their_colors(tmp_path, write):
    folder = write(tmp_path / 'scene', render_views())
    points, poses = fuse_folder(folder, voxel_size=0.1)
    assert poses.shape == (6, 4, 4)
    assert points.dtype == np.float32
    assert points.shape[1] == 6
    assert len(points) > 300
    distance = distance_to_walls(points[:, :3].astype(np.float64))
    # A voxel's mean leaves the walls only where it holds two of them.
    assert np.quantile(distance, 0.9) < 0.002
    assert distance.max() < 0.1
    normal_axis = np.argmin(np.minimum(np.abs(points[:, :3]), np.abs(points[:, :3] - ROOM)), axis=1)
    flat = np.sort(np.minimum(np.abs(points[:, :3]), np.abs(points[:, :3] - ROOM)), 1)[:, 1] > 0.2
    error = np.abs(points[flat, 3:] - WALL_COLORS[normal_axis[flat]]).max(1)
    assert np.quantile(error, 0.95) < 12  # JPEG


@pytest.mark.parametrize('write', WRITERS)
def test_sequence_lists_frames_in_order(tmp_path, write):
    folder = write(tmp_path / 'scene', render_views(12))
    sequence = load_posed_rgbd(folder)
    assert len(sequence.frames) == 12
    expected = np.stack([view.world_from_cam for view in render_views(12)])
    np.testing.assert_allclose([f.world_from_cam for f in sequence.frames], expected, atol=1e-12)
    np.testing.assert_allclose(sequence.depth_intrinsics, K)
    every_fifth = load_posed_rgbd(folder, frame_step=5)
    assert [f.name for f in every_fifth.frames] == [f.name for f in sequence.frames[::5]]


def test_invalid_poses_are_dropped_and_counted(tmp_path):
    views = render_views(5)
    folder = write_seven_scenes(tmp_path / 'scene', views)
    pose = views[1].world_from_cam.copy()
    pose[:] = -np.inf
    np.savetxt(folder / 'frame-000020.pose.txt', pose)
    np.savetxt(folder / 'frame-000040.pose.txt', np.full((4, 4), np.nan))
    (folder / 'frame-000060.color.jpg').unlink()
    sequence = load_posed_rgbd(folder)
    assert [frame.name for frame in sequence.frames] == ['000000', '000080']
    assert sequence.num_dropped_poses == 2
    assert sequence.num_incomplete == 1


def test_unreadable_images_are_left_out_and_counted(tmp_path):
    folder = write_seven_scenes(tmp_path / 'scene', render_views(4))
    for name in ('frame-000000.color.jpg', 'frame-000020.depth.png'):
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (folder / 'frame-000040.depth.png').write_bytes(b'')
    scan = fuse_posed_rgbd(load_posed_rgbd(folder), 0.1)
    assert scan.num_unreadable == 3
    assert [frame.name for frame in scan.frames] == ['000060']
    assert scan.image_size == scan.depth_size == SIZE
    (folder / 'frame-000060.depth.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='none of 4 frames can be read'):
        fuse_folder(folder)


def test_missing_and_broken_input_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        load_posed_rgbd(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='no posed RGB-D frames'):
        load_posed_rgbd(tmp_path)
    folder = write_seven_scenes(tmp_path / 'scene', render_views(2))
    with pytest.raises(ValueError, match='frame_step'):
        load_posed_rgbd(folder, frame_step=0)
    np.savetxt(folder / 'frame-000000.pose.txt', np.eye(3))
    with pytest.raises(ValueError, match=r'frame-000000.pose.txt: expected 4×4'):
        load_posed_rgbd(folder)
    np.savetxt(folder / 'frame-000000.pose.txt', np.full((4, 4), np.nan))
    np.savetxt(folder / 'frame-000020.pose.txt', np.full((4, 4), np.inf))
    with pytest.raises(ValueError, match='no usable frame: 2 without a valid pose'):
        load_posed_rgbd(folder)
    (folder / 'camera-intrinsics.txt').write_text('a b c')
    with pytest.raises(ValueError, match='not a matrix of numbers'):
        load_posed_rgbd(folder)
    (folder / 'camera-intrinsics.txt').unlink()
    with pytest.raises(FileNotFoundError, match=r'color-intrinsics.txt: no such file'):
        load_posed_rgbd(folder)


def test_depth_without_any_value_and_changing_size(tmp_path):
    folder = write_posed_images(tmp_path / 'scene', render_views(2))
    for name in ('00000.png', '00001.png'):
        Image.fromarray(np.zeros(SIZE, np.uint16)).save(folder / name)
    with pytest.raises(ValueError, match=r'no valid depth up to 5.0 m in any of 2 frames'):
        fuse_folder(folder)
    Image.fromarray(np.zeros((10, 10), np.uint16)).save(folder / '00001.png')
    with pytest.raises(ValueError, match=r'00001.png: colour and depth are'):
        fuse_folder(folder)
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(folder / '00000.png')
    with pytest.raises(ValueError, match='expected a 16-bit depth image'):
        fuse_folder(folder)


def test_depth_edges_equal_a_loop():
    rng = np.random.default_rng(0)
    depth = rng.choice([0.0, 1.0, 1.02, 1.5], size=(12, 15), p=[0.2, 0.4, 0.3, 0.1])
    expected = np.zeros(depth.shape, bool)
    for v, u in np.argwhere(depth > 0):
        window = depth[max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2]
        window = window[window > 0]
        expected[v, u] = window.max() - window.min() > 0.03 * depth[v, u]
    assert np.array_equal(depth_edges(depth, 0.03), expected)


def test_color_comes_from_the_pixel_in_the_same_direction():
    """Depth and colour images of different size and field of view."""
    depth = np.full((20, 30), 2.0)
    depth_K = np.array([[30.0, 0, 14.5], [0, 30, 9.5], [0, 0, 1]])
    color_K = np.array([[100.0, 0, 20], [0, 100, 30], [0, 0, 1]])
    v, u = np.mgrid[:60, :50]
    color = np.stack((u, v, np.zeros_like(u)), -1).astype(np.uint8)
    points = colored_points(depth, color, depth_K, color_K, np.eye(4))
    uv = project(
        *(torch.tensor(x, dtype=torch.float64) for x in (points[:, :3], color_K, np.eye(4)))
    )
    np.testing.assert_allclose(points[:, 3:5], uv[0].numpy(), atol=0.5001)
    assert 0 < len(points) < depth.size  # the colour image sees less than depth does


def test_voxel_cloud_equals_a_dictionary(monkeypatch):
    monkeypatch.setattr('oneformer3d.data.fuse_rgbd._MAX_PENDING_ROWS', 100)
    rng = np.random.default_rng(1)
    cloud, voxels = VoxelCloud(0.5), {}
    for _ in range(7):
        points = rng.uniform(-1, 1, (200, 6))
        cloud.add(points)
        for point in points:
            voxels.setdefault(tuple(np.floor(point[:3] / 0.5)), []).append(point)
    expected = [np.mean(voxels[key], 0) for key in sorted(voxels)]
    np.testing.assert_allclose(cloud.mean_points(), expected, rtol=1e-5)
    many = [np.mean(voxels[key], 0) for key in sorted(voxels) if len(voxels[key]) >= 22]
    assert 0 < len(many) < len(expected)
    np.testing.assert_allclose(cloud.mean_points(22), many, rtol=1e-5)
    with pytest.raises(ValueError, match='voxel_size'):
        VoxelCloud(0)
    with pytest.raises(ValueError, match='m from the origin'):
        cloud.add(np.full((1, 6), 1e9))


def _turned(views, world_from_old):
    return [type(v)(world_from_old @ v.world_from_cam, v.color, v.depth) for v in views]


def test_dataset_is_upright_and_its_views_see_its_points(tmp_path):
    """A world whose y axis points down, as 7-Scenes has, comes out with z up."""
    y_down = np.array([[1.0, 0, 0, 5], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    write_seven_scenes(tmp_path / 'room', _turned(render_views(), y_down))
    out = tmp_path / 'out'
    options = {'voxel_size': 0.1, 'progress': False}
    assert convert_posed_rgbd(tmp_path / 'room', out, **options) == 1
    infos = read_infos(out / 'oneformer3d_infos_test.json')
    (scene,) = infos['data_list']
    points = np.fromfile(out / 'points' / 'room.bin', np.float32).reshape(-1, 6)
    superpoints = np.fromfile(out / 'super_points' / 'room.bin', np.int64)
    assert len(points) == len(superpoints)
    assert np.array_equal(np.unique(superpoints), np.arange(superpoints.max() + 1))
    extent = points[:, :3].max(0) - points[:, :3].min(0)
    assert extent[2] == pytest.approx(ROOM[2], abs=0.15)
    assert 'pts_semantic_mask_path' not in scene
    assert scene['image_size'] == list(SIZE)
    assert scene['num_dropped_poses'] == 0
    for image in scene['images']:
        pose = np.array(image['world_from_cam'])
        np.testing.assert_allclose(pose[:3, 1], [0, 0, -1], atol=0.02)  # the image's down
        folder = out / 'posed_images'
        written = np.loadtxt(folder / image['img_path'].replace('.jpg', '.txt'))
        np.testing.assert_allclose(written, pose, atol=1e-6)
        depth = np.asarray(Image.open(folder / image['depth_path']))
        assert depth[0, 0] == 0  # was 65535
        uv, z = project(
            *(torch.tensor(x).double() for x in (points[:, :3], scene['depth2img'], pose))
        )
        u, v = np.round(uv.numpy()).astype(int).T
        seen = (z.numpy() > 0.1) & (u >= 0) & (u < SIZE[1]) & (v >= 0) & (v < SIZE[0])
        measured = depth[v[seen], u[seen]] / 1000
        error = np.abs(measured - z.numpy()[seen])[measured > 0]
        assert np.median(error) < 0.02


def test_dataset_reruns_and_refuses_other_options(tmp_path, monkeypatch):
    for name in ('a', 'b'):
        write_posed_images(tmp_path / 'in' / name, render_views(3))
    out = tmp_path / 'out'
    assert convert_posed_rgbd(tmp_path / 'in', out, voxel_size=0.2, progress=False) == 2
    first = (out / 'oneformer3d_infos_test.json').read_bytes()
    (out / 'meta_data' / 'scenes' / 'b.json').unlink()  # as if the run had been killed in b
    converted = []
    monkeypatch.setattr(
        'oneformer3d.data.convert.posed_rgbd_dataset.write_cloud',
        lambda out, scene, *args, **kwargs: (
            converted.append(scene) or write_cloud(out, scene, *args, **kwargs)
        ),
    )
    assert convert_posed_rgbd(tmp_path / 'in', out, voxel_size=0.2, progress=False) == 2
    assert converted == ['b']
    assert (out / 'oneformer3d_infos_test.json').read_bytes() == first
    with pytest.raises(ValueError, match=r'was made with voxel_size 0.2, now asked for .* 0.3'):
        convert_posed_rgbd(tmp_path / 'in', out, voxel_size=0.3, progress=False)


def test_nothing_is_left_of_a_scene_that_fails(tmp_path):
    folder = write_posed_images(tmp_path / 'scene', render_views(2))
    Image.fromarray(np.zeros((10, 10), np.uint16)).save(folder / '00001.png')
    with pytest.raises(ValueError, match='colour and depth are'):
        convert_posed_rgbd(folder, tmp_path / 'out', progress=False)
    left = [path for path in (tmp_path / 'out').rglob('*') if path.is_file()]
    assert left == []
    with pytest.raises(FileNotFoundError, match='two folders below'):
        convert_posed_rgbd(tmp_path / 'out', tmp_path / 'out2', progress=False)


def test_broken_record_is_named(tmp_path):
    write_posed_images(tmp_path / 'scene', render_views(2))
    record = tmp_path / 'out' / 'meta_data' / 'scenes' / 'scene.json'
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps([1]))
    with pytest.raises(ValueError, match=r'scene.json: not a record'):
        convert_posed_rgbd(tmp_path / 'scene', tmp_path / 'out', progress=False)


def test_real_frames(real_frames):
    sequence = load_posed_rgbd(real_frames)
    scan = fuse_posed_rgbd(sequence, 0.05)
    assert len(scan.points) > 15000
    assert scan.num_unreadable == 0
    # frames that look at the same surfaces share voxels
    alone = [fuse_posed_rgbd(replace(sequence, frames=(frame,)), 0.05) for frame in sequence.frames]
    assert len(scan.points) < 0.8 * sum(len(one.points) for one in alone)


def test_colour_camera_of_7_scenes(real_frames, tmp_path):
    """With the depth intrinsics that 7-Scenes gives, colour gets the camera that was measured."""
    for path in real_frames.glob('frame-*'):
        (tmp_path / path.name).symlink_to(path)
    np.savetxt(tmp_path / 'camera-intrinsics.txt', [[585, 0, 320], [0, 585, 240], [0, 0, 1]])
    sequence = load_posed_rgbd(tmp_path)
    assert sequence.color_intrinsics[0, 0] < sequence.depth_intrinsics[0, 0] == 585
