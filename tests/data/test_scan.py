"""The one way in: folders that contradict themselves are named, what is stated wins."""

from pathlib import Path

import numpy as np
import pytest

from oneformer3d.data.scan import read_scan
from tests.conftest import REPOSITORY

CH5 = REPOSITORY / 'tests' / 'fixtures' / 'slambook2_ch5'


def test_a_sound_recording_is_read_without_a_word():
    scan = read_scan(CH5)
    assert scan.warnings == ()
    assert len(scan.points) > 50_000
    assert len(scan.recording.frames) == 5
    assert scan.path == str(CH5)


def test_a_recording_that_contradicts_itself_is_named():
    """Half of the true depth, which the user states, so that nothing is tried in its place."""
    scan = read_scan(CH5, depth_scale=2000)
    assert any('frames contradict each other' in warning for warning in scan.warnings)


@pytest.mark.parametrize('source', ['array', 'folder'])
def test_the_stated_axis_is_up(source):
    scan = read_scan(CH5 if source == 'folder' else np.eye(3), up='-y')
    assert scan.up.tolist() == [0, -1, 0]


def test_what_is_missing_is_said(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r'none\.ply: no such file'):
        read_scan(tmp_path / 'none.ply')
    with pytest.raises(FileNotFoundError, match='no posed RGB-D frames; found there: nothing'):
        read_scan(tmp_path)
