"""Tools where nobody thinks of: folders that nobody may write, disks without space, links in rings,
files that changed by a bit, a run beside itself. One line and an exit status, nothing half-written.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from oneformer3d.files import atomic
from tests.helpers.clip_files import write_small_clip
from tests.helpers.forked_tools import ToolServer
from tests.helpers.rgbd_scenes import render_views, write_seven_scenes
from tests.tools.test_train import arguments

NOBODY = 65534
SMALL_FIT = ('steps=2', 'batch_rays=16', 'coarse_samples=3', 'fine_samples=3')
SMALL_FIT += ('view_coarse_samples=3', 'view_fine_samples=3')


@pytest.fixture(scope='module')
def room(tmp_path_factory) -> Path:
    return write_seven_scenes(tmp_path_factory.mktemp('odd') / 'room', render_views(8))


@pytest.fixture(scope='module')
def clip(room) -> Path:
    return write_small_clip(room.parent / 'clip.pth')


def commands(room: Path, tiny_rooms: Path, clip: Path, out: Path) -> dict[str, list]:
    return {
        'create_data': ['posed_rgbd', '--root', room, '--out', out, '--voxel-size', '0.1'],
        'extract_clip_feat': ['--data-root', tiny_rooms, '--weights', clip, '--output-dir', out],
        'build_uv_index': ['--data-root', tiny_rooms, '--output-dir', out],
        'infer': [room, '--out', out, '--voxel-size', '0.2', '--device', 'cpu'],
        'fit_field': [room, '--out', out, '--device', 'cpu', '--set', *SMALL_FIT],
        # its log goes to a file too, which the limit of files holds for
        'train': arguments(tiny_rooms, out, 'train_cfg.max_epochs=1', 'log_level=ERROR')[1:],
    }


TOOLS = ('create_data', 'extract_clip_feat', 'build_uv_index', 'infer', 'fit_field', 'train')


@pytest.fixture(scope='module')
def open_place(room, tiny_rooms, clip) -> Iterator[Path]:
    """A folder that everybody can read, with copies of the inputs, and a folder in it to write."""
    place = Path(tempfile.mkdtemp())
    shutil.copytree(room, place / 'room')
    shutil.copytree(tiny_rooms, place / 'rooms')
    shutil.copy(clip, place / 'clip.pth')
    (place / 'closed').mkdir()
    for path in (place, *place.rglob('*')):
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield place
    shutil.rmtree(place)


def refused(server: ToolServer, tool: str, words: list, part: str, **how: object) -> None:
    """The tool ends with status 2 and one line that holds ``part``."""
    status = server.wait(server.start([f'tools/{tool}.py', *words], **how))
    said = server.log.read_text()
    assert status == 2, said[-2000:]
    assert 'Traceback' not in said, said[-2000:]
    (line,) = [line for line in said.splitlines() if line.startswith('error: ')]
    assert part in line


@pytest.mark.parametrize('tool', TOOLS)
def test_folders_that_may_not_be_written(server, open_place, tool):
    if os.getuid():
        pytest.skip('only root can become somebody else')
    inputs, closed = (open_place / name for name in ('room', 'rooms', 'clip.pth')), 'closed'
    words = commands(*inputs, open_place / closed / 'out')[tool]
    refused(server, tool, words, f'{open_place / closed}', uid=NOBODY)
    assert list((open_place / closed).iterdir()) == []


@pytest.mark.parametrize('tool', TOOLS)
def test_no_space_for_the_first_larger_file(server, room, tiny_rooms, clip, tmp_path, tool):
    """Files end at 10 kB: told with the path, and the next run with space is whole."""
    words = commands(room, tiny_rooms, clip, tmp_path / 'out')[tool]
    refused(server, tool, words, f'{tmp_path}', file_bytes=10_000)
    left = [path for path in (tmp_path / 'out').rglob('*') if atomic._TEMPORARY.match(path.name)]
    assert left == []
    server.run([f'tools/{tool}.py', *words])


@pytest.mark.parametrize('tool', TOOLS)
def test_an_output_that_is_a_file_stays_one(server, room, tiny_rooms, clip, tmp_path, tool):
    out = tmp_path / 'out'
    out.write_text('mine')
    refused(server, tool, commands(room, tiny_rooms, clip, out)[tool], f'{out}')
    assert out.read_text() == 'mine'


def test_links_in_a_ring_end(server, room, tmp_path):
    scans = tmp_path / 'scans'
    shutil.copytree(room, scans / 'room')
    (scans / 'again').symlink_to(scans)
    (scans / 'me').symlink_to(scans / 'me')
    for tool, words in (
        ('create_data', ['posed_rgbd', '--root', scans, '--out', tmp_path / 'root']),
        ('infer', [scans, '--out', tmp_path / 'out', '--voxel-size', '0.2', '--device', 'cpu']),
    ):
        status = server.wait(server.start([f'tools/{tool}.py', *words]))
        assert status in (0, 2)
        assert 'Traceback' not in server.log.read_text(), server.log.read_text()[-2000:]


def test_ctrl_c_is_one_word_and_130(server, tiny_rooms, tmp_path):
    pid = server.start(arguments(tiny_rooms, tmp_path, 'train_cfg.max_epochs=500'))
    for _ in range(600):
        if server.log.is_file() and 'Epoch(train)' in server.log.read_text():
            break
        time.sleep(0.2)
    os.kill(pid, signal.SIGINT)
    assert server.wait(pid) == 130
    said = server.log.read_text()
    assert said.rstrip().endswith('interrupted')
    assert 'Traceback' not in said


def test_two_runs_into_one_folder_leave_one_whole_result(server, room, tmp_path):
    words = ['tools/infer.py', room, '--voxel-size', '0.2', '--device', 'cpu', '--fresh', '--out']
    server.run([*words, tmp_path / 'alone'])
    both = [server.start([*words, tmp_path / 'both']) for _ in range(2)]
    assert [server.wait(pid) for pid in both] == [0, 0]

    names = sorted(path.name for path in (tmp_path / 'alone').iterdir())
    assert sorted(path.name for path in (tmp_path / 'both').iterdir()) == names
    for name in ('segmentation.ply', 'instances.json', 'top.png'):
        assert (tmp_path / 'both' / name).read_bytes() == (tmp_path / 'alone' / name).read_bytes()


@pytest.mark.parametrize('kind', ['cut', 'flipped', 'text'])
def test_damaged_weights_are_one_line(server, tiny_rooms, clip, tmp_path, kind):
    """What ``load_from``, ``--resume`` and the extraction are given."""
    torch.save({'state_dict': {'a.weight': torch.randn(50, 50)}}, tmp_path / 'start.pth')
    for source, name in ((tmp_path / 'start.pth', 'weights.pth'), (clip, 'clip.pth')):
        content = bytearray(source.read_bytes())
        content[len(content) // 2] ^= 16
        (tmp_path / name).write_bytes(
            {'cut': content[: len(content) // 3], 'flipped': content, 'text': b'no weights'}[kind]
        )
    words = arguments(tiny_rooms, tmp_path / 'out', f'load_from={tmp_path / "weights.pth"}')[1:]
    refused(server, 'train', words, 'weights.pth: ')
    words = ['--data-root', tiny_rooms, '--output-dir', tmp_path / 'feat', '--weights']
    refused(server, 'extract_clip_feat', [*words, tmp_path / 'clip.pth'], 'clip.pth')


FLIPPED = {
    'infer': 'room/frame-000040.depth.png',
    'create_data': 'room/frame-000040.pose.txt',
    'fit_field': 'room/camera-intrinsics.txt',
    'extract_clip_feat': 'rooms/oneformer3d_infos_train.json',
    'build_uv_index': 'rooms/points',
    'train': 'rooms/semantic_mask',
}


@pytest.mark.parametrize('tool', FLIPPED)
def test_flipped_bits_are_a_result_or_one_line(server, room, tiny_rooms, clip, tmp_path, tool):
    """Of files as the tools read them."""
    rng = np.random.default_rng(len(tool))
    shutil.copytree(room, tmp_path / 'room')
    shutil.copytree(tiny_rooms, tmp_path / 'rooms')
    damaged = tmp_path / FLIPPED[tool]
    damaged = sorted(damaged.iterdir())[0] if damaged.is_dir() else damaged
    content = damaged.read_bytes()
    for number in range(3):
        changed = bytearray(content)
        changed[rng.integers(len(content))] ^= 1 << rng.integers(8)
        damaged.write_bytes(changed)
        out = tmp_path / str(number)
        words = commands(tmp_path / 'room', tmp_path / 'rooms', clip, out)[tool]
        status = server.wait(server.start([f'tools/{tool}.py', *words]))
        said = server.log.read_text()
        assert status in (0, 1, 2), said[-2000:]
        assert 'Traceback' not in said, said[-2000:]
        assert status == 0 or sum(li.startswith('error: ') for li in said.splitlines()) == 1
