"""Camera geometry against closed forms, round trips and a plain per-point loop."""

import math

import numpy as np
import pytest
import torch

from oneformer3d.lifting import (
    invert_pose,
    is_valid_pose,
    project,
    resize_intrinsics,
    resize_pixels,
    unproject,
)
from tests.helpers.lifting_scenes import make_camera, room_points

K = torch.tensor([[500.0, 0.0, 319.5], [0.0, 510.0, 239.5], [0.0, 0.0, 1.0]], dtype=torch.float64)


def _pose(yaw: float = 0.7, pitch: float = -0.3, centre=(1.0, -2.0, 0.5)) -> torch.Tensor:
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    rotation_y = torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]], dtype=torch.float64)
    rotation_x = torch.tensor([[1, 0, 0], [0, cp, -sp], [0, sp, cp]], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = rotation_y @ rotation_x
    pose[:3, 3] = torch.tensor(centre, dtype=torch.float64)
    return pose


def test_camera_centre_and_optical_axis():
    pose = _pose()
    centre, forward, right, down = pose[:3, 3], pose[:3, 2], pose[:3, 0], pose[:3, 1]
    points = torch.stack((centre, centre + forward, centre + forward + 0.1 * right + 0.2 * down))
    uv, depth = project(points, K, pose)
    torch.testing.assert_close(depth, depth.new_tensor([0.0, 1.0, 1.0]), atol=1e-12, rtol=0)
    torch.testing.assert_close(uv[1], uv.new_tensor([319.5, 239.5]))
    torch.testing.assert_close(uv[2], uv.new_tensor([319.5 + 50.0, 239.5 + 102.0]))
    assert torch.isfinite(uv).all()  # the centre itself has no pixel, but a defined value


def test_points_behind_have_negative_depth():
    pose = _pose()
    _, depth = project((pose[:3, 3] - 2 * pose[:3, 2])[None], K, pose)
    assert depth.item() == pytest.approx(-2.0)


def test_project_inverts_unproject():
    depth = torch.rand(12, 17, dtype=torch.float64) * 4 + 0.3
    intrinsics = resize_intrinsics(K, (480, 640), (12, 17))
    points = unproject(depth, intrinsics, _pose())
    uv, depth_z = project(points.reshape(-1, 3), intrinsics, _pose())
    v, u = np.mgrid[:12, :17]
    np.testing.assert_allclose(uv.numpy(), np.stack((u, v), -1).reshape(-1, 2), atol=1e-9)
    torch.testing.assert_close(depth_z.reshape(12, 17), depth)


def test_project_equals_homogeneous_loop():
    points = torch.randn(20, 3, dtype=torch.float64) * 3
    uv, depth = project(points, K, _pose())
    cam_from_world = np.linalg.inv(_pose().numpy())
    for point, pixel, z in zip(points.numpy(), uv.numpy(), depth.numpy()):
        x_cam = cam_from_world @ np.append(point, 1.0)
        expected = K.numpy() @ x_cam[:3] / x_cam[2]
        np.testing.assert_allclose(pixel, expected[:2], rtol=1e-9)
        assert z == pytest.approx(x_cam[2])


def test_batched_views_equal_single_views():
    poses = torch.stack([_pose(yaw=0.1 * i) for i in range(3)])
    points = torch.randn(7, 3, dtype=torch.float64)
    uv, depth = project(points, K.expand(3, 3, 3), poses)
    assert uv.shape == (3, 7, 2)
    assert depth.shape == (3, 7)
    for i in range(3):
        uv_i, depth_i = project(points, K, poses[i])
        torch.testing.assert_close(uv[i], uv_i)
        torch.testing.assert_close(depth[i], depth_i)
    depths = torch.rand(3, 4, 5, dtype=torch.float64) + 1
    lifted = unproject(depths, K, poses)
    torch.testing.assert_close(lifted[2], unproject(depths[2], K, poses[2]))


def test_augmented_pose_projects_to_the_same_pixels_and_depth():
    """Scale, mirror and rotation applied to points and pose both change nothing in the image."""
    points = torch.randn(30, 3, dtype=torch.float64) * 2
    augmented_from_world = _pose(0.4, 0.2, (3.0, 1.0, -1.0))
    augmented_from_world[:3, :3] *= 0.8 * torch.tensor([[-1.0], [1.0], [1.0]])
    moved = points @ augmented_from_world[:3, :3].T + augmented_from_world[:3, 3]
    uv, depth = project(points, K, _pose())
    uv_moved, depth_moved = project(moved, K, augmented_from_world @ _pose())
    torch.testing.assert_close(uv_moved, uv)
    torch.testing.assert_close(depth_moved, depth)


def test_projection_gradient():
    points = (_pose()[:3, 3] + 2 * _pose()[:3, 2] + 0.1 * torch.randn(4, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: project(p, K, _pose()), (points,))


@pytest.mark.parametrize('size_to', [(240, 320), (120, 212), (968, 1296), (1, 1)])
def test_resize_follows_pixel_centres(size_to):
    """u' = (u + 0.5) W'/W - 0.5 for projected pixels, so image borders map to borders."""
    points = _pose()[:3, 3] + 2 * _pose()[:3, 2] + 0.3 * torch.randn(9, 3, dtype=torch.float64)
    uv, _ = project(points, K, _pose())
    resized, _ = project(points, resize_intrinsics(K, (480, 640), size_to), _pose())
    scale = torch.tensor([size_to[1] / 640, size_to[0] / 480], dtype=torch.float64)
    torch.testing.assert_close(resized, (uv + 0.5) * scale - 0.5)


def test_resize_keeps_the_principal_point_in_the_middle():
    resized = resize_intrinsics(K, (480, 640), (15, 20))
    assert resized[0, 2].item() == pytest.approx(9.5)
    assert resized[1, 2].item() == pytest.approx(7.0)
    assert K[0, 2].item() == 319.5


def test_invert_pose_round_trip():
    torch.testing.assert_close(
        invert_pose(_pose()) @ _pose(), torch.eye(4, dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_valid_poses():
    assert is_valid_pose(_pose())
    assert is_valid_pose(_pose().float())
    bad = {}
    for name in ('inf', 'nan', 'scaled', 'mirrored', 'sheared', 'last row'):
        bad[name] = _pose()
    bad['inf'][0, 3] = -math.inf
    bad['nan'][1, 1] = math.nan
    bad['scaled'][:3, :3] *= 1.01
    bad['mirrored'][:3, 0] *= -1
    bad['sheared'][:3, 0] = bad['sheared'][:3, 1]
    bad['last row'][3, 0] = 0.1
    assert {name for name, pose in bad.items() if is_valid_pose(pose)} == set()


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match='points: expected'):
        project(torch.zeros(4, 2), torch.eye(3), torch.eye(4))
    with pytest.raises(ValueError, match='intrinsics: expected'):
        project(torch.zeros(4, 3), torch.eye(4), torch.eye(4))
    with pytest.raises(ValueError, match='world_from_cam: expected'):
        project(torch.zeros(4, 3), torch.eye(3), torch.eye(3))
    with pytest.raises(ValueError, match='depth must be floating point'):
        unproject(torch.zeros(4, 3, dtype=torch.int32), torch.eye(3), torch.eye(4))
    with pytest.raises(ValueError, match='pose: expected'):
        is_valid_pose(torch.eye(3))
    with pytest.raises(ValueError, match='must be positive'):
        resize_intrinsics(torch.eye(3), (0, 4), (2, 2))


def test_pixels_are_resized_as_the_camera_is():
    camera, points = make_camera(2), room_points(30)
    expected = camera.resize((20, 90)).project(points)[0]
    found = resize_pixels(camera.project(points)[0], camera.image_size, (20, 90))
    torch.testing.assert_close(found, expected)
