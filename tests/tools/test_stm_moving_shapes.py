"""The tool that trains the tube decoder on moving shapes."""

import json

import pytest

from tests.helpers.load_tool import load_tool


def test_writes_what_it_measured(tmp_path, capsys):
    out = tmp_path / 'numbers.json'
    arguments = ['--steps', '3', '--batch-size', '2', '--test-clips', '4', '--out', str(out)]
    load_tool('stm_moving_shapes').main(arguments)
    numbers = json.loads(out.read_text())
    for when in ('before', 'after', 'reversed'):
        assert set(numbers[when]) == {'action', 'shape', 'iou'}
        assert all(0 <= value <= 1 for value in numbers[when].values())
    assert 'right actions' in capsys.readouterr().out


def test_numbers_below_one_are_refused():
    with pytest.raises(ValueError, match='--max-shapes must be at least 1'):
        load_tool('stm_moving_shapes').main(['--max-shapes', '0'])
