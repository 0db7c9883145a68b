"""Rooms: complete, inside their walls, free of collisions, same for the same seed."""

from collections import Counter

import numpy as np
import pytest

from oneformer3d.data.synthetic.classes import SYNTHETIC_CLASSES, SYNTHETIC_PATTERN_GROUPS, raw_id
from oneformer3d.data.synthetic.furniture import BUILDERS
from oneformer3d.data.synthetic.layout import draw_group, make_room
from oneformer3d.data.synthetic.settings import RoomSettings

PANELS = {raw_id(name) for name in SYNTHETIC_PATTERN_GROUPS[0]}
SEEDS = range(6)


@pytest.fixture(scope='module')
def rooms():
    return [make_room(np.random.default_rng(seed), RoomSettings()) for seed in SEEDS]


def bounds_of(thing):
    vertices = np.concatenate([np.asarray(part.mesh.vertices) for part in thing.parts])
    rotation, translation = thing.world_from_object[:3, :3], thing.world_from_object[:3, 3]
    vertices = vertices @ rotation.T + translation
    return vertices.min(axis=0), vertices.max(axis=0)


def test_objects_are_inside_the_room(rooms):
    for room in rooms:
        for thing in room.objects:
            low, high = bounds_of(thing)
            assert (low > room.low - 1e-6).all()
            assert (high < room.high + 1e-6).all()


def test_objects_do_not_pass_through_each_other(rooms):
    for room in rooms:
        boxes = [bounds_of(thing) for thing in room.objects if thing.raw_id > 3]
        for i, (low, high) in enumerate(boxes):
            for other_low, other_high in boxes[:i]:
                apart = (high <= other_low) | (other_high <= low)
                assert apart.any(), 'axis-aligned boxes of two objects overlap'


def test_instances_are_numbered_and_clutter_and_stuff_have_none(rooms):
    for room in rooms:
        ids = [thing.instance_id for thing in room.objects if thing.raw_id > 3]
        assert sorted(ids) == list(range(1, len(ids) + 1))
        others = [thing for thing in room.objects if thing.raw_id <= 3]
        assert {thing.instance_id for thing in others} == {0}
        assert Counter(thing.raw_id for thing in others)[1] == 4  # walls


def test_nearly_every_class_is_in_every_room(rooms):
    for room in rooms:
        classes = {thing.raw_id for thing in room.objects} - {0}
        assert len(classes) >= len(SYNTHETIC_CLASSES) - 1


def test_panels_hang_and_other_objects_stand(rooms):
    for room in rooms:
        for thing in room.objects:
            if thing.raw_id > 3:
                assert (bounds_of(thing)[0][2] > 1.0) == (thing.raw_id in PANELS)


def test_same_seed_same_room(rooms):
    again = make_room(np.random.default_rng(SEEDS[1]), RoomSettings())
    assert len(again.objects) == len(rooms[1].objects)
    for one, other in zip(again.objects, rooms[1].objects, strict=True):
        assert one.raw_id == other.raw_id
        np.testing.assert_array_equal(one.world_from_object, other.world_from_object)


def test_draw_group_uses_every_member_before_any_comes_again():
    group = ('a', 'b', 'c')
    firsts = Counter()
    for seed in range(600):
        names = draw_group(np.random.default_rng(seed), group, (4, 5))
        counts = Counter(names)
        assert 4 <= len(names) <= 5
        assert set(counts) == set(group)
        assert max(counts.values()) <= 2
        firsts[names[0]] += 1
    assert min(firsts.values()) > 150  # 200 expected, standard deviation 12


@pytest.mark.parametrize('group', SYNTHETIC_PATTERN_GROUPS)
def test_members_of_a_group_have_the_same_shapes(group):
    for seed in range(5):
        first, *others = (BUILDERS[name](np.random.default_rng(seed), name) for name in group)
        for other in others:
            assert other.size == first.size
            assert len(other.parts) == len(first.parts)
            for a, b in zip(first.parts, other.parts, strict=True):
                np.testing.assert_array_equal(a.mesh.vertices, b.mesh.vertices)
                assert a.material.color_a == b.material.color_a
                assert a.material.color_b == b.material.color_b
