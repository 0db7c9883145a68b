"""tools/query.py: words in, ranked objects, clouds and a picture out."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from oneformer3d.engine.cli import run_tool as run_main
from oneformer3d.files.ply import read_ply
from tests.helpers.clip_files import write_small_clip
from tests.helpers.load_tool import load_tool


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return str(write_small_clip(tmp_path_factory.mktemp('clip') / 'clip.pth'))


@pytest.fixture(scope='module')
def room(tiny_rooms):
    return str(sorted((tiny_rooms / 'posed_images').iterdir())[0])


def test_a_scan_folder_is_asked(room, weights, tmp_path, capsys):
    words = ['--text', 'a chair', 'lamp', '--clip-weights', weights, '--out', str(tmp_path)]
    load_tool('query').main([room, *words, '--html'])

    answers = json.loads((tmp_path / 'answers.json').read_text())
    assert [answer['text'] for answer in answers] == ['a chair', 'lamp']
    xyz, _, columns = read_ply(tmp_path / 'answer_0001.ply')
    assert columns['score'].shape == (len(xyz),)
    with Image.open(tmp_path / 'answers.png') as image:
        assert image.size[0] == 3 * 640
    assert '"text": "lamp"' in (tmp_path / 'scene.html').read_text()
    printed = capsys.readouterr()
    assert 'no segmentation' in printed.out
    assert 'a chair' in printed.out

    # an answer does not depend on what else is asked, nor on the index being new
    load_tool('query').main([room, '--text', 'lamp', *words[3:]])
    _, _, alone = read_ply(tmp_path / 'answer_0000.ply')
    np.testing.assert_allclose(alone['score'], columns['score'], atol=1e-6)
    assert 'images' not in capsys.readouterr().err


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'input': '/no/such/scan'}, 'no such file'),
        ({'weights': '/no/such/clip.pth'}, 'clip.pth'),
        ({'options': ['--threshold', '1']}, '--threshold'),
        ({'options': ['--config', 'configs/bifusion_synthetic.py']}, 'belong together'),
        ({'options': ['--negatives', ' ']}, 'an empty text'),
    ],
)
def test_what_does_not_fit_is_one_line(
    room, weights, tmp_path, monkeypatch, capsys, change, message
):
    words = [change.get('input', room), '--text', 'a chair']
    words += ['--clip-weights', change.get('weights', weights), '--out', str(tmp_path / 'out')]
    monkeypatch.setattr(sys, 'argv', ['query.py', *words, *change.get('options', [])])
    with pytest.raises(SystemExit) as end:
        run_main(load_tool('query').main)
    assert end.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error:')]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / 'out').exists()


def test_help(capsys):
    with pytest.raises(SystemExit) as end:
        load_tool('query').main(['--help'])
    assert end.value.code == 0
    assert 'SCAN_FOLDER' in capsys.readouterr().out
