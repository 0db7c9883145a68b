"""A labelled scene as a segmentation, and corrections of it as ids on disk."""

import numpy as np
import pytest

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.data.samples.instance_ids import contiguous_instances
from oneformer3d.inference.labelled_scene import ids_on_disk, open_labelled_scene
from oneformer3d.inference.scene_index import masks_of, names_of
from oneformer3d.structures.corrections import (
    delete_instance,
    merge_instances,
    rename_instance,
)


@pytest.fixture(scope='module')
def labelled(tiny_rooms):
    return open_labelled_scene(min((tiny_rooms / 'points').glob('*.bin')))


def test_the_labels_are_the_segmentation(labelled):
    result, files, table = labelled.opened.segmentation, labelled.files, labelled.table
    raw_ids = np.array([*table.raw_ids, 0])
    known = result.semantic < table.num_classes
    np.testing.assert_array_equal(raw_ids[result.semantic][known], files.semantic[known])
    assert len(result.instances) > 3
    for one in result.instances:
        assert len(np.unique(files.instance[one.members])) == 1
        assert one.label in table.instance_classes
    is_stuff = np.isin(result.semantic, table.stuff)
    np.testing.assert_array_equal(result.panoptic[is_stuff], result.semantic[is_stuff])
    assert labelled.opened.recording is not None


def test_untouched_labels_come_back_as_they_were(labelled):
    """Points of stuff may have an instance id that no reader takes for one; it stays."""
    semantic, instance = ids_on_disk(labelled, labelled.opened.segmentation)
    np.testing.assert_array_equal(semantic, labelled.files.semantic)
    np.testing.assert_array_equal(instance, labelled.files.instance)


def test_corrections_are_read_back_as_they_were_made(labelled):
    before, table = labelled.opened.segmentation, get_class_table('synthetic')
    chair = table.classes.index('chair')
    after = rename_instance(before, 0, chair)
    after = merge_instances(after, [1, 2])
    after = delete_instance(after, 2)
    raw_semantic, raw_instance = ids_on_disk(labelled, after)

    semantic = table.contiguous_from_raw(raw_semantic)
    np.testing.assert_array_equal(semantic, after.semantic)
    instance, _ = contiguous_instances(raw_instance, semantic, table)
    # the same objects, whatever their numbers
    pairs = np.unique(np.stack([instance, after.instance]), axis=1)
    assert pairs.shape[1] == len(np.unique(after.instance))


def test_names_of_pieces_bear_points_without_a_class(labelled):
    from dataclasses import replace

    after = delete_instance(labelled.opened.segmentation, 0)
    scene = replace(labelled.opened, segmentation=after)
    names, _ = names_of(scene, masks_of(scene))
    assert set(names) <= {*labelled.table.classes, ''}
