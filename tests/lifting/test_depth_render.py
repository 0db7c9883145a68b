"""Depth drawn from clouds against the room's walls, a loop over points, and both conventions."""

import pytest
import torch

from oneformer3d.lifting import (
    Visibility,
    drop_depth_edges,
    opencv_from_opengl,
    project,
    render_depth_from_pointcloud,
)
from tests.helpers.lifting_scenes import make_camera, room_depth, room_points

IMAGE = (48, 64)
SIZE = (64, 48)  # width first


def test_a_dense_cloud_draws_the_depth_it_came_from():
    camera = make_camera(2)
    depth = room_depth(camera)
    points = [camera[i].unproject(depth[i])[depth[i] > 0] for i in range(2)]
    for view in range(2):
        drawn = render_depth_from_pointcloud(
            points[view],
            camera.intrinsics[view],
            camera.world_from_cam[view],
            SIZE,
            visibility=Visibility(point_size=1),
        )
        torch.testing.assert_close(drawn, depth[view])


@pytest.mark.parametrize('point_size', [1, 3])
def test_equals_a_loop_over_points(point_size):
    camera, points = make_camera(3), room_points(200)
    drawn = render_depth_from_pointcloud(
        {'pos': points},
        camera.intrinsics,
        camera.world_from_cam,
        SIZE,
        visibility=Visibility(point_size=point_size),
    )
    for view in range(3):
        expected = torch.zeros(IMAGE, dtype=torch.float64)
        uv, z = project(points, camera.intrinsics[view], camera.world_from_cam[view])
        for (u, v), depth_z in zip(uv.tolist(), z.tolist()):
            if depth_z <= 0.05 or abs(u) > 1e4 or abs(v) > 1e4:
                continue
            reach = point_size // 2
            for row in range(round(v) - reach, round(v) + reach + 1):
                for column in range(round(u) - reach, round(u) + reach + 1):
                    if 0 <= row < 48 and 0 <= column < 64:
                        old = float(expected[row, column])
                        expected[row, column] = depth_z if old == 0 else min(old, depth_z)
        torch.testing.assert_close(drawn[view], expected)


def test_opengl_poses_draw_the_same():
    """A camera given with OpenGL axes: the columns y and z of its pose are negated by hand."""
    camera, points = make_camera(2), room_points(500)
    opengl = camera.world_from_cam.clone()
    opengl[:, :3, 1:3] *= -1
    expected = render_depth_from_pointcloud(points, camera.intrinsics, camera.world_from_cam, SIZE)
    found = render_depth_from_pointcloud(points, camera.intrinsics, opengl, SIZE, 'opengl')
    assert torch.equal(found, expected)
    assert torch.equal(opencv_from_opengl(opengl), camera.world_from_cam)
    # Read as OpenCV, that camera looks the other way.
    assert not torch.equal(
        render_depth_from_pointcloud(points, camera.intrinsics, opengl, SIZE), expected
    )


def test_edges_may_be_dropped():
    camera = make_camera(1)[0]
    depth = torch.full(IMAGE, 3.0, dtype=torch.float64)
    depth[:, 30:] = 1.5
    points = camera.unproject(depth).reshape(-1, 3)
    arguments = (points, camera.intrinsics, camera.world_from_cam, SIZE)
    kept = render_depth_from_pointcloud(
        *arguments, visibility=Visibility(point_size=1, edge_reject=True)
    )
    torch.testing.assert_close(kept, drop_depth_edges(depth))
    assert not kept[:, 29:31].any()
    assert (kept[:, :29] > 0).all()


def test_gradient_reaches_the_nearest_points_depth():
    camera = make_camera(1)[0]
    axis = camera.world_from_cam[:3, 2]
    points = camera.world_from_cam[:3, 3] + torch.tensor([[1.0], [2.0]]) * axis
    points.requires_grad_()
    drawn = render_depth_from_pointcloud(
        points,
        camera.intrinsics,
        camera.world_from_cam,
        SIZE,
        visibility=Visibility(point_size=1),
    )
    drawn.sum().backward()
    torch.testing.assert_close(points.grad[0], axis)
    assert not points.grad[1].any()


def test_empty_and_bad_input():
    camera = make_camera(2)
    arguments = (camera.intrinsics, camera.world_from_cam, SIZE)
    assert not render_depth_from_pointcloud(room_points(0), *arguments).any()
    none = render_depth_from_pointcloud(
        room_points(5), camera.intrinsics[:0], camera.world_from_cam[:0], SIZE
    )
    assert none.shape == (0, 48, 64)
    assert not render_depth_from_pointcloud(torch.full((3, 3), torch.nan), *arguments).any()
    with pytest.raises(KeyError, match="no 'pos'"):
        render_depth_from_pointcloud({'xyz': room_points(5)}, *arguments)
    with pytest.raises(ValueError, match='convention must be one of'):
        render_depth_from_pointcloud(room_points(5), *arguments, 'blender')
    with pytest.raises(ValueError, match='point_size must be odd'):
        render_depth_from_pointcloud(
            room_points(5), *arguments, visibility=Visibility(point_size=2)
        )
    with pytest.raises(ValueError, match=r'points: expected \(N, 3\)'):
        render_depth_from_pointcloud(room_points(5)[None], *arguments)


def test_height_first_is_doubted():
    """The other order gives a turned map without any error, so the intrinsics are asked."""
    points = torch.tensor([[0.0, 0.0, 1.0]])
    K = torch.tensor([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]])
    assert render_depth_from_pointcloud(points, K, torch.eye(4), (64, 48)).shape == (48, 64)
    with pytest.warns(UserWarning, match=r'resolution is \(width, height\)'):
        render_depth_from_pointcloud(points, K, torch.eye(4), (48, 64))
