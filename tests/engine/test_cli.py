"""Tools end with one clear line on bad input."""

import os
import signal
from argparse import Namespace

import pytest
from mmengine.config import Config

from oneformer3d.engine.cli import one_line, run_tool
from oneformer3d.engine.configs import load_config, set_work_dir


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


def test_told_to_end_is_143_even_where_a_library_makes_an_error_of_it():
    def main():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        except BaseException as error:
            raise SyntaxError('not the cause') from error

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as exit_info:
        run_tool(main)
    assert exit_info.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


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


CONFIG = """
data_root, clip_store = 'rooms', 'maps'
load = dict(type='LoadPosedViews', clip_store=clip_store, hide=None)
other = dict(type='Other', clip_store=None)
dataset = dict(type='Rooms', data_root=data_root, pipeline=[dict(type='Other'), load, other])
train_dataloader = dict(dataset=dict(type='Concat', datasets=[dataset, dataset]))
test_dataloader = dict(dataset=dataset)
model = dict(encoder=dict(clip_store=clip_store), num_layers=1)
"""


def test_folders_are_set_everywhere(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG)
    one_place = {'test_dataloader.dataset.data_root': 'single'}
    cfg = load_config(path, {**one_place, 'data_root': 'all', 'clip_store': 'store'})
    for dataset in cfg.train_dataloader.dataset.datasets:
        assert dataset.data_root == 'all'
        assert dataset.pipeline[1].clip_store == 'store'
        assert dataset.pipeline[2].clip_store is None
    assert cfg.test_dataloader.dataset.data_root == 'single'
    assert cfg.test_dataloader.dataset.pipeline[1].clip_store == 'store'
    assert cfg.model.encoder.clip_store == 'store'
    assert (cfg.data_root, cfg.clip_store) == ('all', 'store')

    path.write_text("clip_store = 'unused'\nmodel = dict(a=1)\n")
    with pytest.raises(ValueError, match=r'config\.py: has no clip_store to set'):
        load_config(path, {'clip_store': 'store'})


def test_steps_are_named_by_their_type(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG)
    pipeline = 'test_dataloader.dataset.pipeline'
    options = {f'{pipeline}.LoadPosedViews.hide': 'pixels', f'{pipeline}.0.type': 'Else'}
    cfg = load_config(path, options)
    assert cfg.test_dataloader.dataset.pipeline[1].hide == 'pixels'
    assert cfg.test_dataloader.dataset.pipeline[0].type == 'Else'
    for name in ('Absent', 'Other'):  # none, and two
        with pytest.raises(ValueError, match=f'expected one step {name} among'):
            load_config(path, {f'{pipeline}.{name}.hide': 'pixels'})


def test_steps_are_put_before_one(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG)
    pipeline = 'test_dataloader.dataset.pipeline'
    new = {f'{pipeline}.LoadPosedViews.before.{key}': x for key, x in dict(type='New', a=2).items()}
    cfg = load_config(path, {**new, f'{pipeline}.LoadPosedViews.hide': 'pixels'})
    steps = cfg.test_dataloader.dataset.pipeline
    assert [step.type for step in steps] == ['Other', 'New', 'LoadPosedViews', 'Other']
    assert (steps[1].a, steps[2].hide) == (2, 'pixels')
    training = cfg.train_dataloader.dataset.datasets[0].pipeline
    assert [step.type for step in training] == ['Other', 'LoadPosedViews', 'Other']

    for key, fault in {
        f'{pipeline}.LoadPosedViews.before.a': 'a new step needs a type',
        f'{pipeline}.Absent.before.type': 'expected one step Absent',
        'model.encoder.before.type': 'only lists have a place',
    }.items():
        with pytest.raises(ValueError, match=fault):
            load_config(path, {key: 'x'})


@pytest.mark.parametrize(
    ('argument', 'in_config', 'expected'),
    [('cli', 'config', 'cli'), (None, 'config', 'config'), (None, None, 'work_dirs/leaf')],
)
def test_work_dir_priority(argument, in_config, expected):
    cfg = Config(dict(work_dir=in_config) if in_config else {})
    set_work_dir(cfg, Namespace(work_dir=argument, config='configs/leaf.py'))
    assert cfg.work_dir == expected


@pytest.mark.parametrize(
    ('name', 'content', 'fault'),
    [
        ('a.yaml', '!!python/object/apply:os.mkdir [{made}]', 'could not determine a constructor'),
        ('a.yml', 'a: [1, 2', 'while parsing'),
        ('a.py', 'model = dict(', 'never closed'),
        ('a.py', 'model = absent', 'absent'),
        ('a.py', '', 'an empty config'),
        ('a.yaml', ' ', 'an empty config'),
        ('a.py', '# nothing', 'an empty config'),
        ('a.py', 'model = 1 / 0', 'division'),
        ('a.py', "_base_ = ['evil.yaml']", 'could not determine a constructor'),
    ],
)
def test_a_config_that_cannot_be_read_is_one_line_and_runs_nothing(tmp_path, name, content, fault):
    made = tmp_path / 'made by the config'
    (tmp_path / 'evil.yaml').write_text(f'!!python/object/apply:os.mkdir [{made}]')
    (tmp_path / name).write_text(content.format(made=made))
    with pytest.raises(ValueError, match=fault) as caught:
        load_config(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert not made.exists()
