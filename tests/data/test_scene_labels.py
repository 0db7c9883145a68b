"""Labels of a scene on disk: read by its infos, corrected in place, and the first ones kept."""

import json
import shutil

import numpy as np
import pytest

from oneformer3d.data.scene_labels import kept_path, read_scene_labels, write_scene_labels


@pytest.fixture
def root(tiny_rooms, tmp_path):
    """A copy to write into, without the images."""
    skip = shutil.ignore_patterns('posed_images')
    return shutil.copytree(tiny_rooms, tmp_path / 'rooms', ignore=skip)


def labels_of(root):
    return read_scene_labels(next(iter(sorted((root / 'points').glob('*.bin')))))


def test_labels_are_those_on_disk(root):
    labels = labels_of(root)
    assert labels.class_table == 'synthetic'
    raw = np.fromfile(root / 'semantic_mask' / f'{labels.name}.bin', '<i8')
    np.testing.assert_array_equal(labels.semantic, raw)
    assert len(labels.points) == len(labels.semantic) == len(labels.instance)


def test_corrected_labels_take_their_place_and_the_first_ones_stay(root):
    labels = labels_of(root)
    first = {path: path.read_bytes() for path in (labels.semantic_path, labels.instance_path)}
    semantic, instance = labels.semantic.copy(), labels.instance.copy()
    semantic[:7], instance[3:10] = 0, 0
    again = write_scene_labels(labels, semantic, instance)
    np.testing.assert_array_equal(labels_of(root).semantic, semantic)
    np.testing.assert_array_equal(labels_of(root).instance, instance)
    assert {path: kept_path(path).read_bytes() for path in first} == first

    # a second correction leaves what was kept alone, and counts from the first labels on
    semantic[:20] = 1
    write_scene_labels(again, semantic, instance)
    assert {path: kept_path(path).read_bytes() for path in first} == first
    changed = (semantic != labels.semantic) | (instance != labels.instance)
    entries = [
        entry
        for path in root.glob('oneformer3d_infos_*.json')
        for entry in json.loads(path.read_text())['data_list']
    ]
    notes = {entry['scene_id']: entry.get('num_corrected_points') for entry in entries}
    assert notes.pop(labels.name) == changed.sum()
    assert set(notes.values()) == {None}
    noted = next(entry for entry in entries if entry['scene_id'] == labels.name)
    assert noted['original_labels'] == f'{labels.name}.original.bin'


def test_labels_of_another_cloud_are_refused_and_nothing_is_written(root):
    labels = labels_of(root)
    before = sorted(path.name for path in (root / 'semantic_mask').iterdir())
    with pytest.raises(ValueError, match=r'instance_mask|bin'):
        write_scene_labels(labels, labels.semantic, labels.instance[1:])
    assert sorted(path.name for path in (root / 'semantic_mask').iterdir()) == before


def test_what_is_no_labelled_scene_is_none(root, tmp_path):
    assert read_scene_labels(tmp_path / 'room.ply') is None
    alone = tmp_path / 'points' / 'room.bin'
    alone.parent.mkdir()
    np.zeros((3, 6), '<f4').tofile(alone)
    assert read_scene_labels(alone) is None


def test_labels_without_a_class_table_are_refused(root):
    for path in root.glob('oneformer3d_infos_*.json'):
        infos = json.loads(path.read_text())
        del infos['metainfo']['dataset']
        path.write_text(json.dumps(infos))
    with pytest.raises(ValueError, match='class table'):
        labels_of(root)
