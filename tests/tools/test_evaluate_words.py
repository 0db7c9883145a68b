"""tools/evaluate_words.py: the table of a data root, and its parts by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from oneformer3d.data.class_tables import get_class_table
from tests.helpers.clip_files import write_small_clip
from tests.helpers.load_tool import load_tool


def test_the_table_of_a_data_root(tiny_rooms, tmp_path, capsys):
    weights = str(write_small_clip(tmp_path / 'clip.pth'))
    out = tmp_path / 'out'
    words = [str(tiny_rooms), '--clip-weights', weights, '--out', str(out)]
    load_tool('evaluate_words').main(words)

    rows = json.loads((out / 'words.json').read_text())['rows']
    assert len(rows) == 5
    known = [value for values in rows.values() for value in values if value is not None]
    assert len(known) >= 4
    assert all(0 <= value <= 1 for value in known)
    printed = capsys.readouterr().out
    assert (out / 'words.md').read_text() in printed
    assert '| given masks: retrieval mAP |' in printed


def test_true_things_are_dense_and_stuff_is_none():
    table = get_class_table('synthetic')
    stuff, thing, other = table.raw_ids[0], table.raw_ids[-1], table.raw_ids[-2]
    semantic = np.array([stuff, thing, thing, other, thing])
    instance = np.array([0, 7, 7, 3, 9])
    ids, classes = load_tool('evaluate_words').true_things(table, semantic, instance)
    last = len(table.instance_classes) - 1
    assert ids.tolist() == [-1, 1, 1, 0, 2]
    assert classes.tolist() == [last - 1, last, last]


def test_best_names_are_those_of_the_greatest_overlap():
    room = SimpleNamespace(instance=np.array([0, 0, 0, 0, 1, 1, -1, -1]), classes=np.array([5, 2]))
    masks = np.array([[1, 1, 1, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 0, 0]], bool)
    # 3 of 5 against 1 of 5; 1 of 6 against 2 of 3
    assert load_tool('evaluate_words').best_names(masks, room).tolist() == [5, 2]


def test_what_does_not_fit(tiny_rooms, tmp_path):
    weights = ['--clip-weights', 'none']
    main = load_tool('evaluate_words').main
    for words, message in (
        ([str(tmp_path / 'absent')], 'no such folder'),
        ([str(tiny_rooms), '--checkpoint', 'x'], 'belong together'),
        ([str(tiny_rooms), '--novel', 'unicorn'], 'unicorn'),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            main([*words, *weights])
