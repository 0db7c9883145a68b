"""tools/evaluate_scan.py on a made-up scan whose prediction is known."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneformer3d.engine.cli import run_tool
from tests.helpers.color_segmentor import CLASSES, two_block_scene, write_checkpoint, write_config
from tests.helpers.load_tool import load_tool

# the stand-in's lamps are plants here, and the labels know no chair
NAMES = ('wall', 'floor', 'table', 'plant')


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Labels of a scene that the stand-in segments perfectly, but for a table called floor."""
    scene = two_block_scene(0.1)
    semantic = np.rint(scene[:, 3] / 50).astype(int)
    instance = np.where(semantic >= 2, np.rint(scene[:, 4] / 10).astype(int) - 1, -1)
    lost = instance == 2
    scene[lost, 3] = 50

    true = np.array([0, 1, 2, 255, 3])[semantic]
    instance[true == 255] = -1
    np.savez(
        tmp_path / 'cloud.npz',
        xyz=scene[:, :3],
        rgb=scene[:, 3:].astype(np.uint8),
        semantic=true.astype(np.uint8),
        instance=instance.astype(np.int32),
    )
    (tmp_path / 'classes.json').write_text(json.dumps({'classes': NAMES}))
    (tmp_path / 'names.yaml').write_text('plant: [lamp]\n')
    config, checkpoint = write_config(tmp_path), write_checkpoint(tmp_path)
    return [
        *(str(tmp_path), '--config', str(config), '--checkpoint', str(checkpoint)),
        *('--mapping', str(tmp_path / 'names.yaml'), '--out', str(tmp_path / 'out')),
        *('--classes', 'floor', 'table', 'plant', '--device', 'cpu'),
    ]


def run(arguments: list[str], monkeypatch) -> int:
    monkeypatch.setattr(sys, 'argv', ['evaluate_scan.py', *arguments])
    try:
        run_tool(load_tool('evaluate_scan').main)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_scores_of_a_known_prediction(arguments, tmp_path: Path, monkeypatch, capsys) -> None:
    assert run(arguments, monkeypatch) == 0
    report = json.loads((tmp_path / 'out/scores.json').read_text())
    whole, first, second = (report[part] for part in ('whole', 'first half', 'second half'))

    # three tables of 216 points, one of them lost to the floor of 2400
    assert whole['iou']['table'] == pytest.approx(2 / 3)
    assert whole['iou']['floor'] == pytest.approx(2400 / 2616)
    assert whole['iou']['plant'] == 1.0
    assert 'wall' not in whole['iou']
    assert whole['miou'] == pytest.approx((2 / 3 + 2400 / 2616 + 1) / 3)
    assert whole['floor'] == 1.0

    # the lost table lies across the middle, so it is asked for in either half
    assert (whole['instances']['instances'], whole['instances']['known_instances']) == (4, 4)
    assert (first['instances']['instances'], second['instances']['instances']) == (2, 3)
    # nothing wrong, three of four found
    assert whole['instances']['ap50'] == pytest.approx(0.75)
    # points lie 10 cm apart, farther than pieces reach
    assert whole['components']['ap50'] == 0.0
    assert set(report['known']) == {'wall', 'floor', 'table', 'plant'}

    assert '| IoU table | 66.7 |' in capsys.readouterr().out
    picture = np.asarray(Image.open(tmp_path / 'out/classes.png'))
    assert picture.std() > 10


def test_components_can_stand_in_for_masks(arguments, tmp_path: Path, monkeypatch) -> None:
    pieces = ['--instances', 'components', '--component-radius', '0.2']
    assert run([*arguments, *pieces, '--kinds', 'plant'], monkeypatch) == 0
    report = json.loads((tmp_path / 'out/scores.json').read_text())
    assert report['info']['instances'] == 5
    assert report['whole']['instances']['known_instances'] == 1


@pytest.mark.parametrize(
    ('fault', 'words'),
    [
        (lambda folder: (folder / 'cloud.npz').unlink(), 'cloud.npz'),
        (lambda folder: np.savez(folder / 'cloud.npz', xyz=np.zeros((3, 3))), 'instance'),
        (lambda folder: (folder / 'names.yaml').write_text('plant: lamp\n'), 'names.yaml'),
        (lambda folder: (folder / 'names.yaml').write_text('plant: [oak]\n'), 'oak'),
    ],
)
def test_faults_are_one_line(
    arguments, tmp_path: Path, monkeypatch, capsys, fault, words: str
) -> None:
    fault(tmp_path)
    assert run(arguments, monkeypatch) == 2
    message = capsys.readouterr().err.strip()
    assert words in message
    assert len(message.splitlines()) == 1


def test_stand_in_has_the_classes_that_these_tests_assume() -> None:
    assert CLASSES == ('wall', 'floor', 'table', 'chair', 'lamp')
