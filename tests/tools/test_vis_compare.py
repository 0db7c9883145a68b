"""The tool that lays predictions of a scene side by side."""

import cv2
import numpy as np
import pytest

from oneformer3d.files.ply import write_ply
from tests.helpers.load_tool import load_tool


@pytest.fixture
def runs(tmp_path):
    xyz = np.random.default_rng(0).uniform(0, 2, (500, 3))
    truth = np.arange(500) % 3
    for name, semantic in (('a', truth), ('b', np.zeros(500, int))):
        (tmp_path / name).mkdir()
        labels = {'semantic': semantic, 'gt_semantic': truth}
        write_ply(tmp_path / name / 'room1.ply', xyz, None, labels)
    write_ply(tmp_path / 'a' / 'room0.ply', xyz, None, labels)
    return tmp_path


def compare(runs, *arguments):
    folders = [f'points={runs / "a"}', f'images={runs / "b"}']
    load_tool('vis_compare').main([*folders, '--out', str(runs / 'out.png'), *arguments])


def test_draws_the_first_scene_that_all_have(runs, capsys):
    compare(runs, '--size', '90', '120')
    assert 'room1, 500 points, 2 models' in capsys.readouterr().out
    image = cv2.imread(str(runs / 'out.png'))
    assert image.shape[1] == 3 * 120


def test_bad_input_is_named(runs):
    with pytest.raises(FileNotFoundError, match='room7'):
        compare(runs, '--scene', 'room7')
    with pytest.raises(ValueError, match='scene'):
        compare(runs, '--scene', '../room1')
    with pytest.raises(ValueError, match='TITLE=FOLDER'):
        load_tool('vis_compare').main([str(runs / 'a')])
    with pytest.raises(ValueError, match='the same title'):
        load_tool('vis_compare').main([f'x={runs / "a"}', f'x={runs / "b"}'])
    xyz = np.zeros((4, 3))
    write_ply(runs / 'b' / 'room0.ply', xyz, None, {'semantic': np.zeros(4, int)})
    with pytest.raises(ValueError, match=r'room0.ply: has no gt_semantic'):
        compare(runs, '--scene', 'room0')
    labels = {'semantic': np.zeros(4, int), 'gt_semantic': np.zeros(4, int)}
    write_ply(runs / 'b' / 'room0.ply', xyz, None, labels)
    with pytest.raises(ValueError, match='other points'):
        compare(runs, '--scene', 'room0')
