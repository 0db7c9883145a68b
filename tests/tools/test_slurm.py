"""The scripts for Slurm, with a stand-in for srun that says what it was given."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

EXPECTED = {
    'train': ['tools/train.py', 'CONFIG', '--work-dir', 'LAST', '--launcher', 'slurm', '--amp'],
    'test': ['tools/test.py', 'CONFIG', 'LAST', '--launcher', 'slurm', '--amp'],
}


@pytest.mark.parametrize('task', EXPECTED)
def test_srun_gets_the_tool_and_its_processes(task, tmp_path: Path) -> None:
    srun = tmp_path / 'srun'
    srun.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    script = f'tools/slurm_{task}.sh'
    environment = {
        **os.environ,
        'PATH': f'{tmp_path}:{os.environ["PATH"]}',
        'GPUS': '4',
        'GPUS_PER_NODE': '2',
        'SRUN_ARGS': '--time 10',
    }
    result = subprocess.run(
        ['bash', script, 'PARTITION', 'JOB', 'CONFIG', 'LAST', '--amp'],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    words = result.stdout.split('\n')[:-1]
    assert words[words.index('python') + 2 :] == EXPECTED[task]
    for word in ('--ntasks=4', '--ntasks-per-node=2', '--gres=gpu:2', '--job-name=JOB', '--time'):
        assert word in words

    few = subprocess.run(['bash', script, 'PARTITION'], cwd=REPOSITORY, capture_output=True)
    assert few.returncode == 2
