"""Trainings that are told to end, that share a folder, or whose data workers fail."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from oneformer3d.files.lock import ProcessLock

from .conftest import ENVIRONMENT, REPOSITORY
from .test_train import CONFIG, arguments, assert_same_weights, weights

EPOCHS = (
    'train_cfg.max_epochs=2',
    'param_scheduler.end=2',
    'train_cfg.val_interval=9',
    'default_hooks.checkpoint.interval=1',
)
WORKERS = ('train_dataloader.num_workers=1',)


def start(*command):
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=REPOSITORY,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def error_of(result):
    (line,) = [line for line in result.stderr.splitlines() if line.startswith('error:')]
    return line


@pytest.fixture(scope='module')
def troubled(tmp_path_factory):
    """A config with a step or a hook that fails."""
    path = tmp_path_factory.mktemp('troubled') / 'troubled.py'

    def write(trouble):
        path.write_text(
            f"_base_ = ['{(REPOSITORY / CONFIG).resolve()}']\n"
            "custom_imports = dict(imports=['oneformer3d', 'tests.helpers.troubled_training'])\n"
            f'{trouble}\n'
        )
        return path

    return write


def test_a_training_ended_within_an_epoch_goes_on_there_bit_by_bit(run_tool, tiny_rooms, tmp_path):
    straight, stopped = tmp_path / 'straight', tmp_path / 'stopped'
    run_tool(*arguments(tiny_rooms, straight, *EPOCHS))

    # as a job manager does it: to all processes, the data workers too
    run = start(*arguments(tiny_rooms, stopped, *EPOCHS, *WORKERS))
    for line in run.stdout:
        if 'Epoch(train)' in line and '[2]' in line:
            os.killpg(run.pid, signal.SIGTERM)
            break
    output = run.communicate()[0]
    assert run.returncode == 143, output
    (saved,) = stopped.glob('epoch_1_iter_*.pth')
    assert 4 < int(saved.stem.rpartition('_')[2]) < 9
    assert 'ended by SIGTERM' in output

    run_tool(*arguments(tiny_rooms, stopped, *EPOCHS), '--resume')
    assert_same_weights(weights(stopped, 2), weights(straight, 2), rtol=0, atol=0)
    assert not saved.exists(), 'a later checkpoint is there'


def test_a_training_ended_after_any_step_goes_on_bit_by_bit(server, tiny_rooms, tmp_path, troubled):
    """Two epochs of four steps: also after the last of an epoch, when none of it is left."""
    server.run(arguments(tiny_rooms, tmp_path / 'straight', *EPOCHS))
    for step in (3, 4, 8):
        config = troubled(f"default_hooks = dict(tell=dict(type='TellToEnd', step={step}))")
        command = arguments(tiny_rooms, tmp_path / str(step), *EPOCHS, config=config)
        assert server.wait(server.start(command)) == 143
        assert len(list((tmp_path / str(step)).glob(f'epoch_*_iter_{step}.pth'))) == 1

        server.run([*command, '--resume'])
        actual, expected = weights(tmp_path / str(step), 2), weights(tmp_path / 'straight', 2)
        assert_same_weights(actual, expected, rtol=0, atol=0)


AVERAGE = """
custom_hooks = [
    dict(type='SafeCheckpointHook'),
    dict(type='StopHook'),
    dict(
        type='EMAHook', ema_type='ExponentialMovingAverage', momentum=1e-3, update_buffers=True
    ),
]
"""


def test_averaged_weights_go_on_bit_by_bit_too(server, tiny_rooms, tmp_path, troubled):
    """A checkpoint holds the average, and beside it the weights that training goes on from."""
    straight, stopped = tmp_path / 'straight', tmp_path / 'stopped'
    server.run(arguments(tiny_rooms, straight, *EPOCHS, config=troubled(AVERAGE)))

    tell = "default_hooks = dict(tell=dict(type='TellToEnd', step=6))"
    command = arguments(tiny_rooms, stopped, *EPOCHS, config=troubled(AVERAGE + tell))
    assert server.wait(server.start(command)) == 143
    server.run([*command, '--resume'])

    actual, expected = (torch.load(run / 'epoch_2.pth') for run in (stopped, straight))
    for kind in ('state_dict', 'ema_state_dict'):
        assert_same_weights(actual[kind], expected[kind], rtol=0, atol=0)
    # eight steps of a thousandth: the average has hardly left the first weights
    key = 'decoder.out_cls.0.weight'
    assert not torch.equal(actual['state_dict'][key], actual['ema_state_dict'][f'module.{key}'])


def test_the_first_loss_that_is_not_finite_ends_it_and_keeps_the_good_checkpoint(
    run_tool, tiny_rooms, tmp_path, troubled
):
    config = troubled("default_hooks = dict(lose=dict(type='LoseNumber', step=6))")
    options = (*EPOCHS, 'default_hooks.checkpoint.max_keep_ckpts=1')
    result = run_tool(*arguments(tiny_rooms, tmp_path, *options, config=config), status=2)
    line = error_of(result)
    assert 'step 6: not finite: ' in line
    assert 'loss' in line
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    assert all(torch.isfinite(value).all() for value in weights(tmp_path, 1).values())


def test_a_work_dir_has_one_training_at_a_time(run_tool, tiny_rooms, tmp_path):
    with ProcessLock(tmp_path / 'train.pid', tmp_path, 'a test'):
        result = run_tool(*arguments(tiny_rooms, tmp_path), status=2)
    assert f'being written by process {os.getpid()} on ' in error_of(result)


@pytest.mark.parametrize(
    ('kind', 'cause'),
    [
        ('die', r'DataLoader worker .* (killed by signal: Killed|exited unexpectedly)'),
        ('hang', 'DataLoader timed out after 3 seconds'),
    ],
)
def test_a_data_worker_that_fails_ends_it_with_the_name(
    run_tool, tiny_rooms, tmp_path, troubled, kind, cause
):
    scene = sorted(path.stem for path in (tiny_rooms / 'points').iterdir())[1]
    config = troubled(
        f"step = dict(type='Trouble', kind='{kind}', at='{scene}')\n"
        'steps = [*_base_.load_scene, step, *_base_.train_steps]\n'
        'train_dataloader = dict(dataset=dict(pipeline=steps))'
    )
    options = (*EPOCHS, *WORKERS, 'train_dataloader.timeout=3')
    result = run_tool(*arguments(tiny_rooms, tmp_path, *options, config=config), status=2)
    line = error_of(result)
    assert re.search(cause, line)
    assert scene in line


def test_shared_memory_is_looked_at_before_the_first_step(tiny_rooms, tmp_path):
    """With a ``/dev/shm`` of 64 KB, as a namespace of its own can have it."""
    private = ['unshare', '--mount', '--map-root-user']
    if not shutil.which('unshare') or subprocess.run([*private, 'true'], check=False).returncode:
        pytest.skip('this machine gives no mount namespace')
    mount = 'mount -t tmpfs -o size=64k tmpfs /dev/shm'
    command = arguments(tiny_rooms, tmp_path, *EPOCHS, *WORKERS)
    result = subprocess.run(
        [*private, 'sh', '-c', f'{mount} && exec "$@"', 'sh', sys.executable, *command],
        cwd=REPOSITORY,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    if 'mount' in result.stderr and 'denied' in result.stderr:
        pytest.skip('this machine mounts nothing')
    assert result.returncode == 2, result.stderr
    assert '/dev/shm: 0.1 MB are free, and 1 data workers hold about' in error_of(result)
