"""Which way is up: on axes, on tilted cameras, on a tilted room."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oneformer3d.data.upright import (
    AXES,
    refine_up,
    rotation_to_z_up,
    up_from_axis,
    up_from_cameras,
    up_of_frames,
)


@pytest.mark.parametrize('name', AXES)
def test_axes_turn_to_z(name: str) -> None:
    rotation = rotation_to_z_up(up_from_axis(name))
    np.testing.assert_allclose(rotation @ up_from_axis(name), [0, 0, 1], atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_smallest_rotation_equals_scipys() -> None:
    for up in np.random.default_rng(0).normal(size=(20, 3)):
        rotation = rotation_to_z_up(up)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        np.testing.assert_allclose(rotation @ up / np.linalg.norm(up), [0, 0, 1], atol=1e-9)
        angle = np.arccos(up[2] / np.linalg.norm(up))
        assert Rotation.from_matrix(rotation).magnitude() == pytest.approx(angle)


@pytest.mark.parametrize('name', ['w', '', '--z', 'zx', '+z'])
def test_no_such_axis(name: str) -> None:
    with pytest.raises(ValueError, match='up: expected'):
        up_from_axis(name)


def test_cameras_that_look_around_know_up() -> None:
    # z-up world: a level camera looking along +y has x right, y down = -z, z forward = +y.
    level = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    poses = np.tile(np.eye(4), (36, 1, 1))
    for pose, yaw in zip(poses, range(0, 360, 10)):
        pose[:3, :3] = Rotation.from_euler('z', yaw, degrees=True).as_matrix() @ level
        pose[:3, :3] = pose[:3, :3] @ Rotation.from_euler('x', 20, degrees=True).as_matrix()
    np.testing.assert_allclose(up_from_cameras(poses), [0, 0, 1], atol=1e-6)


def test_cameras_that_disagree() -> None:
    poses = np.stack([np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])
    with pytest.raises(ValueError, match='which way is up'):
        up_from_cameras(poses)


def test_floor_of_a_tilted_room_is_found() -> None:
    rng = np.random.default_rng(0)
    floor = rng.uniform([0, 0, 0], [4, 3, 0], (2000, 3))
    table = rng.uniform([1, 1, 0.7], [2, 2, 0.7], (400, 3))
    wall = rng.uniform([0, 0, 0], [4, 0, 2.5], (1500, 3))
    room = np.concatenate([floor, table, wall]) + rng.normal(scale=0.003, size=(3900, 3))
    tilt = Rotation.from_euler('xyz', [8, -15, 40], degrees=True).as_matrix()
    true_up = tilt @ [0, 0, 1]
    refined = refine_up(room @ tilt.T, np.array([0.0, 0, 1]))
    assert np.degrees(np.arccos(refined @ true_up)) < 1
    assert np.degrees(np.arccos(true_up[2])) > 15


def test_without_surfaces_the_direction_stays() -> None:
    wall = np.random.default_rng(0).uniform([0, 0, 0], [4, 0, 2.5], (1500, 3))
    np.testing.assert_array_equal(refine_up(wall, np.array([0.0, 0, 1])), [0, 0, 1])


def test_a_camera_that_looks_down_finds_the_floor() -> None:
    rng = np.random.default_rng(0)
    floor = np.stack([*rng.uniform(-2, 2, (2, 4000)), np.zeros(4000)], axis=1)
    world_from_room = Rotation.from_euler('x', 90, degrees=True).as_matrix()  # up is -y
    tilt = Rotation.from_euler('x', 20, degrees=True).as_matrix()
    pose = np.eye(4)
    pose[:3, :3] = tilt
    up = up_of_frames(floor @ world_from_room.T, pose[None])
    assert np.degrees(np.arccos(-up[1])) < 0.5
    assert np.degrees(np.arccos(-up_from_cameras(pose[None])[1])) == pytest.approx(20)


def test_worlds_that_were_turned_already_stay() -> None:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler('x', -70, degrees=True).as_matrix()
    np.testing.assert_array_equal(up_of_frames(np.zeros((0, 3)), pose[None]), [0, 0, 1])
