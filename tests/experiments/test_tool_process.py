"""Tools in their own processes: arguments, output, status and time of the right one."""

import os
import signal
from pathlib import Path

import pytest

from oneformer3d.experiments.tool_process import run_in_process

TOOL = """
import os, sys, time
import torch
print(sys.argv[1:], os.getcwd(), torch.get_num_threads(), os.environ['OMP_NUM_THREADS'])
print('a warning', file=sys.stderr)
if sys.argv[1] == 'work':
    end = time.process_time() + 1
    while time.process_time() < end:
        pass
if sys.argv[1] == 'fail':
    sys.exit(3)
if sys.argv[1] == 'raise':
    raise OSError('no disk')
if sys.argv[1] == 'die':
    os.kill(os.getpid(), int(sys.argv[2]))
"""


@pytest.fixture
def tool(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'tool.py'
    path.write_text(TOOL)
    return path


def test_arguments_output_and_time(tool, tmp_path, capfd):
    log = tmp_path / 'log.txt'
    status, seconds = run_in_process([str(tool), 'work', 'a b'], log, threads=1)
    assert status == 0
    assert 1.0 <= seconds < 5.0  # imports are not part of it
    assert capfd.readouterr() == ('', '')
    text = log.read_text()
    assert f"['work', 'a b'] {os.getcwd()} 1 1" in text
    assert 'a warning' in text
    run_in_process([str(tool), 'rest'], log, threads=2)
    assert "['rest'] " in log.read_text()
    assert log.read_text().startswith(text)
    assert ' 2 2' in log.read_text()


def test_where_there_is_a_gpu_nothing_is_forked(tool, tmp_path, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    log = tmp_path / 'log.txt'
    status, _ = run_in_process([str(tool), 'rest'], log, threads=1)
    assert status == 0
    assert f"['rest'] {os.getcwd()} 1 1" in log.read_text()
    assert run_in_process([str(tool), 'fail'], log)[0] == 3


@pytest.mark.parametrize(
    ('arguments', 'expected', 'message'),
    [
        (['fail'], 3, 'a warning'),
        (['raise'], 1, 'OSError: no disk'),
        (['die', str(int(signal.SIGKILL))], -signal.SIGKILL, None),
    ],
)
def test_failures_have_a_status(tool, tmp_path, arguments, expected, message):
    log = tmp_path / 'log.txt'
    assert run_in_process([str(tool), *arguments], log)[0] == expected
    if message is not None:
        assert message in log.read_text()
