"""Tools that are killed, or told to end, at random moments, and started again until they are done.

Whatever the moment: what is there is whole, and in the end it is what an undisturbed run leaves.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from oneformer3d.files.checkpoints import check_whole, load_checkpoint_file
from oneformer3d.store import FeatureStore, verify_store
from tests.helpers.clip_files import write_small_clip
from tests.helpers.forked_tools import ToolServer
from tests.helpers.rgbd_scenes import render_views, write_seven_scenes
from tests.tools.test_train import arguments

TIMES = ('summary.json', 'report.json')  # hold seconds
QUICK_FIT = ('steps=20', 'batch_rays=64', 'coarse_samples=4', 'fine_samples=4')
QUICK_FIT += ('view_coarse_samples=4', 'view_fine_samples=4', 'save_seconds=0')


@dataclass(frozen=True)
class Case:
    """A tool on two rooms.

    Attributes:
        command: writes to a folder, and goes on there when it is given again.
        told: exit statuses of a tool that was told to end; it may just have finished.
        check: of a folder at any moment.
        content: of a folder in the end, to compare.
    """

    command: Callable[[Path], list[str | Path]]
    check: Callable[[Path], None]
    content: Callable[[Path], dict]
    told: tuple[int, ...] = (143,)


@pytest.fixture(scope='module')
def rooms(tmp_path_factory) -> Path:
    """Two recordings, a data root made of them, and a CLIP."""
    folder = tmp_path_factory.mktemp('rooms')
    for name in ('kitchen', 'office'):
        write_seven_scenes(folder / 'recordings' / name, render_views(8))
    write_small_clip(folder / 'clip.pth')
    return folder


@pytest.fixture(scope='module')
def cases(rooms, tiny_rooms) -> dict[str, Case]:
    recordings, clip = rooms / 'recordings', rooms / 'clip.pth'
    epochs = ('train_cfg.max_epochs=2', 'param_scheduler.end=2', 'train_cfg.val_interval=9')
    epochs += ('default_hooks.checkpoint.interval=1',)
    return {
        'extract': Case(
            lambda out: ['tools/extract_clip_feat.py', '--data-root', tiny_rooms, '--weights', clip,
                         '--output-dir', out, '--batch-size', '2', '--resume'],
            check_store,
            lambda out: FeatureStore(out).checksums(),
        ),
        'create_data': Case(
            lambda out: ['tools/create_data.py', 'posed_rgbd', '--root', recordings, '--out', out,
                         '--voxel-size', '0.05'],
            lambda out: None,
            bytes_of,
        ),
        'train': Case(
            lambda out: [*arguments(tiny_rooms, out, *epochs), '--resume'],
            check_checkpoints,
            lambda out: values(load_checkpoint_file(out / 'epoch_2.pth')),
        ),
        'fit_field': Case(
            lambda out: ['tools/fit_field.py', recordings / 'office', '--out', out, '--device',
                         'cpu', '--set', *QUICK_FIT],
            check_checkpoints,
            field_of,
        ),
        'infer': Case(
            lambda out: ['tools/infer.py', recordings, '--out', out, '--device', 'cpu',
                         '--voxel-size', '0.1'],
            check_results,
            bytes_of,
        ),
    }  # fmt: skip


def check_store(out: Path) -> None:
    if (out / 'manifest.json').is_file():
        assert verify_store(out) == []


def check_checkpoints(out: Path) -> None:
    for path in out.glob('*.pth'):
        if not path.name.startswith('.'):  # a scrap of the killed writer, which the next sweeps
            check_whole(path)


def check_results(out: Path) -> None:
    """A summary vouches for the files beside it."""
    for summary in out.glob('*/summary.json'):
        assert {path.suffix for path in summary.parent.iterdir()} >= {'.ply', '.npz', '.png'}


def bytes_of(out: Path) -> dict[str, object]:
    """All files; archives by their arrays, files with times by their presence."""
    files = [path for path in out.rglob('*') if path.is_file()]
    return {str(path.relative_to(out)): one(path) for path in files}


def one(path: Path) -> object:
    if path.suffix == '.npz':
        with np.load(path) as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files}
    return None if path.name in TIMES else path.read_bytes()


def field_of(out: Path) -> dict[str, bytes]:
    from oneformer3d.fields.fitting.field_file import load_field

    return values(load_field(out / 'field.pth')[0].field.state_dict())


def values(state_dict: dict) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in state_dict.items()}


def assert_same_content(actual: dict, expected: dict) -> None:
    """Names what differs; pytest's own comparison of long bytes takes many minutes."""
    assert actual.keys() == expected.keys()
    differ = [name for name, value in expected.items() if actual[name] != value]
    assert differ == []


def assert_no_traceback(server: ToolServer) -> None:
    """None but Python's own about a signal that came while it freed an object."""
    text = server.text()
    assert text.count('Traceback') == text.count('Exception ignored'), text[-2000:]


def disturb(server: ToolServer, case: Case, out: Path, number: int, after: float) -> int:
    """Start the tool, send it a signal after some seconds; its exit status."""
    pid = server.start(case.command(out))
    time.sleep(after)
    os.kill(pid, number)
    return server.wait(pid)


def test_killed_or_told_to_end_once(server, cases, tmp_path, tool):
    case = cases[tool]
    seconds = server.run(case.command(tmp_path / 'clean'))
    clean = case.content(tmp_path / 'clean')
    rng = np.random.default_rng(len(tool))
    for number, ends in ((signal.SIGKILL, (-signal.SIGKILL,)), (signal.SIGTERM, case.told)):
        out = tmp_path / number.name
        status = disturb(server, case, out, number, rng.uniform(0.2, 0.7) * seconds)
        assert status in (*ends, 0), server.text()[-2000:]
        assert_no_traceback(server)
        case.check(out)
        server.run(case.command(out))
        assert_same_content(case.content(out), clean)


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_killed_or_told_to_end_twenty_times(server, cases, tmp_path, tool, number):
    case = cases[tool]
    seconds = server.run(case.command(tmp_path / 'clean'))
    clean = case.content(tmp_path / 'clean')
    rng, num_disturbed, out = np.random.default_rng(0), 0, None
    while num_disturbed < 20:
        if out is None:
            out = tmp_path / str(num_disturbed)
        status = disturb(server, case, out, number, rng.uniform(0, 1) * seconds)
        if status == -signal.SIGTERM:  # before the tool could listen
            assert server.text() == ''
        else:
            assert status in (-signal.SIGKILL, *case.told, 0), server.text()[-2000:]
        assert_no_traceback(server)
        num_disturbed += status != 0
        case.check(out)

        # now and then it is let to its end
        if status == 0 or rng.uniform() < 0.3 or num_disturbed == 20:
            seconds *= 0.7 if status == 0 else 1  # the machine is quicker than it was
            server.run(case.command(out))
            assert_same_content(case.content(out), clean)
            out = None


@pytest.mark.parametrize(('tool', 'num_ranks'), [('extract', 1), ('extract', 3), ('infer', 2)])
def test_one_of_some_ranks_is_killed_and_any_number_goes_on(
    server, cases, tmp_path, tool, num_ranks
):
    """Shares of the frames, or of the scans: the same set in the end, made by one process."""
    case = cases[tool]
    seconds = server.run(case.command(tmp_path / 'clean'))
    ranks = [
        server.start(case.command(tmp_path / 'out'), RANK=str(rank), WORLD_SIZE=str(num_ranks))
        for rank in range(num_ranks)
    ]
    time.sleep(0.5 * seconds)
    os.kill(ranks[-1], signal.SIGKILL)
    assert server.wait(ranks[-1]) in (-signal.SIGKILL, 0)
    assert [server.wait(pid) for pid in ranks[:-1]] == [0] * (num_ranks - 1)

    case.check(tmp_path / 'out')
    server.run(case.command(tmp_path / 'out'))
    assert_same_content(case.content(tmp_path / 'out'), case.content(tmp_path / 'clean'))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'tool' in metafunc.fixturenames and 'num_ranks' not in metafunc.fixturenames:
        metafunc.parametrize('tool', ['extract', 'create_data', 'train', 'fit_field', 'infer'])
