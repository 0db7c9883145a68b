"""tools/stream.py on a generated room: its files, kill and resume, its messages."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oneformer3d.engine.cli import run_tool
from oneformer3d.streaming.files import FILES
from oneformer3d.structures.segmentation import FILES as SEGMENTATION_FILES
from tests.helpers.load_tool import load_tool
from tests.helpers.stream_rooms import room_frames, write_color_model, write_room

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def recording(tmp_path_factory) -> tuple[Path, list[str]]:
    """A folder of frames, of which one image is broken; config and weights."""
    root = tmp_path_factory.mktemp('recording')
    folder = write_room(root / 'frames', room_frames())
    broken = folder / 'frame-000004.depth.png'
    broken.write_bytes(broken.read_bytes()[:80])
    config, weights = write_color_model(root / 'model')
    return folder, ['--config', str(config), '--checkpoint', str(weights), '--up', 'z']


def run(arguments: list[str], monkeypatch) -> int:
    monkeypatch.setattr(sys, 'argv', ['stream.py', *arguments, '--device', 'cpu'])
    try:
        run_tool(load_tool('stream').main)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope='module')
def undisturbed(recording, tmp_path_factory) -> Path:
    folder, model = recording
    out = tmp_path_factory.mktemp('out')
    with pytest.MonkeyPatch.context() as patch:
        assert run([str(folder), *model, '--out', str(out)], patch) == 0
    return out


def test_leaves_the_files_of_a_stream_and_of_infer(undisturbed):
    names = {path.name for path in undisturbed.iterdir()}
    assert {*FILES, *SEGMENTATION_FILES} <= names
    told = json.loads((undisturbed / 'stream.json').read_text())
    assert told['num_frames'] == 14
    assert told['left_out'] == {'unreadable': 1}
    assert {'superpoints', 'map', 'network', 'merge', 'all'} == set(told['seconds_p50_p95'])
    tracks = json.loads((undisturbed / 'tracks.json').read_text())['tracks']
    assert sum(track['state'] == 'confirmed' for track in tracks) >= 4


def test_killed_and_resumed_is_the_undisturbed_run(recording, undisturbed, tmp_path, monkeypatch):
    folder, model = recording
    command = [str(folder), *model, '--out', str(tmp_path), '--snapshot-every', '2']
    environment = {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'PATH': '/usr/bin:/bin'}
    process = subprocess.Popen(
        [sys.executable, 'tools/stream.py', *command, '--device', 'cpu'],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while not (tmp_path / 'state.npz').is_file() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / 'tracks.json').exists()

    assert run(command, monkeypatch) == 0
    for name in ('tracks.json', 'tracks.ply'):
        assert (tmp_path / name).read_bytes() == (undisturbed / name).read_bytes(), name
    events = [
        json.loads((out / 'stream.json').read_text())['events'] for out in (tmp_path, undisturbed)
    ]
    assert events[0] == events[1]


def test_frames_come_too_fast(recording, tmp_path, monkeypatch):
    folder, model = recording
    assert (
        run([str(folder), *model, '--out', str(tmp_path), '--realtime', '1000'], monkeypatch) == 0
    )
    told = json.loads((tmp_path / 'stream.json').read_text())
    assert told['left_out']['came too fast'] + told['num_frames'] <= 15
    assert told['left_out']['came too fast'] >= 10


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--score-thr', '2'], 'expected a number within 0 to 1'),
        (['--realtime', '0'], 'expected a positive rate'),
        (['--follow', '--realtime', '3'], 'exclude each other'),
        (['--snapshot-every', '0'], 'must be at least 1'),
        (['--checkpoint', '/no/such.pth'], 'no such checkpoint file'),
    ],
)
def test_bad_arguments_are_named(recording, tmp_path, monkeypatch, capsys, options, message):
    folder, model = recording
    assert run([str(folder), *model, '--out', str(tmp_path / 'out'), *options], monkeypatch) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
