"""Damaged files of up to a megabyte are read or refused in one line, soon and in little memory."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneformer3d.data.layouts import find_layout
from oneformer3d.files.left_out import LossRules
from tests.conftest import REPOSITORY
from tests.helpers.damage import MOST_BYTES, MOST_SECONDS, examine
from tests.helpers.damaged_samples import write_samples
from tests.helpers.rgbd_scenes import render_views, write_exported_scannet

SEED = 1
linux = pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='measured on Linux')


def faults_of(folder: Path, count: int, seed: int = SEED) -> list[str]:
    """What breaks a rule when every sample is damaged so many times, in one process."""
    done = subprocess.run(
        [sys.executable, '-m', 'tests.helpers.damage', str(folder), str(count), str(seed)],
        cwd=REPOSITORY,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@linux
@pytest.mark.parametrize('clouds', [True, False], ids=['clouds', 'recordings'])
def test_damage(tmp_path, clouds):
    write_samples(tmp_path, clouds)
    assert faults_of(tmp_path, 12 if clouds else 5) == []


@linux
@pytest.mark.slow
@pytest.mark.parametrize('clouds', [True, False], ids=['clouds', 'recordings'])
def test_much_damage(tmp_path, clouds):
    write_samples(tmp_path, clouds)
    assert faults_of(tmp_path, 200 if clouds else 60, seed=2) == []


def test_a_small_image_of_many_pixels_is_left_out(tmp_path):
    """150 KB that would take 300 MB: what is not there compresses well."""
    scene = write_exported_scannet(tmp_path / 'room', render_views(6))
    Image.fromarray(np.zeros((9000, 9000), np.uint16)).save(scene / 'depth' / '0.png')
    Image.fromarray(np.zeros((9000, 9000), np.uint8)).save(scene / 'color' / '1.jpg')
    found = find_layout(scene, rules=LossRules(max_lost=0.5))
    assert [name for name, _ in found.left_out] == ['0', '1']
    assert all('9000×9000 pixels, more than' in reason for _, reason in found.left_out)


@linux
def test_what_breaks_a_rule_is_found(tmp_path):
    """The harness itself: errors of other kinds, several lines, time and memory are told apart."""
    path = tmp_path / 'a'
    path.write_bytes(b'1 2 3')

    def two_lines() -> None:
        raise ValueError('a\nb')

    def wrong_kind() -> None:
        raise KeyError('a')

    def slow() -> None:
        started = time.process_time()
        while time.process_time() < started + MOST_SECONDS + 0.1:
            pass

    for read, word in (
        (two_lines, 'more than one line'),
        (wrong_kind, 'KeyError'),
        (slow, ' s'),
        (lambda: np.ones(MOST_BYTES // 4, np.int64), ' MB'),
    ):
        (fault,) = examine(path, read, 1, 0)
        assert word in fault
    assert examine(path, lambda: None, 3, 0) == []
    assert path.read_bytes() == b'1 2 3'
