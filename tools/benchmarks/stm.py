"""Sampling of the STM decoder: one table and one gather against the sampling as it is described.

The work on both sides: points of all queries on a pyramid of T frames, forward and backward; once
with a pyramid that is trained and once with a frozen one, where points alone have gradients.

    ours       ``level_table`` once and ``SAMPLE4D`` in every stage
    described  per level ``grid_sample`` with the points repeated for every frame, times the level's
               weight, summed

The sides take turns and the median counts; processor seconds stand beside the clock's, since they
hold on a busy machine too. Peak memory is measured in a process for each side and counts what it
needs beyond maps and points, gradients included. A first check compares values and gradients.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STATUS = Path('/proc/self/status')
SIDES = {'ours': 'table and weighted gather', 'described': 'grid_sample of each level'}
PYRAMIDS = ('trained', 'frozen')
SIZES = (
    'batch_size',
    'queries',
    'groups',
    'points',
    'channels',
    'frames',
    'height',
    'width',
    'stages',
    'threads',
    'seed',
)
STRIDES = (4, 8, 16, 32)
TOLERANCE = 1e-3  # of gradients, which are sums of many numbers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the pyramid and of the decoder, and how they are measured."""
    parser.add_argument('--batch_size', type=int, default=1, help='clips')
    parser.add_argument('--queries', type=int, default=100, help='of a clip')
    parser.add_argument('--groups', type=int, default=4, help='of channels')
    parser.add_argument('--points', type=int, default=32, help='of a group')
    parser.add_argument('--channels', type=int, default=256, help='of the maps')
    parser.add_argument('--frames', type=int, default=4, help='of a clip')
    parser.add_argument('--height', type=int, default=256, help='of the frames in pixels')
    parser.add_argument('--width', type=int, default=320, help='of the frames in pixels')
    parser.add_argument('--stages', type=int, default=6, help='that read one pyramid')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    parser.add_argument('--repeats', type=int, default=3, help='runs of each side')
    parser.add_argument('--seed', type=int, default=0, help='of maps and points')


def run(args: argparse.Namespace) -> dict:
    """Measure both sides, print a table and return the numbers.

    Returns:
        For 'trained' and 'frozen' ``{side: {'seconds', 'cpu_seconds', 'peak_mb'}}``, 'speedup'
        (of processor time) and 'memory' (ours over described); 'arguments' beside them. peak_mb
        and memory are None where the system does not tell.

    Raises:
        ValueError: sizes below 1 or frames smaller than the coarsest cell, or sides that disagree.
        RuntimeError: a measuring process failed.
    """
    sizes = {name: getattr(args, name) for name in SIZES}
    for name in (*SIZES[:-1], 'repeats'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name} must be at least 1, got {getattr(args, name)}')
    if min(args.height, args.width) < STRIDES[-1]:
        raise ValueError(f'--height and --width must be at least {STRIDES[-1]}')
    result: dict = {'arguments': {**sizes, 'repeats': args.repeats}}
    for pyramid in PYRAMIDS:
        row = _run_in_child('time', pyramid, {**sizes, 'repeats': args.repeats})
        for side in SIDES:
            row[side].update(_run_in_child(side, pyramid, sizes))
        row['speedup'] = row['described']['cpu_seconds'] / row['ours']['cpu_seconds']
        peaks = [row[side]['peak_mb'] for side in ('ours', 'described')]
        row['memory'] = None if None in peaks else peaks[0] / peaks[1]
        result[pyramid] = row
        _print_table(pyramid, row, sizes)
    return result


def _print_table(pyramid: str, row: dict, sizes: dict[str, int]) -> None:
    print(
        f'{pyramid} pyramid, {sizes["stages"]} stages of {sizes["queries"]} queries x '
        f'{sizes["groups"]} groups x {sizes["points"]} points, {sizes["frames"]} frames of '
        f'{sizes["height"]} x {sizes["width"]} pixels, {sizes["channels"]} channels'
    )
    print(f'{"":28}{"seconds":>9}{"CPU s":>9}{"peak MB":>9}')
    for side, label in SIDES.items():
        numbers = row[side]
        line = f'{label:28}{numbers["seconds"]:9.3f}{numbers["cpu_seconds"]:9.3f}'
        if numbers['peak_mb'] is not None:
            line += f'{numbers["peak_mb"]:9.0f}'
        print(line)
    memory = '' if row['memory'] is None else f', {row["memory"]:.2f} of its memory'
    print(f'{row["speedup"]:.2f} times as fast as described{memory}')


def described_mhaq3d(sample_points, value, weight=None, n_points: int = 1):
    """The described sampling of one level; arguments and result as ``MHAQ3D``."""
    import torch.nn.functional as F

    batch_size, num_rows, num_columns, total, _ = sample_points.shape
    channels, num_frames, height, width = value.shape[1:]
    num_groups = total // n_points
    points = sample_points.view(batch_size, num_rows, num_columns, num_groups, n_points, 2)
    points = points.permute(0, 3, 1, 2, 4, 5).contiguous().flatten(0, 1)
    points = points.repeat(num_frames, 1, 1, 1, 1).flatten(2, 3) * 2.0 - 1.0
    maps = value.view(batch_size * num_groups, channels // num_groups, num_frames, height, width)
    maps = maps.permute(2, 0, 1, 3, 4).flatten(0, 1)
    out = F.grid_sample(maps, points, mode='bilinear', padding_mode='zeros', align_corners=False)
    if weight is not None:
        weight = weight.view(batch_size, num_rows, num_columns, num_groups, n_points)
        weight = weight.permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(2, 3)
        out *= weight.unsqueeze(1).repeat(num_frames, 1, 1, 1)
    out = out.view(
        num_frames,
        batch_size,
        num_groups,
        channels // num_groups,
        num_rows,
        num_columns,
        n_points,
    )
    return out.permute(1, 3, 2, 0, 6, 4, 5)


def described_sample4d(
    sample_points, values, featmap_strides, n_points=1, mapping_stride=3.0, tau=2.0
):
    """The described sampling of a pyramid; the first result of ``SAMPLE4D``."""
    import torch

    batch_size, num_rows, num_columns, total, _ = sample_points.shape
    channels, num_frames = values[0].shape[1:3]
    num_groups = total // n_points
    levels = sample_points[..., 2].clone() - mapping_stride
    grid = torch.arange(len(values), device=levels.device, dtype=levels.dtype)
    level_weights = (levels.unsqueeze(-1).clone() - grid).pow(2.0).div(tau).abs().neg()
    level_weights = torch.softmax(level_weights, dim=-1).unbind(-1)
    out = sample_points.new_zeros(
        batch_size,
        channels // num_groups,
        num_groups,
        num_frames,
        n_points,
        num_rows,
        num_columns,
    )
    for value, stride, weight in zip(values, featmap_strides, level_weights):
        size = value.new_tensor([value.size(4), value.size(3)]).view(1, 1, 1, 1, -1) * stride
        out += described_mhaq3d(sample_points[..., :2] / size, value, weight, n_points)
    return out


def make_inputs(sizes: dict[str, int], trained: bool) -> tuple[list, list]:
    """Maps of all levels, and the points of every stage."""
    import torch

    generator = torch.Generator().manual_seed(sizes['seed'])
    shape = (sizes['batch_size'], sizes['channels'], sizes['frames'])
    maps = [
        torch.randn(
            *shape, sizes['height'] // stride, sizes['width'] // stride, generator=generator
        ).requires_grad_(trained)
        for stride in STRIDES
    ]
    extent = torch.tensor([sizes['width'], sizes['height'], 4.0])
    least = torch.tensor([0.0, 0.0, 2.0])
    count = sizes['groups'] * sizes['points']
    points = [
        torch.rand(sizes['batch_size'], sizes['queries'], 1, count, 3, generator=generator)
        .mul(extent)
        .add(least)
        .requires_grad_()
        for _ in range(sizes['stages'])
    ]
    return maps, points


def step(side: str, maps: Sequence, points: Sequence, sizes: dict[str, int]):
    """Forward and backward of all stages; returns the sum that was differentiated."""
    from oneformer3d.stm.sampling import SAMPLE4D, level_table

    total = 0.0
    if side == 'ours':
        table = level_table(maps, STRIDES, sizes['groups'])
        for stage_points in points:
            total = (
                total + SAMPLE4D(stage_points, table, n_points=sizes['points'])[0].square().sum()
            )
    else:
        for stage_points in points:
            sampled = described_sample4d(stage_points, maps, STRIDES, sizes['points'])
            total = total + sampled.square().sum()
    total.backward()
    return total.detach()


def check(sizes: dict[str, int], trained: bool) -> None:
    """ValueError where the sides differ in value or gradient."""
    import torch

    results = []
    for side in SIDES:
        maps, points = make_inputs(sizes, trained)
        total = step(side, maps, points, sizes)
        leaves = [*points, *maps] if trained else points
        results.append([total, *(leaf.grad for leaf in leaves)])
    for ours, described in zip(*results):
        scale = float(described.abs().max()) + 1e-6
        if not torch.allclose(ours / scale, described / scale, atol=TOLERANCE):
            raise ValueError('ours and the described sampling disagree')


def _time(sizes: dict[str, int], trained: bool) -> dict:
    small = {**sizes, 'queries': min(8, sizes['queries']), 'stages': 1}
    check(small, trained)
    seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    maps, points = make_inputs(sizes, trained)
    for _ in range(sizes['repeats']):
        for side in SIDES:
            for leaf in (*maps, *points):
                leaf.grad = None
            start, cpu_start = time.perf_counter(), time.process_time()
            step(side, maps, points, sizes)
            passed = time.perf_counter() - start, time.process_time() - cpu_start
            seconds[side].append(passed)
    numbers: dict = {}
    for side, passed in seconds.items():
        clock, cpu = (statistics.median(column) for column in zip(*passed))
        numbers[side] = {'seconds': clock, 'cpu_seconds': cpu}
    return numbers


def _peak(side: str, sizes: dict[str, int], trained: bool) -> dict:
    """Peak memory of one step beyond maps and points."""
    small = {**sizes, 'height': 64, 'width': 64, 'queries': 2, 'stages': 1}
    step(side, *make_inputs(small, trained), small)  # what libraries need once is not counted
    maps, points = make_inputs(sizes, trained)
    before = _kilobytes('VmRSS') if STATUS.is_file() else 0
    step(side, maps, points, sizes)
    return {'peak_mb': (_kilobytes('VmHWM') - before) / 1024 if STATUS.is_file() else None}


def _kilobytes(field: str) -> int:
    """A field of /proc/self/status; unlike getrusage it knows nothing of the parent."""
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(f'{field}:'))
    return int(line.split()[1])


def _run_in_child(task: str, pyramid: str, sizes: dict[str, int]) -> dict:
    """Run this file as a program and read the last line that it prints."""
    print(f'measuring: {pyramid} pyramid, {SIDES.get(task, "seconds")} …', file=sys.stderr)
    # -P keeps this folder, whose file names are common words, off the import path.
    paths = [str(REPOSITORY), *filter(None, [os.environ.get('PYTHONPATH')])]
    process = subprocess.run(
        [sys.executable, '-P', str(Path(__file__).resolve()), task, pyramid, json.dumps(sizes)],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    if process.returncode != 0:
        raise RuntimeError(
            f'{task} of the {pyramid} pyramid: its process ended with status {process.returncode}'
        )
    return json.loads(process.stdout.splitlines()[-1])


def _child(task: str, pyramid: str, sizes: dict[str, int]) -> None:
    import torch

    torch.set_num_threads(sizes['threads'])
    trained = pyramid == 'trained'
    numbers = _time(sizes, trained) if task == 'time' else _peak(task, sizes, trained)
    print(json.dumps(numbers))


if __name__ == '__main__':
    _child(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
