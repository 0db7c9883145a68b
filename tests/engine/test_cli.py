"""Tools end with one clear line on bad input."""

from argparse import Namespace

import pytest
from mmengine.config import Config

from oneformer3d.engine.cli import load_config, one_line, run_tool, set_work_dir


def test_expected_error_is_one_line_and_status_2(capsys):
    def main():
        raise ValueError('points/a.bin: NaN coordinates')

    with pytest.raises(SystemExit) as exit_info:
        run_tool(main)
    assert exit_info.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith('error: points/a.bin: NaN coordinates')
    assert stderr.count('\n') == 1


def test_traceback_on_demand(monkeypatch):
    def main():
        raise ValueError('x')

    monkeypatch.setenv('ONEFORMER3D_TRACEBACK', '1')
    with pytest.raises(ValueError, match='x'):
        run_tool(main)


def test_cause_inside_a_data_worker_is_shown():
    message = (
        'Caught ValueError in worker 0.\nOriginal Traceback:\n  File "x"\nValueError: a.bin: bad'
    )
    assert 'a.bin: bad' in one_line(ValueError(message))


def test_config_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such config'):
        load_config(tmp_path / 'absent.py')
    path = tmp_path / 'config.py'
    path.write_text('model = dict(a=1)\n')
    with pytest.raises(ValueError, match='modle'):
        load_config(path, {'modle.a': 2})
    cfg = load_config(path, {'model.a': 2, 'resume': True})
    assert cfg.model.a == 2
    assert cfg.resume


@pytest.mark.parametrize(
    ('argument', 'in_config', 'expected'),
    [('cli', 'config', 'cli'), (None, 'config', 'config'), (None, None, 'work_dirs/leaf')],
)
def test_work_dir_priority(argument, in_config, expected):
    cfg = Config(dict(work_dir=in_config) if in_config else {})
    set_work_dir(cfg, Namespace(work_dir=argument, config='configs/leaf.py'))
    assert cfg.work_dir == expected
