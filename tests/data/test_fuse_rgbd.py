"""Fused frames: a room rendered in closed form comes back as its walls."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from oneformer3d.data.fuse_rgbd import (
    VoxelCloud,
    colored_points,
    depth_edges,
    fuse_folder,
    fuse_posed_rgbd,
)
from oneformer3d.data.posed_rgbd import load_posed_rgbd
from oneformer3d.files.left_out import LossRules
from oneformer3d.lifting.camera import project
from tests.helpers.rgbd_scenes import (
    ROOM,
    SIZE,
    WALL_COLORS,
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


def test_unreadable_images_are_left_out_and_counted(tmp_path):
    folder = write_seven_scenes(tmp_path / 'scene', render_views(4))
    for name in ('frame-000000.color.jpg', 'frame-000020.depth.png'):
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (folder / 'frame-000040.depth.png').write_bytes(b'')
    with pytest.raises(ValueError, match=r'of 4 frames are unusable, more than 20 %'):
        load_posed_rgbd(folder)
    rules = LossRules(max_lost=1.0)
    sequence = load_posed_rgbd(folder, rules=rules)
    scan = fuse_posed_rgbd(sequence, 0.1, rules=rules)
    assert scan.num_unreadable + len(sequence.left_out) == 3
    with pytest.raises(ValueError, match=r'0000.0: frame-0000.0'):
        fuse_posed_rgbd(sequence, 0.1, rules=LossRules(strict=True))
    assert [frame.name for frame in scan.frames] == ['000060']
    assert scan.frames[0].image_size == scan.frames[0].depth_size == SIZE
    (folder / 'frame-000060.depth.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'no usable frame|can be read'):
        fuse_posed_rgbd(load_posed_rgbd(folder, rules=rules), 0.1, rules=rules)


def test_depth_without_any_value_and_of_8_bits(tmp_path):
    folder = write_posed_images(tmp_path / 'scene', render_views(2))
    for name in ('00000.png', '00001.png'):
        Image.fromarray(np.zeros(SIZE, np.uint16)).save(folder / name)
    with pytest.raises(ValueError, match=r'no valid depth up to 5.0 m in any of 2 frames'):
        fuse_folder(folder)
    for name in ('00000.png', '00001.png'):
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(folder / name)
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


def test_real_frames(real_frames):
    sequence = load_posed_rgbd(real_frames)
    scan = fuse_posed_rgbd(sequence, 0.05)
    assert len(scan.points) > 15000
    assert scan.num_unreadable == 0
    # frames that look at the same surfaces share voxels
    alone = [fuse_posed_rgbd(replace(sequence, frames=(frame,)), 0.05) for frame in sequence.frames]
    assert len(scan.points) < 0.8 * sum(len(one.points) for one in alone)
