"""tools/doctor.py: what it prints, its exit status, and the fixed copy."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from oneformer3d.data.layouts import find_layout
from oneformer3d.data.layouts.cameras import read_matrix
from tests.helpers.load_tool import load_tool
from tests.helpers.walk_scenes import write_walk


def test_the_tool(tmp_path, capsys):
    walk = write_walk(tmp_path / 'walk', 10)
    tool = load_tool('doctor')
    tool.main([str(walk)])
    assert 'verdict: sound' in capsys.readouterr().out

    broken = Path(shutil.copytree(walk, tmp_path / 'broken'))
    for path in broken.glob('*.pose.txt'):
        np.savetxt(path, np.linalg.inv(read_matrix(path, 4)))
    with pytest.raises(SystemExit) as exit_info:
        tool.main([str(broken), '--json'])
    assert exit_info.value.code == 1
    assert json.loads(capsys.readouterr().out)['fixes'] == ['poses: inv(pose)']

    tool.main([str(broken), '--fix', str(tmp_path / 'fixed')])
    capsys.readouterr()
    tool.main([str(tmp_path / 'fixed')])
    assert 'verdict: sound' in capsys.readouterr().out
    fixed, true = (find_layout(folder) for folder in (tmp_path / 'fixed', walk))
    for ours, theirs in zip(fixed.frames, true.frames, strict=True):
        np.testing.assert_allclose(ours.world_from_cam, theirs.world_from_cam, atol=1e-9)
        np.testing.assert_array_equal(ours.K, theirs.K)
        assert ours.depth_path.read_bytes() == theirs.depth_path.read_bytes()

    with pytest.raises(FileExistsError, match='exists already'):
        tool.main([str(broken), '--fix', str(tmp_path / 'fixed')])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no posed RGB-D frames'):
        tool.main([str(tmp_path / 'empty')])
