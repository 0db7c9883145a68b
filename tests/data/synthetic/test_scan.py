"""One generated scene: contract, determinism, agreement of cloud and images."""

import time

import numpy as np
import pytest
import torch

from oneformer3d.data.synthetic import RoomSettings, generate_scene, tiny_settings
from oneformer3d.data.synthetic.classes import SYNTHETIC_CLASSES
from oneformer3d.lifting.camera import project


def test_arrays_have_the_documented_shapes_and_types(tiny_scan):
    num_points = len(tiny_scan.points)
    assert tiny_scan.points.shape == (num_points, 6)
    assert tiny_scan.points.dtype == np.float32
    assert np.isfinite(tiny_scan.points).all()
    assert 0 <= tiny_scan.points[:, 3:].min() < tiny_scan.points[:, 3:].max() <= 255
    for labels in (tiny_scan.superpoints, tiny_scan.semantic, tiny_scan.instance):
        assert labels.shape == (num_points,)
        assert labels.dtype == np.int64
    num_superpoints = tiny_scan.superpoints.max() + 1
    np.testing.assert_array_equal(np.unique(tiny_scan.superpoints), np.arange(num_superpoints))
    assert set(np.unique(tiny_scan.semantic)) <= set(range(len(SYNTHETIC_CLASSES) + 1))
    for frame in tiny_scan.frames:
        assert frame.color.shape == (72, 96, 3)
        assert frame.color.dtype == np.uint8
        assert frame.depth.dtype == np.uint16
        assert frame.semantic.shape == frame.instance.shape == frame.depth.shape == (72, 96)


def test_an_instance_has_one_class(tiny_scan):
    for instance_id in np.unique(tiny_scan.instance):
        if instance_id > 0:
            assert len(np.unique(tiny_scan.semantic[tiny_scan.instance == instance_id])) == 1


def test_same_seed_same_scene_other_seed_or_name_another(tiny_scan):
    again = generate_scene(0, tiny_settings())
    np.testing.assert_array_equal(again.points, tiny_scan.points)
    np.testing.assert_array_equal(again.superpoints, tiny_scan.superpoints)
    np.testing.assert_array_equal(again.frames[-1].color, tiny_scan.frames[-1].color)
    for other in (
        generate_scene(1, tiny_settings()),
        generate_scene(0, tiny_settings(), scene='room0001_00'),
    ):
        assert not np.array_equal(other.points[:50], tiny_scan.points[:50])


def test_every_point_is_seen_by_a_view_that_agrees_on_its_label(tiny_scan):
    seen = np.zeros(len(tiny_scan.points), dtype=bool)
    points = torch.from_numpy(tiny_scan.points[:, :3]).double()
    for frame in tiny_scan.frames:
        uv, z = project(
            points, torch.from_numpy(tiny_scan.intrinsics), torch.from_numpy(frame.world_from_cam)
        )
        u, v = np.round(uv.numpy()).astype(int).T
        inside = (z.numpy() > 0) & (u >= 0) & (v >= 0) & (u < 96) & (v < 72)
        u, v = np.where(inside, u, 0), np.where(inside, v, 0)
        seen |= (
            inside
            & (np.abs(frame.depth[v, u] / 1000.0 - z.numpy()) < 0.002)
            & ((frame.instance[v, u] == tiny_scan.instance) | (tiny_scan.semantic == 0))
        )
    assert seen.all()


def test_a_tiny_room_is_fast():
    generate_scene(0, tiny_settings())  # superpoints are compiled at first use
    start = time.perf_counter()
    generate_scene(2, tiny_settings())
    assert time.perf_counter() - start < 2.0


@pytest.mark.parametrize(
    'wrong',
    [
        {'num_views': 0},
        {'image_size': (8, 100)},
        {'point_spacing': 0.0},
        {'room_width': (1.0, 1.5)},
        {'num_panels': (3, 2)},
        {'num_chairs': (-1, 2)},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) if 'room' not in str(wrong) else '2 m'):
        RoomSettings(**wrong)


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match='seed'):
        generate_scene(-1, tiny_settings())


def test_default_rooms_have_pure_superpoints_and_the_promised_size():
    scan = generate_scene(7)
    assert 15_000 < len(scan.points) < 35_000
    label = scan.semantic * 1000 + scan.instance
    _, label = np.unique(label, return_inverse=True)
    votes = np.zeros((scan.superpoints.max() + 1, label.max() + 1), dtype=int)
    np.add.at(votes, (scan.superpoints, label), 1)
    assert votes.max(axis=1).sum() / len(label) > 0.97
    assert len(votes) < 0.04 * len(label)
