"""Ids of the rule stay; ids per class, ids from 0 and labels over a rim are mended with counts."""

import numpy as np
import pytest

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.data.samples.instance_ids import contiguous_instances

TABLE = get_class_table('scannet')
CHAIR, TABLE_CLASS, WALL, UNLABELED = 4, 6, 0, 20


def objects(*parts: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Raw ids and classes of (id, class, number of points) parts, in a random order."""
    ids, classes, counts = map(np.array, zip(*parts))
    order = np.random.default_rng(0).permutation(counts.sum())
    return np.repeat(ids, counts)[order], np.repeat(classes, counts)[order]


def test_no_instance_at_all() -> None:
    raw, semantic = np.array([0, 3, 4]), np.array([5, WALL, UNLABELED])
    instance, doubts = contiguous_instances(raw, semantic, TABLE)
    assert instance.tolist() == [-1, -1, -1]
    assert not doubts


def test_ids_of_the_rule_become_dense_in_their_order() -> None:
    raw, semantic = objects(
        (0, WALL, 50), (7, CHAIR, 20), (2**60, TABLE_CLASS, 30), (9, CHAIR, 5), (8, WALL, 9)
    )
    instance, doubts = contiguous_instances(raw, semantic, TABLE)
    expected = {0: -1, 7: 0, 9: 1, 2**60: 2, 8: -1}
    assert instance.tolist() == [expected[i] for i in raw.tolist()]
    assert not doubts


def test_ids_unique_per_class_are_split() -> None:
    parts = [(k, c, 40 + 10 * k + c) for k in (1, 2, 3) for c in (CHAIR, TABLE_CLASS, 9)]
    raw, semantic = objects(*parts, (4, CHAIR, 500), (4, 9, 120), (4, TABLE_CLASS, 4000))
    instance, doubts = contiguous_instances(raw, semantic, TABLE, 'room')
    pairs = sorted(set(zip(raw.tolist(), semantic.tolist())))
    assert instance.tolist() == [pairs.index(p) for p in zip(raw.tolist(), semantic.tolist())]
    (doubt,) = doubts
    assert doubt.startswith('room: 4 instance ids stand for objects of several classes')
    assert doubt.endswith('4 → 12 instances')


def test_labels_over_the_rim_of_an_object_do_not_split_it() -> None:
    raw, semantic = objects((1, CHAIR, 2000), (1, TABLE_CLASS, 60), (2, CHAIR, 30))
    instance, doubts = contiguous_instances(raw, semantic, TABLE)
    assert np.array_equal(instance, raw - 1)
    assert not doubts


def test_where_ids_are_unique_per_class_small_objects_are_split_too() -> None:
    raw, semantic = objects(
        (1, CHAIR, 2000), (1, TABLE_CLASS, 500), (1, 9, 40), (1, 8, 3), (2, CHAIR, 90), (2, 9, 30)
    )
    instance, _ = contiguous_instances(raw, semantic, TABLE)
    assert instance.max() == 4
    assert (instance[semantic == 8] == instance[(raw == 1) & (semantic == CHAIR)][0]).all()


def test_ids_from_zero_keep_the_first_object() -> None:
    raw, semantic = objects((0, CHAIR, 30), (1, TABLE_CLASS, 40), (2, WALL, 99), (3, CHAIR, 7))
    instance, doubts = contiguous_instances(raw, semantic, TABLE)
    expected = {0: 0, 1: 1, 2: -1, 3: 2}
    assert instance.tolist() == [expected[i] for i in raw.tolist()]
    assert doubts == (
        'instances: id 0 holds 30 points of class chair and nothing else: ids count from 0, and '
        'it was taken for an object',
    )


def test_points_of_things_without_an_instance_are_counted() -> None:
    raw, semantic = objects((0, WALL, 90), (0, CHAIR, 30), (1, TABLE_CLASS, 40))
    instance, doubts = contiguous_instances(raw, semantic, TABLE)
    assert np.array_equal(instance, raw - 1)
    assert doubts == ('instances: 30 points of chair have id 0 and so belong to no instance',)


def test_negative_ids_are_refused() -> None:
    with pytest.raises(ValueError, match='room: instance id -1 is negative, 0 means no instance'):
        contiguous_instances(np.array([-1, 3]), np.array([CHAIR, CHAIR]), TABLE, 'room')
