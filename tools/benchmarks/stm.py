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
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer3d.stm.sampling import SAMPLE4D, level_table
from tools.benchmarks._measure import (
    add_integers,
    be_child,
    clocked,
    peak_memory,
    print_table,
    read_integers,
    run_in_child,
    take_turns,
)

SIDES = {'ours': 'table and weighted gather', 'described': 'grid_sample of each level'}
PYRAMIDS = ('trained', 'frozen')
STRIDES = (4, 8, 16, 32)
TOLERANCE = 1e-3  # of gradients, which are sums of many numbers
OPTIONS = {
    'batch_size': (1, 'clips'),
    'queries': (100, 'of a clip'),
    'groups': (4, 'of channels'),
    'points': (32, 'of a group'),
    'channels': (256, 'of the maps'),
    'frames': (4, 'of a clip'),
    'height': (256, 'of the frames in pixels'),
    'width': (320, 'of the frames in pixels'),
    'stages': (6, 'that read one pyramid'),
    'threads': (1, 'of torch'),
    'repeats': (3, 'runs of each side'),
    'seed': (0, 'of maps and points'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the pyramid and of the decoder, and how they are measured."""
    add_integers(parser, OPTIONS)


def run(args: argparse.Namespace) -> dict:
    """Measure both sides, print a table and return the numbers.

    Returns:
        For 'trained' and 'frozen' ``{side: {'seconds', 'cpu_seconds', 'spread', 'peak_mb'}}``,
        'speedup' (of processor time) and 'memory' (ours over described); 'arguments' beside them.
        peak_mb and memory are None where the system does not tell.

    Raises:
        ValueError: sizes below 1 or frames smaller than the coarsest cell, or sides that disagree.
        RuntimeError: a measuring process failed.
    """
    sizes = read_integers(args, tuple(OPTIONS))
    if min(args.height, args.width) < STRIDES[-1]:
        raise ValueError(f'--height and --width must be at least {STRIDES[-1]}')

    result: dict = {'arguments': sizes}
    for pyramid in PYRAMIDS:
        row = run_in_child(__file__, f'{pyramid} pyramid, seconds', 'time', pyramid, sizes)
        for side, label in SIDES.items():
            title = f'{pyramid} pyramid, {label}'
            row[side] |= run_in_child(__file__, title, 'peak', pyramid, side, sizes)
        row['speedup'] = row['described']['cpu_seconds'] / row['ours']['cpu_seconds']
        peaks = [row[side]['peak_mb'] for side in ('ours', 'described')]
        row['memory'] = None if None in peaks else peaks[0] / peaks[1]
        result[pyramid] = row
        show(pyramid, row, sizes)
    return result


def show(pyramid: str, row: dict, sizes: dict[str, int]) -> None:
    """Print the table of one pyramid."""
    print(
        '{} pyramid, {stages} stages of {queries} queries x {groups} groups x {points} points, '
        '{frames} frames of {height} x {width} pixels, {channels} channels'.format(pyramid, **sizes)
    )
    columns = {'seconds': '.3f', 'CPU s': '.3f', 'peak MB': '.0f', 'spread': '.0%'}
    names = ('seconds', 'cpu_seconds', 'peak_mb', 'spread')
    print_table(columns, {label: [row[side][n] for n in names] for side, label in SIDES.items()})
    memory = '' if row['memory'] is None else f', {row["memory"]:.2f} of its memory'
    print(f'{row["speedup"]:.2f} times as fast as described{memory}')


def described_mhaq3d(sample_points, value, weight=None, n_points: int = 1):
    """The described sampling of one level; arguments and result as ``MHAQ3D``."""
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

    shape = (num_frames, batch_size, num_groups, channels // num_groups)
    out = out.view(*shape, num_rows, num_columns, n_points)
    return out.permute(1, 3, 2, 0, 6, 4, 5)


def described_sample4d(
    sample_points, values, featmap_strides, n_points=1, mapping_stride=3.0, tau=2.0
):
    """The described sampling of a pyramid; the first result of ``SAMPLE4D``."""
    batch_size, num_rows, num_columns, total, _ = sample_points.shape
    channels, num_frames = values[0].shape[1:3]
    num_groups = total // n_points

    levels = sample_points[..., 2].clone() - mapping_stride
    grid = torch.arange(len(values), device=levels.device, dtype=levels.dtype)
    level_weights = (levels.unsqueeze(-1).clone() - grid).pow(2.0).div(tau).abs().neg()
    level_weights = torch.softmax(level_weights, dim=-1).unbind(-1)

    shape = (batch_size, channels // num_groups, num_groups, num_frames)
    out = sample_points.new_zeros(*shape, n_points, num_rows, num_columns)
    for value, stride, weight in zip(values, featmap_strides, level_weights):
        size = value.new_tensor([value.size(4), value.size(3)]).view(1, 1, 1, 1, -1) * stride
        out += described_mhaq3d(sample_points[..., :2] / size, value, weight, n_points)
    return out


def make_inputs(sizes: dict[str, int], trained: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Maps (B, C, T, h, w) of all levels, and the points (B, Q, 1, G·P, 3) of every stage."""
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


def step(
    side: str, maps: Sequence[Tensor], points: Sequence[Tensor], sizes: dict[str, int]
) -> Tensor:
    """Forward and backward of all stages; returns the sum that was differentiated."""
    total = 0.0
    if side == 'ours':
        table = level_table(maps, STRIDES, sizes['groups'])
    for stage_points in points:
        if side == 'ours':
            sampled = SAMPLE4D(stage_points, table, n_points=sizes['points'])[0]
        else:
            sampled = described_sample4d(stage_points, maps, STRIDES, sizes['points'])
        total = total + sampled.square().sum()
    total.backward()
    return total.detach()


def check(sizes: dict[str, int], trained: bool) -> None:
    """ValueError where the sides differ in value or gradient."""
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


def time_sides(pyramid: str, sizes: dict[str, int]) -> dict:
    """Median seconds of each side, after a check on a small pyramid."""
    torch.set_num_threads(sizes['threads'])
    trained = pyramid == 'trained'
    check({**sizes, 'queries': min(8, sizes['queries']), 'stages': 1}, trained)
    maps, points = make_inputs(sizes, trained)

    def turn(side: str) -> dict[str, float]:
        for leaf in (*maps, *points):
            leaf.grad = None
        return clocked(step, side, maps, points, sizes)[1]

    return take_turns({side: lambda side=side: turn(side) for side in SIDES}, sizes['repeats'])


def measure_peak(pyramid: str, side: str, sizes: dict[str, int]) -> dict:
    """Peak memory of one step beyond maps and points."""
    torch.set_num_threads(sizes['threads'])
    trained = pyramid == 'trained'
    small = {**sizes, 'height': 64, 'width': 64, 'queries': 2, 'stages': 1}
    step(side, *make_inputs(small, trained), small)  # what libraries need once is not counted
    return {'peak_mb': peak_memory(step, side, *make_inputs(sizes, trained), sizes)[1]}


if __name__ == '__main__':
    be_child({'time': time_sides, 'peak': measure_peak})
