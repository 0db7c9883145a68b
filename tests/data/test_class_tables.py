"""Class tables against mmdet3d's, against published facts, and against bad JSON."""

import json

import numpy as np
import pytest
from mmdet3d.datasets import S3DISSegDataset, ScanNetSegDataset

from oneformer3d.data.class_tables import (
    SCANNET200_NAMES,
    SCANNET200_RAW_IDS,
    ClassTable,
    distinct_colors,
    get_class_table,
)

NAMES = ('scannet', 'scannet200', 's3dis', 'synthetic', 'rooms')


@pytest.mark.parametrize(
    ('name', 'peer'), [('scannet', ScanNetSegDataset), ('s3dis', S3DISSegDataset)]
)
def test_equals_mmdet3d(name: str, peer: type) -> None:
    table = get_class_table(name)
    assert table.classes == tuple(peer.METAINFO['classes'])
    assert table.raw_ids == tuple(peer.METAINFO['seg_valid_class_ids'])
    assert table.palette.tolist() == [list(color) for color in peer.METAINFO['palette']]


def test_scannet_counts() -> None:
    table = get_class_table('scannet')
    assert (table.num_classes, table.stuff, len(table.things)) == (20, (0, 1), 18)
    assert table.instance_classes == table.things


def test_scannet200_is_swap_then_rank() -> None:
    """Published pipeline: exchange raw ids 2 and 3, then take the rank among the sorted ids."""
    assert len(set(SCANNET200_RAW_IDS)) == len(set(SCANNET200_NAMES)) == 200
    assert list(SCANNET200_RAW_IDS) == sorted(SCANNET200_RAW_IDS)
    raw = np.array([*SCANNET200_RAW_IDS, 0, 12, 1177])
    swapped = np.where(raw == 2, 3, np.where(raw == 3, 2, raw))
    valid = sorted(SCANNET200_RAW_IDS)
    expected = [valid.index(r) if r in valid else 200 for r in swapped.tolist()]
    table = get_class_table('scannet200')
    assert table.contiguous_from_raw(raw).tolist() == expected
    assert [table.classes[k] for k in table.stuff] == ['wall', 'floor']
    assert table.classes[2] == 'chair'
    assert len(table.instance_classes) == 198


def test_scannet200_name_follows_its_id() -> None:
    table = get_class_table('scannet200')
    name_of = dict(zip(table.raw_ids, table.classes))
    known = {1: 'wall', 2: 'chair', 3: 'floor', 36: 'dresser', 1163: 'object', 1191: 'mattress'}
    assert {raw: name_of[raw] for raw in known} == known


def test_s3dis_instances_are_all_classes() -> None:
    table = get_class_table('s3dis')
    assert table.instance_classes == tuple(range(13))
    assert table.things == (7, 8, 9, 10, 11)


@pytest.mark.parametrize('name', NAMES)
def test_round_trip(name: str) -> None:
    table = get_class_table(name)
    labels = np.arange(table.num_classes)
    assert np.array_equal(table.contiguous_from_raw(table.raw_from_contiguous(labels)), labels)
    assert table.raw_from_contiguous(np.array([table.ignore_index])).tolist() == [0]
    assert sorted(table.stuff + table.things) == labels.tolist()
    assert len(np.unique(table.palette, axis=0)) == table.num_classes


@pytest.mark.parametrize('dtype', [np.int64, np.int32, np.uint16, np.uint8])
def test_unknown_ids_are_unlabeled(dtype: type) -> None:
    raw = np.array([[0, 13], [5, 40]], dtype=dtype)
    labels = get_class_table('scannet').contiguous_from_raw(raw)
    assert labels.dtype == np.int64
    assert labels.tolist() == [[20, 20], [4, 20]]


@pytest.mark.parametrize('bad', [-1, 65536, 2**40])
def test_impossible_ids(bad: int) -> None:
    with pytest.raises(ValueError, match=f'class id {bad} is outside 0…65535'):
        get_class_table('scannet').contiguous_from_raw(np.array([1, bad]))


def test_float_ids() -> None:
    with pytest.raises(ValueError, match='must be integers'):
        get_class_table('scannet').contiguous_from_raw(np.array([1.0]))


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"unknown class table 'nyu'.*scannet200"):
        get_class_table('nyu')


def test_palette_cannot_be_written() -> None:
    with pytest.raises(ValueError, match='read-only'):
        get_class_table('scannet').palette[0] = 0


def test_own_table(tmp_path) -> None:
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps({'classes': ['ground', 'tree', 'bench'], 'stuff': ['ground']}))
    table = get_class_table(str(path))
    assert (table.name, table.raw_ids, table.stuff) == ('mine', (1, 2, 3), (0,))
    assert table.instance_classes == (1, 2)
    assert table.contiguous_from_raw(np.array([3, 0])).tolist() == [2, 3]


@pytest.mark.parametrize(
    ('content', 'fault'),
    [
        ('{', 'not valid JSON'),
        ('[]', 'expected an object'),
        ('{"classes": ["a"], "stuff": [], "stuf": []}', 'expected an object'),
        ('{"classes": [1], "stuff": []}', 'lists of names'),
        ('{"classes": ["a", "b"], "stuff": ["b"]}', 'must be the first'),
        ('{"classes": ["a", "a"], "stuff": []}', 'must be there and differ'),
        ('{"classes": ["a", "b"], "stuff": [], "raw_ids": [1]}', 'expected 2 different raw ids'),
        ('{"classes": ["a"], "stuff": [], "raw_ids": ["1"]}', 'list of integers'),
        ('{"classes": ["a"], "stuff": [], "raw_ids": [-4]}', 'within 0…65535'),
        ('{"classes": ["a"], "stuff": [], "palette": [[1, 2]]}', r'palette must be \(1, 3\)'),
        ('{"classes": ["a"], "stuff": [], "palette": [[1, 2, 300]]}', '300'),
    ],
)
def test_faulty_table_names_file(tmp_path, content: str, fault: str) -> None:
    path = tmp_path / 'mine.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=rf'mine\.json: .*{fault}'):
        get_class_table(str(path))


def test_missing_table(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match='no such class table'):
        get_class_table(str(tmp_path / 'none.json'))


def test_labels_within_table() -> None:
    with pytest.raises(ValueError, match='within 0…0'):
        ClassTable('x', ('a',), (1,), (1,), (0,), distinct_colors(1))
