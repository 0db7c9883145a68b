"""tools/doctor.py: what it prints, and its exit status."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from oneformer3d.data.posed_rgbd import read_matrix
from tests.helpers.load_tool import load_tool


def test_the_tool(tiny_rooms, tmp_path, capsys):
    source = sorted((tiny_rooms / 'posed_images').iterdir())[0]
    room = Path(shutil.copytree(source, tmp_path / 'room'))
    tool = load_tool('doctor')
    tool.main([str(room)])
    assert 'nothing to fix' in capsys.readouterr().out
    for path in room.glob('*.txt'):
        if path.stem.isdigit():
            np.savetxt(path, np.linalg.inv(read_matrix(path, 4)))
    with pytest.raises(SystemExit) as exit_info:
        tool.main([str(room), '--json'])
    assert exit_info.value.code == 1
    mends = json.loads(capsys.readouterr().out)['mends']
    assert mends == ['replace every pose by inv(pose)']
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no posed RGB-D frames'):
        tool.main([str(tmp_path / 'empty')])
