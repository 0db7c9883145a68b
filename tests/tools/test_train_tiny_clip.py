"""The command: help, one line on bad input."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, 'tools/train_tiny_clip.py', *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_help_and_bad_input(tmp_path) -> None:
    shown = run('--help')
    assert shown.returncode == 0
    assert '--data' in shown.stdout
    missing = run('--data', str(tmp_path), '--out', str(tmp_path / 'out'))
    assert missing.returncode != 0
    assert 'oneformer3d_infos_train.json' in missing.stderr.splitlines()[-1]
    assert 'Traceback' not in missing.stderr
    assert not (tmp_path / 'out').exists()
