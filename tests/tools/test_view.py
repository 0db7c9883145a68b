"""tools/view.py: from a folder to a page that answers."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import numpy as np
import pytest

from oneformer3d.data.scan import read_scan
from oneformer3d.structures import Segmentation
from tests.helpers.clip_files import write_small_clip
from tests.helpers.load_tool import load_tool
from tests.tools.conftest import ENVIRONMENT, REPOSITORY


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return str(write_small_clip(tmp_path_factory.mktemp('clip') / 'clip.pth'))


@pytest.fixture(scope='module')
def room(tiny_rooms):
    return str(sorted((tiny_rooms / 'posed_images').iterdir())[0])


def test_a_folder_alone_is_shown_and_says_what_it_lacks(room, capsys):
    tool = load_tool('view')
    live = tool.make_live(tool.parse_args([room, '--without-model']))
    said = capsys.readouterr().out
    assert 'without a model' in said
    assert 'without --clip-weights' in said
    assert live.asker is None
    assert len(live.scene.pieces) > 1
    # the images are those of the folder, and they saw what they were fused to
    seen = [len(live.views(point)) for point in range(0, len(live.scene.rows), 50)]
    assert np.mean(np.array(seen) > 0) > 0.9


def test_a_folder_with_clip_answers(room, weights, tmp_path):
    tool = load_tool('view')
    words = ['--clip-weights', weights, '--out', str(tmp_path), '--threshold', '0.01']
    words.append('--without-model')
    live = tool.make_live(tool.parse_args([room, *words]))
    # at random weights some words are unlike all images, and rightly find nothing
    answers = [live.ask(text) for text in ('a lamp', 'a chair', 'a wall', 'a bed', 'a door')]
    answer = next(answer for answer in answers if answer['found'])
    assert len(answer['ranked']) == min(20, len(live.asker.index.names))


def test_a_cloud_becomes_a_file(room, tmp_path, capsys):
    np.save(tmp_path / 'cloud.npy', read_scan(room).points)
    page = tmp_path / 'page.html'
    words = ['--html', str(page), '--out', str(tmp_path / 'result')]
    load_tool('view').main([str(tmp_path / 'cloud.npy'), *words])
    assert '<title>cloud.npy</title>' in page.read_text()
    assert '--images' in capsys.readouterr().out
    # segmented by the model of the package, and kept
    assert Segmentation.load(tmp_path / 'result').class_names[0] == 'wall'


def test_labels_on_disk_are_shown_and_corrected(tiny_rooms, tmp_path):
    rooms = shutil.copytree(tiny_rooms, tmp_path / 'rooms')
    points = min((rooms / 'points').glob('*.bin'))
    tool = load_tool('view')
    live = tool.make_live(tool.parse_args([str(points), '--out', str(tmp_path / 'out')]))
    raw = np.fromfile(rooms / 'semantic_mask' / points.name, '<i8')
    mine = live.segmentation.instance == 0
    live.correct({'kind': 'delete', 'objects': [0]})
    assert live.save()['saved'].endswith(f'{points.stem}.original.bin')
    after = np.fromfile(rooms / 'semantic_mask' / points.name, '<i8')
    np.testing.assert_array_equal(after, np.where(mine, 0, raw))
    assert live.images is not None
    with pytest.raises(ValueError, match='is a data root'):
        tool.main([str(rooms), '--html', str(tmp_path / 'page.html')])


def test_a_model_is_held_against_the_labels(tiny_rooms, tmp_path):
    points = min((tiny_rooms / 'points').glob('*.bin'))
    model = [
        *('--config', str(REPOSITORY / 'configs/rooms_points.py')),
        *('--checkpoint', str(REPOSITORY / 'weights/rooms_points.safetensors')),
    ]
    tool = load_tool('view')
    live = tool.make_live(tool.parse_args([str(points), '--out', str(tmp_path / 'out'), *model]))
    scene = live.scene
    names = np.array([*(one.name for one in scene.classes), ''])[scene.semantic]
    truth = np.array([*(one.name for one in scene.truth_classes), ''])[scene.truth]
    np.testing.assert_array_equal(scene.verdict == 1, (names == truth) & (truth != ''))
    assert 0.1 < (scene.verdict == 1).mean() < 1

    # a result is corrected in a copy
    assert live.save()['saved'].endswith('out_corrected')
    copy, first = (Segmentation.load(tmp_path / name) for name in ('out_corrected', 'out'))
    np.testing.assert_array_equal(copy.semantic, first.semantic)


def test_what_does_not_fit_is_one_line(room, tmp_path):
    main = load_tool('view').main
    (tmp_path / 'field.pth').touch()
    model = ['--config', 'configs/rooms_points.py', '--checkpoint', 'x.pth']
    for words, message in (
        ([str(tmp_path / 'absent')], 'no such file'),
        ([str(tmp_path), *model], 'no --config segments'),
        ([room, '--checkpoint', 'x'], 'belong together'),
        ([room, '--threshold', '2'], '--threshold'),
        ([room, '--without-model', *model], 'contradict'),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            main(words)


def ask(address, path):
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request('GET', path)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def test_as_a_command(room, tmp_path):
    """Served until Ctrl-C, at a free port."""
    process = subprocess.Popen(
        [sys.executable, 'tools/view.py', room, '--port', '0', '--out', str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # a shell's background jobs ignore Ctrl-C, and the tests may run in one
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        line = next(line for line in process.stdout if line.startswith('open http://127.0.0.1:'))
        address = urlsplit(line.split()[1])
        assert ask(address, '/progress')['ready'] in (False, True)
        next(line for line in process.stdout if line.startswith('the scene is there'))
        assert isinstance(ask(address, '/views/0'), list)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stdout.close()
