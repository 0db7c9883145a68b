"""Which frames are looked at, and poses between frames."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from oneformer3d.data.doctor.align import motion_size, rigid
from oneformer3d.data.doctor.conventions import pose_changes, quaternion_of, rotation_of
from oneformer3d.data.doctor.frames import choose_frames
from oneformer3d.data.doctor.tracks import poses_at


def test_groups_of_neighbours_in_long_sequences():
    chosen = choose_frames(1000, 24)
    assert len(chosen) == len(set(chosen)) == 24
    assert max(chosen) < 1000
    assert (np.diff(chosen) <= 3).sum() >= 8
    assert np.diff([0, *chosen, 999]).max() < 250
    assert choose_frames(7, 24) == list(range(7))


def test_poses_between_frames_are_those_of_slerp():
    rotations = Rotation.from_rotvec([[0, 0, 0], [0.02, 0.05, -0.03]])
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, :3, :3] = rotations.as_matrix()
    poses[1, :3, 3] = [1, 2, 3]
    found = poses_at(poses, np.array([0.0, 0.5, 1.0, 1.5, -1.0]))
    middle = Slerp([0, 1], rotations)(0.5).as_matrix()
    np.testing.assert_allclose(found[1, :3, :3], middle, atol=1e-6)
    np.testing.assert_allclose(found[1, :3, 3], [0.5, 1, 1.5])
    np.testing.assert_array_equal(found[[0, 2]], poses)
    assert np.isnan(found[3:]).all()


def test_rotations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(20, 6))
    motions = rigid(steps)
    expected = Rotation.from_rotvec(steps[:, :3])
    np.testing.assert_allclose(motions[:, :3, :3], expected.as_matrix(), atol=1e-12)
    length, angle = motion_size(motions)
    np.testing.assert_allclose(length, np.linalg.norm(steps[:, 3:], axis=1))
    np.testing.assert_allclose(angle, np.degrees(expected.magnitude()), rtol=1e-6)
    quaternion = quaternion_of(expected.as_matrix())
    assert (np.abs((quaternion * expected.as_quat()).sum(1)) > 1 - 1e-9).all()
    np.testing.assert_allclose(rotation_of(quaternion), expected.as_matrix(), atol=1e-12)


@pytest.mark.parametrize('index', [0, 100, 300, -1])
def test_changed_poses_are_rigid_motions(index):
    poses = rigid(np.random.default_rng(1).normal(size=(5, 6)))
    changed = pose_changes()[index].poses(poses)
    rotation = changed[:, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.swapaxes(1, 2), [np.eye(3)] * 5, atol=1e-9)
    assert (np.linalg.det(rotation) > 0).all()


def test_pose_changes_are_all_different():
    pose = rigid(np.random.default_rng(2).normal(size=(1, 6)))
    found = {change.poses(pose).round(6).tobytes() for change in pose_changes()}
    assert len(found) == len(pose_changes()) == 3 * 4 * 48 - 1
