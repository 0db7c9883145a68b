"""Training from the command line: resume, several processes, mixed precision, bad input."""

import json
import socket
from pathlib import Path

import pytest
import torch

CONFIG = 'configs/oneformer3d_synthetic.py'
SMALL_MODEL = (
    'model.encoder.num_channels=8',
    'model.encoder.backbone.num_planes=[8,16]',
    'model.decoder.in_channels=8',
    'model.decoder.d_model=16',
    'model.decoder.num_heads=2',
    'model.decoder.hidden_dim=16',
    'model.decoder.num_layers=1',
    'model.test_cfg.topk_insts=20',
)


def arguments(root: Path, work_dir: Path, *options: str, config: str | Path = CONFIG) -> list[str]:
    quick = ['train_dataloader.num_workers=0', 'val_dataloader.num_workers=0']
    quick += ['test_dataloader.num_workers=0', 'default_hooks.logger.interval=1']
    command = ['tools/train.py', str(config), '--work-dir', str(work_dir), '--data-root', str(root)]
    return [*command, '--cfg-options', *SMALL_MODEL, *quick, *options]


def weights(work_dir: Path, epoch: int) -> dict[str, torch.Tensor]:
    path = work_dir / f'epoch_{epoch}.pth'
    return torch.load(path, weights_only=True)['state_dict']


def assert_same_weights(actual: dict, expected: dict, **tolerance) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name], value, msg=lambda m, n=name: f'{n}: {m}', **tolerance
        )


def last_losses(work_dir: Path) -> dict:
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if 'loss' in line][-1]


def test_one_epoch_and_one_resumed_equal_two(run_tool, tiny_rooms, tmp_path):
    every = ('default_hooks.checkpoint.interval=1', 'train_cfg.val_interval=1')
    two = ('train_cfg.max_epochs=2', 'param_scheduler.end=2')
    run_tool(*arguments(tiny_rooms, tmp_path / 'straight', *every, *two))

    # the same two-epoch schedule, stopped after the first epoch
    stopped = tmp_path / 'stopped'
    run_tool(
        *arguments(tiny_rooms, stopped, *every, 'train_cfg.max_epochs=1', 'param_scheduler.end=2')
    )
    first = weights(stopped, 1)
    assert_same_weights(first, weights(tmp_path / 'straight', 1), rtol=0, atol=0)
    run_tool(*arguments(tiny_rooms, stopped, *every, *two), '--resume')

    second = weights(stopped, 2)
    assert_same_weights(second, weights(tmp_path / 'straight', 2), rtol=0, atol=0)
    name = 'decoder.out_cls.0.weight'
    assert not torch.equal(first[name], second[name]), 'the second epoch trained'


def test_two_processes_equal_one(run_tool, tiny_rooms, tmp_path):
    """Four scenes in one process or two and two in two: the same step, on averaged gradients.

    Batch statistics and the random choice of queries would differ by construction, so the
    batch norms are frozen, every superpoint is a query and nothing is augmented.
    """
    config = tmp_path / 'frozen_norms.py'
    config.write_text(
        f"_base_ = ['{Path(CONFIG).resolve()}']\n"
        "custom_imports = dict(imports=['oneformer3d', 'tests.helpers.freeze_norms'])\n"
    )
    options = (
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'param_scheduler.end=1',
        'model.query_thr=1.0',
        'model.encoder.random_grid_start=False',
        'optim_wrapper.optimizer.type=SGD',
        'optim_wrapper.optimizer.lr=0.1',
        'optim_wrapper.clip_grad=None',
        'default_hooks.freeze_norms.type=FreezeNorms',
        'train_dataloader.dataset.pipeline.RandomFlipBEV.prob_x=0',
        'train_dataloader.dataset.pipeline.RandomFlipBEV.prob_y=0',
        'train_dataloader.dataset.pipeline.RandomRotScaleTrans.rot_range=[0,0]',
        'train_dataloader.dataset.pipeline.RandomRotScaleTrans.scale_ratio_range=[1,1]',
    )
    whole = (*options, 'train_dataloader.batch_size=4')
    halves = (*options, 'train_dataloader.batch_size=2')
    run_tool(*arguments(tiny_rooms, tmp_path / 'one', *whole, config=config))
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    run_tool(
        *arguments(tiny_rooms, tmp_path / 'two', *halves, config=config),
        '--launcher',
        'pytorch',
        prefix=('-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={port}'),
    )
    assert_same_weights(
        weights(tmp_path / 'two', 1), weights(tmp_path / 'one', 1), rtol=1e-3, atol=1e-5
    )


def test_mixed_precision_learns_and_evaluates(run_tool, tiny_rooms, tmp_path):
    options = ('train_cfg.max_epochs=2', 'train_cfg.val_interval=2', 'param_scheduler.end=2')
    result = run_tool(*arguments(tiny_rooms, tmp_path, *options), '--amp')
    assert 'semantic/mIoU' in result.stdout + result.stderr
    losses = last_losses(tmp_path)
    assert 0 < losses['loss'] < float('inf')
    config = next(tmp_path.glob('*.py')).read_text()
    assert 'CPUAmpOptimWrapper' in config or 'AmpOptimWrapper' in config


@pytest.mark.parametrize(
    ('change', 'fault'),
    [
        (['modle.decoder.num_layers=2'], 'modle'),
        (['model.decoder.num_layer=2'], 'num_layer'),
        (['train_dataloader.dataset.data_root=absent'], 'absent'),
    ],
)
def test_bad_input_is_one_line(run_tool, tiny_rooms, tmp_path, change, fault):
    result = run_tool(*arguments(tiny_rooms, tmp_path, *change), status=2)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith('error:')]
    assert fault in line


def test_resume_from_another_model_is_one_line(run_tool, tiny_rooms, tmp_path):
    torch.save({'state_dict': {'layer.weight': torch.zeros(1)}, 'meta': {}}, tmp_path / 'other.pth')
    result = run_tool(
        'tools/test.py', CONFIG, tmp_path / 'other.pth', '--work-dir', tmp_path / 'test',
        '--data-root', tiny_rooms, status=2,
    )  # fmt: skip
    (line,) = [line for line in result.stderr.splitlines() if line.startswith('error:')]
    assert 'other.pth' in line


def test_a_damaged_last_checkpoint_is_passed_over_on_resume(run_tool, tiny_rooms, tmp_path):
    every = ('default_hooks.checkpoint.interval=1', 'train_cfg.val_interval=9')
    run = arguments(tiny_rooms, tmp_path, *every, 'train_cfg.max_epochs=2', 'param_scheduler.end=2')
    run_tool(*run)
    undisturbed = weights(tmp_path, 2)

    last = tmp_path / 'epoch_2.pth'
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 0x10
    last.write_bytes(content)
    result = run_tool(*run, '--resume')
    assert 'epoch_2.pth: damaged' in result.stderr
    assert_same_weights(weights(tmp_path, 2), undisturbed, rtol=0, atol=0)


def test_an_evaluation_leaves_the_best_checkpoint_and_a_picture(run_tool, tiny_rooms, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = (
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'param_scheduler.end=1',
        'default_hooks.visualization.type=SegVisualizationHook',
        'default_hooks.visualization.num_val=1',
        'visualizer.vis_backends.0.type=TensorboardVisBackend',
    )
    run_tool(*arguments(tiny_rooms, tmp_path, *options))
    assert (tmp_path / 'best_instance_AP50_epoch_1.pth').is_file()

    (event_file,) = tmp_path.rglob('events.out.tfevents.*')
    events = EventAccumulator(str(event_file)).Reload()
    assert 'instance/AP50' in events.Tags()['scalars']
    (name,) = events.Tags()['images']
    (image,) = events.Images(name)
    assert name.startswith('val_room')
    assert image.step == 4, 'steps of the training'
    assert image.width == 4 * 640
