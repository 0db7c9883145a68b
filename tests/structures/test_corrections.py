"""Corrections by hand: who gets which points, and that nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest

from oneformer3d.structures import Segmentation
from oneformer3d.structures.corrections import (
    delete_instance,
    merge_instances,
    rename_instance,
)
from oneformer3d.structures.instances import make_instance
from tests.viewer.scenes import small_segmentation

FLOOR, CHAIR, LAMP, NONE = 0, 1, 2, 3
IN_CHAIR, IN_LAMP = slice(2000, 2600), slice(2600, 3000)


def overlapping() -> Segmentation:
    """A second lamp holds the chair's last hundred points, which the better chair has, and more."""
    result = small_segmentation()
    members = np.arange(2500, 3000)
    lamp = make_instance('lamp', LAMP, 0.6, members, result.upright)
    return replace(result, instances=(result.instances[0], lamp))


def test_renaming_changes_the_class_alone():
    before = small_segmentation()
    after = rename_instance(before, 0, LAMP)
    assert [(one.name, one.label, one.score) for one in after.instances] == [
        ('lamp', LAMP, 0.9),
        ('lamp', LAMP, 0.6),
    ]
    np.testing.assert_array_equal(after.semantic, np.repeat([FLOOR, LAMP], [2000, 1000]))
    np.testing.assert_array_equal(after.panoptic, before.panoptic)
    np.testing.assert_array_equal(after.instance, before.instance)
    np.testing.assert_array_equal(before.semantic[IN_CHAIR], CHAIR)  # untouched


def test_only_points_that_belong_to_an_object_follow_it():
    after = rename_instance(overlapping(), 1, FLOOR)
    np.testing.assert_array_equal(after.semantic[IN_CHAIR], CHAIR)
    np.testing.assert_array_equal(after.semantic[IN_LAMP], FLOOR)


def test_merging_takes_the_first_class_and_the_best_place():
    after = merge_instances(small_segmentation(), [1, 0])
    (joined,) = after.instances
    assert (joined.name, joined.label, joined.score) == ('lamp', LAMP, 0.9)
    np.testing.assert_array_equal(joined.members, np.arange(2000, 3000))
    np.testing.assert_array_equal(after.semantic[2000:], LAMP)
    np.testing.assert_array_equal(after.panoptic, np.repeat([0, 2], [2000, 1000]))
    low, high = after.upright[2000:].min(0), after.upright[2000:].max(0)
    assert joined.box.size[2] == pytest.approx(high[2] - low[2])


def test_deleting_leaves_no_label():
    after = delete_instance(small_segmentation(), 0)
    assert [one.name for one in after.instances] == ['lamp']
    np.testing.assert_array_equal(after.semantic[IN_CHAIR], NONE)
    np.testing.assert_array_equal(after.panoptic[IN_CHAIR], -1)
    np.testing.assert_array_equal(after.instance[IN_LAMP], 0)
    np.testing.assert_array_equal(after.semantic[IN_LAMP], LAMP)


def test_points_of_a_deleted_object_go_to_the_next_that_has_them():
    after = delete_instance(overlapping(), 0)
    np.testing.assert_array_equal(after.semantic[2000:2500], NONE)
    np.testing.assert_array_equal(after.semantic[2500:], LAMP)
    np.testing.assert_array_equal(after.panoptic[2500:], 2)


def test_a_corrected_result_is_saved_and_read_back(tmp_path):
    after = delete_instance(small_segmentation(), 0)
    after.save(tmp_path / 'out')
    again = Segmentation.load(tmp_path / 'out')
    np.testing.assert_array_equal(again.semantic, after.semantic)
    assert again.summary()['points_per_class'] == {'floor': 2000, 'lamp': 400}


@pytest.mark.parametrize(
    'correct',
    [
        lambda result: rename_instance(result, 2, 0),
        lambda result: rename_instance(result, 0, 3),
        lambda result: rename_instance(result, 0, -1),
        lambda result: merge_instances(result, [0]),
        lambda result: merge_instances(result, [0, 0]),
        lambda result: merge_instances(result, [0, 5]),
        lambda result: delete_instance(result, -1),
    ],
)
def test_what_cannot_be_is_refused(correct):
    with pytest.raises(ValueError, match='expected'):
        correct(small_segmentation())
