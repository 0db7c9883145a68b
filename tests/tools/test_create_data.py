"""The command line of tools/create_data.py, mostly in this process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from oneformer3d.data.infos import read_infos
from oneformer3d.engine.cli import run_tool
from tests.helpers.rgbd_scenes import render_views, write_seven_scenes
from tests.helpers.scannet_tree import write_tree
from tools import create_data


def _run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['create_data.py', *map(str, arguments), '--no-progress'])
    run_tool(create_data.main)


def test_posed_rgbd(tmp_path, monkeypatch, capsys):
    write_seven_scenes(tmp_path / 'kitchen', render_views(4))
    options = ('--root', tmp_path / 'kitchen', '--out', tmp_path / 'out', '--voxel-size', 0.1)
    _run(monkeypatch, 'posed_rgbd', *options, '--split', 'mine', '--frame-step', 2, '--up', 'z')
    assert 'mine 1 scenes' in capsys.readouterr().out
    (scene,) = read_infos(tmp_path / 'out' / 'oneformer3d_infos_mine.json')['data_list']
    assert [image['frame'] for image in scene['images']] == ['000000', '000040']
    np.testing.assert_allclose(scene['axis_align_matrix'], np.eye(4))


def test_scannet200(tmp_path, monkeypatch, capsys):
    root = write_tree(tmp_path / 'scannet')
    _run(monkeypatch, 'scannet200', '--root', root, '--out', tmp_path / 'out', '--no-images')
    assert 'train 2 scenes, val 1 scenes' in capsys.readouterr().out
    infos = read_infos(tmp_path / 'out' / 'oneformer3d_infos_train.json')
    assert infos['metainfo']['dataset'] == 'scannet200'
    assert not (tmp_path / 'out' / 'posed_images').exists()


def test_every_room_that_is_left_out_is_named(run_tool, tmp_path):
    area = tmp_path / 'Area_1'
    for room in ('office_1', 'office_2', 'office_3', 'office_4'):
        (area / room).mkdir(parents=True)
    for room, line in (('office_1', '1 2 3 4 5 6'), ('office_4', '1 2 3 4 5')):
        (area / room / 'Annotations').mkdir()
        (area / room / 'Annotations/floor_1.txt').write_text(line)

    options = ('--root', tmp_path, '--out', tmp_path / 'out', '--no-progress')
    done = run_tool('tools/create_data.py', 's3dis', *options)
    log = done.stdout + done.stderr
    assert 'Area_1 1 scenes, train 1 scenes' in log
    for room in ('office_2', 'office_3'):
        assert f'{room}: left out: no folder Annotations' in log
    assert 'Area_1_office_4: left out: ' in log
    assert 'got 5 numbers' in log


def test_synthetic_arguments_reach_the_generator(tmp_path, monkeypatch, capsys):
    from oneformer3d.data.synthetic import generate

    calls = []

    def generate_dataset(out, **kwargs):
        calls.append((out, kwargs))
        return generate.DatasetSummary(3, 2, 1000, 4.0)

    monkeypatch.setattr(generate, 'generate_dataset', generate_dataset)
    options = ('--num-train', 2, '--num-val', 1, '--seed', 7, '--num-workers', 1)
    _run(monkeypatch, 'synthetic', '--out', tmp_path / 'rooms', *options)
    wanted = {'num_train': 2, 'num_val': 1, 'seed': 7, 'num_workers': 1, 'progress': False}
    wanted['realism'] = 'plain'
    assert calls == [(tmp_path / 'rooms', wanted)]
    assert '3 rooms (2 made now)' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'fault'),
    [
        (('s3dis', '--root', 'nowhere', '--out', 'x'), 'nowhere: no such folder'),
        (('scannet', '--root', 'nowhere', '--out', 'x'), 'none of scannetv2_'),
        (('posed_rgbd', '--root', 'nowhere', '--out', 'x'), 'nowhere: no such folder'),
        (('posed_rgbd', '--root', 'nowhere', '--out', 'file'), 'file: is not a folder'),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path, monkeypatch, capsys, arguments, fault):
    monkeypatch.chdir(tmp_path)
    Path('file').write_text('')
    with pytest.raises(SystemExit) as exit_info:
        _run(monkeypatch, *arguments)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert fault in error
    assert len(error.strip().splitlines()) == 1
    assert not Path('x').exists()


def test_help_lists_the_commands():
    tool = Path(create_data.__file__)
    done = subprocess.run(
        [sys.executable, str(tool), '--help'], capture_output=True, text=True, check=True
    )
    for command in ('synthetic', 'scannet', 'scannet200', 's3dis', 'posed_rgbd'):
        assert command in done.stdout


def test_unknown_command(monkeypatch, capsys):
    with pytest.raises(SystemExit) as exit_info:
        _run(monkeypatch, 'kitti')
    assert exit_info.value.code == 2
    assert "invalid choice: 'kitti'" in capsys.readouterr().err


def test_moving_shapes(tmp_path, monkeypatch, capsys):
    _run(monkeypatch, 'moving_shapes', '--out', tmp_path, '--num-train', 3, '--num-val', 1)
    assert '4 clips' in capsys.readouterr().out
    assert len(list((tmp_path / 'frames').iterdir())) == 5  # one once more in reverse
    with pytest.raises(SystemExit):
        _run(monkeypatch, 'moving_shapes', '--out', tmp_path, '--num-train', 0)
