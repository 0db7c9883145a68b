"""Cameras and what they leave out, on a drawn room whose parts are known."""

import numpy as np
import pytest
import torch

from oneformer3d.lifting.camera import is_valid_pose, project
from oneformer3d.visualization.render import points_in_camera
from oneformer3d.visualization.views import (
    behind_near_walls,
    below_ceiling,
    dollhouse_camera,
    fit_camera,
    top_camera,
)


def room(spacing: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """A 4 × 3 × 2.4 m box: points, and the part each belongs to (f, c, or the wall's side)."""
    x, y, z = (np.arange(0, end, spacing) for end in (4.0, 3.0, 2.4))
    faces = {
        'f': np.stack(np.meshgrid(x, y, [0.0]), -1),
        'c': np.stack(np.meshgrid(x, y, [2.4]), -1),
        '-x': np.stack(np.meshgrid([0.0], y, z), -1),
        '+x': np.stack(np.meshgrid([4.0], y, z), -1),
        '-y': np.stack(np.meshgrid(x, [0.0], z), -1),
        '+y': np.stack(np.meshgrid(x, [3.0], z), -1),
    }
    points = np.concatenate([face.reshape(-1, 3) for face in faces.values()])
    parts = np.repeat(list(faces), [face.size // 3 for face in faces.values()])
    return points, parts


@pytest.mark.parametrize('size', [(480, 640), (300, 200)])
@pytest.mark.parametrize('azimuth', [0.0, 45.0, 200.0])
def test_fitted_camera_shows_all_and_is_as_near_as_can_be(azimuth: float, size) -> None:
    points = np.random.default_rng(1).normal(size=(500, 3)) * [3, 1, 0.5] + [100, -50, 7]
    camera = dollhouse_camera(points, size, azimuth)
    pose = camera.world_from_cam
    assert bool(is_valid_pose(pose))
    uv, depth = project(torch.from_numpy(points), camera.intrinsics, pose)
    assert (depth > 0).all()
    # Within the free margin of 4 %, and touching both borders along one axis at least.
    low = (uv.min(0).values.numpy() + 0.5) / size[::-1]
    high = (uv.max(0).values.numpy() + 0.5) / size[::-1]
    assert (low > 0.04 - 1e-9).all()
    assert (high < 0.96 + 1e-9).all()
    assert (np.isclose(low, 0.04) & np.isclose(high, 0.96)).any()


def test_camera_stands_where_asked() -> None:
    points, _ = room()
    center = dollhouse_camera(points, (480, 640), azimuth_degrees=90.0).world_from_cam[:3, 3]
    assert center[1] > 3.0
    assert center[2] > 2.4
    assert abs(center[0] - 2.0) < 0.1


def test_resized_camera_sees_the_same() -> None:
    points, _ = room()
    camera = top_camera(points, (60, 80))
    fine = camera.resize((180, 240))
    args = torch.from_numpy(points), camera.world_from_cam
    uv, _ = project(args[0], camera.intrinsics, args[1])
    uv_fine, _ = project(args[0], fine.intrinsics, args[1])
    torch.testing.assert_close((uv_fine + 0.5) / 3, uv + 0.5)
    assert fine.image_size == (180, 240)


def test_top_view_has_the_long_side_across() -> None:
    points, _ = room()
    for cloud in (points, points[:, [1, 0, 2]]):
        camera = top_camera(cloud, (480, 640))
        uv, _ = project(
            torch.from_numpy(cloud),
            camera.intrinsics,
            camera.world_from_cam,
        )
        extent = uv.max(0).values - uv.min(0).values
        assert extent[0] > extent[1]


def test_one_point_and_a_flat_cloud_have_a_camera() -> None:
    for cloud in (np.zeros((1, 3)), np.array([[0.0, 0, 0], [1.0, 0, 0]])):
        for camera in (dollhouse_camera(cloud, (48, 64)), top_camera(cloud, (48, 64))):
            assert torch.isfinite(camera.world_from_cam).all()
            assert (points_in_camera(cloud, camera)[:, 2] > 0).all()


def test_large_coordinates_keep_their_precision() -> None:
    points, _ = room()
    far = points + np.array([4000.0, -6000.0, 100.0])
    near_camera = dollhouse_camera(points, (48, 64))
    camera = dollhouse_camera(far, (48, 64))
    np.testing.assert_allclose(
        points_in_camera(far, camera), points_in_camera(points, near_camera), atol=1e-3
    )


def test_ceiling_goes_and_walls_stay() -> None:
    points, parts = room()
    kept = below_ceiling(points)
    assert not kept[parts == 'c'].any()
    assert kept[parts == 'f'].all()
    walls = np.isin(parts, ['-x', '+x', '-y', '+y'])
    assert kept[walls].mean() > 0.85


@pytest.mark.parametrize('without', ['c', 'walls'])
def test_nothing_goes_without_a_ceiling(without: str) -> None:
    points, parts = room()
    points = points[parts != 'c'] if without == 'c' else points[parts == 'f']
    assert below_ceiling(points).all()


def test_only_the_near_walls_are_cut() -> None:
    points, parts = room()
    points, parts = points[parts != 'c'], parts[parts != 'c']
    kept = behind_near_walls(points, azimuth_degrees=45.0)
    high = points[:, 2] > 1.0
    inner = (points[:, :2] > 0.5).all(1) & (points[:, :2] < [3.5, 2.5]).all(1)
    for side in ('+x', '+y'):
        assert kept[(parts == side) & high].mean() < 0.1
        assert kept[(parts == side) & (points[:, 2] < 0.8)].all()
    middle = (points[:, 1] < 2.4) & (points[:, 0] < 3.4)
    assert kept[np.isin(parts, ['-x', '-y']) & high & middle].all()
    assert kept[inner].all()


def test_fit_camera_refuses_nothing_sensible() -> None:
    camera = fit_camera(np.zeros((1, 3)), np.array([0, 1.0, 0]), np.array([0, 0, 1.0]), (9, 9))
    np.testing.assert_allclose(camera.world_from_cam[:3, 2], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(camera.world_from_cam[:3, 1], [0, 0, -1], atol=1e-12)
