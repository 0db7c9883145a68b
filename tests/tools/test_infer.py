"""tools/infer.py: its files, its messages, its exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from oneformer3d.engine.cli import run_tool
from oneformer3d.structures.segmentation import EXTRA_FILES, FILES
from tests.helpers.color_segmentor import two_block_scene, write_checkpoint, write_config
from tests.helpers.load_tool import load_tool

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A scan, a config, weights and an output folder."""
    two_block_scene(0.2).tofile(tmp_path / 'scan.bin')
    config, checkpoint = write_config(tmp_path), write_checkpoint(tmp_path)
    files = ['--config', str(config), '--checkpoint', str(checkpoint)]
    return [str(tmp_path / 'scan.bin'), *files, '--out', str(tmp_path / 'out')]


def run_in_process(arguments: list[str], monkeypatch) -> int:
    monkeypatch.setattr(sys, 'argv', ['infer.py', *arguments])
    try:
        run_tool(load_tool('infer').main)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_as_a_command(arguments, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
    }
    done = subprocess.run(
        [sys.executable, 'tools/infer.py', *arguments, '--device', 'cpu'],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == sorted(FILES)
    assert '6 instances' in done.stdout
    assert 'network 1/1' in done.stderr


def test_options_reach_the_inferencer(arguments, tmp_path: Path, monkeypatch, capsys) -> None:
    options = ['--score-thr', '0.72', '--max-points', '200', '--tile-margin', '0.4']
    assert run_in_process([*arguments, *options, '--voxel-size', '0'], monkeypatch) == 0
    summary = json.loads((tmp_path / 'out/summary.json').read_text())
    assert summary['num_instances'] == 4
    assert summary['num_tiles'] > 1
    assert summary['num_points_network'] == summary['num_points']
    assert summary['model']['config'] == str(tmp_path / 'config.py')
    assert 'chair' in capsys.readouterr().out


def test_extra_files(arguments, tmp_path: Path, monkeypatch) -> None:
    assert run_in_process([*arguments, '--extras', *EXTRA_FILES], monkeypatch) == 0
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == sorted(
        [*FILES, *EXTRA_FILES.values()]
    )


def test_it_can_be_run_again(arguments, tmp_path: Path, monkeypatch) -> None:
    for _ in range(2):
        assert run_in_process(arguments, monkeypatch) == 0
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == sorted(FILES)


def test_a_root_in_shares_goes_on_where_it_was(arguments, tmp_path, monkeypatch, capsys) -> None:
    root = tmp_path / 'scans'
    root.mkdir()
    for name in 'abc':
        two_block_scene(0.3).tofile(root / f'{name}.bin')
    options = [str(root), *arguments[1:]]

    assert run_in_process([*options, '--shard', '1/2'], monkeypatch) == 0
    assert [p.name for p in (tmp_path / 'out').iterdir()] == ['b']
    assert 'share 1 of 2: 1 of 3 scans' in capsys.readouterr().out

    # one that is broken keeps nobody else from being segmented
    (root / 'a.bin').write_bytes(b'123')
    assert run_in_process(options, monkeypatch) == 2
    said = capsys.readouterr()
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['b', 'c']
    assert said.out.count('finished already') == 1
    assert 'error: 1 of 3 scans failed' in said.err
    assert 'a.bin' in said.err

    written = (tmp_path / 'out/b/summary.json').stat().st_mtime_ns
    assert run_in_process([*options, '--fresh'], monkeypatch) == 2
    assert (tmp_path / 'out/b/summary.json').stat().st_mtime_ns > written


def test_components_instead_of_masks(arguments, tmp_path: Path, monkeypatch) -> None:
    options = ['--instances', 'components', '--component-radius', '1000']
    assert run_in_process([*arguments, *options], monkeypatch) == 0
    # with such a radius all things are one
    summary = json.loads((tmp_path / 'out/summary.json').read_text())
    assert (summary['num_instances'], summary['instance_source']) == (1, 'components')


BAD = {
    'missing input': lambda tmp: (tmp / 'scan.bin').unlink(),
    'empty input': lambda tmp: (tmp / 'scan.bin').write_bytes(b''),
    'odd input': lambda tmp: (tmp / 'scan.bin').write_bytes(b'123'),
    'nan input': lambda tmp: np.full((5, 6), np.nan, np.float32).tofile(tmp / 'scan.bin'),
    'missing config': lambda tmp: (tmp / 'config.py').unlink(),
    'missing weights': lambda tmp: (tmp / 'weights.pth').unlink(),
    'broken weights': lambda tmp: (tmp / 'weights.pth').write_bytes(b'hello'),
    'other weights': lambda tmp: torch.save(
        {'state_dict': {'a': torch.zeros(2)}}, tmp / 'weights.pth'
    ),
}


@pytest.mark.parametrize('fault', BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments, tmp_path: Path, monkeypatch, capsys, fault: str
) -> None:
    BAD[fault](tmp_path)
    assert run_in_process(arguments, monkeypatch) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error:')]
    assert len(lines) == 1
    named = {'input': 'scan.bin', 'config': 'config.py', 'weights': 'weights.pth'}
    assert named[fault.split()[1]] in lines[0]
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'options',
    [
        ['--score-thr', '2'],
        ['--max-points', '0'],
        ['--voxel-size', '-1'],
        ['--device', 'abacus'],
        ['--component-radius', '0'],
        ['--instances', 'pieces'],
        ['--shard', '3/3'],
        ['--vocabulary', 'a chair'],
        ['--with-classes'],
        ['--clip-store', 'of a model that reads none'],
    ],
)
def test_bad_options(arguments, tmp_path: Path, monkeypatch, capsys, options) -> None:
    assert run_in_process([*arguments, *options], monkeypatch) == 2
    assert 'error:' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_config_needs_its_checkpoint(arguments, monkeypatch, capsys) -> None:
    at = arguments.index('--checkpoint')
    assert run_in_process(arguments[:at] + arguments[at + 2 :], monkeypatch) == 2
    assert 'belong together' in capsys.readouterr().err


def test_output_is_a_file(arguments, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / 'out').write_text('mine')
    assert run_in_process(arguments, monkeypatch) == 2
    assert (tmp_path / 'out').read_text() == 'mine'


def test_a_page_for_a_browser(arguments, tmp_path: Path, monkeypatch) -> None:
    assert run_in_process([*arguments, '--html'], monkeypatch) == 0
    page = (tmp_path / 'out/scene.html').read_text()
    assert '<title>scan.bin</title>' in page
    assert '"name": "chair"' in page
