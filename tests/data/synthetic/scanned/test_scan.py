"""Scanned rooms: the path of prediction, labels that belong, the same bytes again."""

from dataclasses import replace

import numpy as np
import pytest

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.data.fuse_rgbd import colored_points
from oneformer3d.data.infos import read_infos
from oneformer3d.data.scan import read_scan
from oneformer3d.data.superpoints import superpoints_from_points
from oneformer3d.data.synthetic import RoomScan, generate_dataset, tiny_settings
from oneformer3d.data.synthetic.classes import ROOMS_CLASSES, raw_id
from oneformer3d.data.synthetic.scanned.fuse import vote
from oneformer3d.data.synthetic.scanned.scan import generate_scanned_scene
from oneformer3d.data.synthetic.scanned.settings import ScannedSettings, small_scanned_settings
from oneformer3d.data.thinning import thin_scan

SETTINGS = small_scanned_settings()


@pytest.fixture(scope='module')
def scan() -> RoomScan:
    return generate_scanned_scene(0, SETTINGS, 'room0000_00')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('scanned')
    generate_dataset(root, 1, 1, 0, 1, progress=False, settings=SETTINGS, realism='scanned')
    return root


def test_points_are_those_that_prediction_makes_of_the_frames(root, scan) -> None:
    """What lies on disk is read as any folder of frames, and thinned as for prediction."""
    read = read_scan(root / 'posed_images/room0000_00')
    thinned = thin_scan(read.require_points(), SETTINGS.voxel_size)
    assert len(thinned.points) == len(scan.points)
    np.testing.assert_allclose(thinned.points[:, :3], scan.points[:, :3], atol=1e-4)
    # colours went through JPEG
    assert np.abs(thinned.points[:, 3:] - scan.points[:, 3:]).mean() < 6
    expected = superpoints_from_points(scan.points[:, :3], scan.points[:, 3:])
    np.testing.assert_array_equal(scan.superpoints, expected)


def test_labels_are_those_of_the_nearest_pixels(scan) -> None:
    """Most points have the label of the pixel next to them; the others lie between two things."""
    lifted = [
        colored_points(
            frame.depth / 1000.0,
            np.stack([frame.semantic, frame.instance, frame.instance], axis=2),
            *(scan.intrinsics, scan.intrinsics, frame.world_from_cam),
        )
        for frame in scan.frames
    ]
    lifted = np.concatenate(lifted)
    few = np.random.default_rng(0).choice(len(scan.points), 150, replace=False)
    for row in few:
        distance = ((lifted[:, :3] - scan.points[row, :3]) ** 2).sum(axis=1)
        near = lifted[distance < (2 * SETTINGS.voxel_size) ** 2]
        if scan.instance[row]:
            assert scan.instance[row] in near[:, 4]
        if scan.semantic[row]:
            assert scan.semantic[row] in near[:, 3]


def test_every_instance_has_one_class_and_enough_points(scan) -> None:
    stuff = [raw_id(name, ROOMS_CLASSES) for name in ('wall', 'floor', 'ceiling')]
    assert not np.isin(scan.semantic[scan.instance > 0], [0, *stuff]).any()
    for identity in np.unique(scan.instance[scan.instance > 0]):
        members = scan.instance == identity
        assert members.sum() >= SETTINGS.min_instance_points
        assert len(np.unique(scan.semantic[members])) == 1
    assert {raw_id('floor', ROOMS_CLASSES), raw_id('wall', ROOMS_CLASSES)} <= set(scan.semantic)


def test_the_name_and_the_seed_decide_everything(scan) -> None:
    again = generate_scanned_scene(0, SETTINGS, 'room0000_00')
    other = generate_scanned_scene(1, SETTINGS, 'room0000_00')
    for field in ('points', 'superpoints', 'semantic', 'instance'):
        np.testing.assert_array_equal(getattr(again, field), getattr(scan, field))
    assert len(other.points) != len(scan.points)


def test_errors_of_the_tracker_thicken_the_floor() -> None:
    """Without noise, tilt and pose errors the floor is a plane; with them as thick as real ones."""
    exact = replace(SETTINGS, pose_shift=(0, 0), pose_turn=(0, 0), depth_noise=(0, 0), tilt=0.0)
    thickness = []
    for settings in (exact, replace(exact, pose_shift=(0.015, 0.015), pose_turn=(0.35, 0.35))):
        scan = generate_scanned_scene(0, settings, 'room0000_00')
        floor = scan.semantic == raw_id('floor', ROOMS_CLASSES)
        thickness.append(scan.points[floor, 2].std())
    assert thickness[0] < 0.004 < thickness[1] < 0.06


def test_a_data_root_of_class_table_rooms(root) -> None:
    infos = read_infos(root / 'oneformer3d_infos_train.json')
    assert infos['metainfo']['dataset'] == 'rooms'
    semantic = np.fromfile(root / 'semantic_mask/room0000_00.bin', np.int64)
    assert (get_class_table('rooms').contiguous_from_raw(semantic) <= 23).all()


def test_roots_of_one_realism_are_not_mixed(root) -> None:
    with pytest.raises(ValueError, match='holds rooms made with'):
        generate_dataset(root, 1, 1, 0, 1, progress=False, settings=tiny_settings())
    with pytest.raises(ValueError, match='ScannedSettings'):
        generate_dataset(root, 1, 1, 0, 1, settings=tiny_settings(), realism='scanned')
    with pytest.raises(ValueError, match='realism'):
        generate_dataset(root, 1, 1, 0, 1, realism='true')


def test_votes_equal_a_count() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform(0, 1, (40, 3))
    votes = np.concatenate([rng.uniform(0, 1, (900, 3)), rng.integers(0, 5, (900, 1))], axis=1)
    ballots: dict[int, list[int]] = {}
    for vote_ in votes:
        distance = np.linalg.norm(xyz - vote_[:3], axis=1)
        if distance.min() < 0.1:
            ballots.setdefault(int(distance.argmin()), []).append(int(vote_[3]))
    winner = vote(xyz, votes, 0.1)
    for point in range(len(xyz)):
        counts = np.bincount(ballots.get(point, [0]), minlength=5)
        if point not in ballots:
            assert winner[point] == -1
        else:
            assert counts[winner[point]] == counts.max()


@pytest.mark.parametrize(
    'wrong',
    [{'room_size': (5.0, 4.0)}, {'image_size': (8, 8)}, {'voxel_size': 0.0}, {'num_views': (0, 3)}],
)
def test_settings_that_make_no_room(wrong) -> None:
    with pytest.raises(ValueError):
        ScannedSettings(**wrong)
