"""Many views' features to points: visible pairs in one weighted gather against a loop over views.

The work on both sides: project all points into all views, test them against the depth maps,
sample the feature maps bilinearly, and average over the views that see a point.

    ours         ``project_pairs`` and ``gather_pairs``
    loop         per view ``grid_sample`` at all points, masked sum
    sparse loop  per view ``grid_sample`` at the visible points only, indexed sum

Two scenes are made up with depth maps in closed form: views from inside an empty room (a quarter
of the pairs visible or less, as in real scans), and a cloud that every view sees whole. Peak
memory is measured on the first scene in a process for each side and counts what it needs beyond
the inputs. Then come the pyramids of ``_pyramids.py``: four scales in one call against loops,
mmdet3d's ``point_sample`` among them.
"""

import argparse
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer3d.lifting import gather_pairs, project_pairs, visible_mask
from tools.benchmarks import _pyramids
from tools.benchmarks._measure import add_integers, be_child, read_integers, run_in_child
from tools.benchmarks._rooms import (
    Scene,
    make_cameras,
    make_room,
    measure_peak,
    show,
    time_sides,
)

SIDES = {
    'ours': 'pairs and weighted gather',
    'loop': 'grid_sample loop, all points',
    'sparse_loop': 'grid_sample loop, visible points',
}
SCENES = {'room': 'room seen from inside', 'all_visible': 'every point in every view'}
TOLERANCE = 1e-3
BYTES_OF_PAIR = 8 + 8 + 4 + 4 + 4  # point, view, u, v, depth
OPTIONS = {
    'views': (40, 'views of the scene'),
    'points': (200_000, 'points of the scene'),
    'channels': (192, 'channels of the feature maps'),
    'grid': (28, 'cells along a side of a map'),
    'budget_mb': (128, 'byte budget in MiB'),
    'threads': (2, 'of torch'),
    'repeats': (3, 'runs of each side'),
    'seed': (0, 'of the scene'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the made-up scene and how it is measured."""
    add_integers(parser, OPTIONS)
    _pyramids.add_arguments(parser)


def run(args: argparse.Namespace) -> dict:
    """Measure all sides on both scenes, print a table and return the numbers.

    Returns:
        For each scene ``{side: {'seconds', 'cpu_seconds', 'spread', 'peak_mb', 'result_mb'}}``,
        'visible' (share of the pairs), 'speedup' and 'speedup_sparse'; 'pyramids', see
        ``_pyramids.run``; 'arguments' beside them. peak_mb is None where the system does not tell,
        and missing where it was not measured.

    Raises:
        ValueError: sizes below 1, or the sides disagree.
        RuntimeError: a measuring process failed.
    """
    sizes = read_integers(args, tuple(OPTIONS))
    _pyramids.check_arguments(args)

    result: dict = {'arguments': sizes}
    for scene, title in SCENES.items():
        row = run_in_child(__file__, f'{title}, seconds', 'time', scene, sizes)
        if scene == 'room':
            for side, label in SIDES.items():
                row[side] |= run_in_child(__file__, f'{title}, {label}', 'peak', side, sizes)
        row['speedup'] = row['loop']['seconds'] / row['ours']['seconds']
        row['speedup_sparse'] = row['sparse_loop']['seconds'] / row['ours']['seconds']
        result[scene] = row

        numbers = '{views} views x {points} points x {channels} channels'.format(**sizes)
        show(f'{title}: {numbers}', SIDES, row)
        print(
            f'the loop takes {row["speedup"]:.1f} times as long, the sparse loop '
            f'{row["speedup_sparse"]:.1f} times (byte budget {sizes["budget_mb"]} MB)'
        )
    result['pyramids'] = _pyramids.run(args)
    return result


def make_scene(name: str, sizes: dict[str, int]) -> Scene:
    """Points, cameras, depth maps or None, and feature maps of a made-up scene."""
    generator = torch.Generator().manual_seed(sizes['seed'])
    num_views, num_points = sizes['views'], sizes['points']
    shape = (num_views, sizes['channels'], sizes['grid'], sizes['grid'])
    maps = torch.randn(shape, generator=generator)
    if name == 'room':
        points, camera, depth = make_room(num_views, num_points, generator)
    else:
        points = 1.5 * torch.rand(num_points, 3, generator=generator) - 0.75
        angles = 2 * math.pi * torch.arange(num_views) / num_views
        camera, depth = make_cameras(angles, radius=-4.0, tilt=0.0, focal=500.0), None
    return {'points': points, 'camera': camera, 'depth': depth, 'maps': maps}


def lift_pairs(points, camera, depth, maps, byte_budget: int) -> tuple[Tensor, Tensor]:
    """Ours: visible pairs, then one gather."""
    pairs = project_pairs(points, camera, depth, byte_budget=byte_budget)
    return gather_pairs(
        maps, pairs, camera.image_size, num_points=len(points), byte_budget=byte_budget
    )


def lift_in_a_loop(
    points, camera, depth, maps, byte_budget: int, visible_only: bool = False
) -> tuple[Tensor, Tensor]:
    """What most lifting code does: one view after the other."""
    height, width = camera.image_size
    size = points.new_tensor([width, height])
    total = points.new_zeros(len(points), maps.shape[1])
    count = points.new_zeros(len(points))

    for view in range(len(maps)):
        uv, z = camera[view].project(points)
        view_depth = None if depth is None else depth[view]
        visible = visible_mask(uv, z, camera.image_size, view_depth)  # (N,)
        if visible_only:
            uv = uv[visible]

        # x_norm = (2u + 1)/W − 1
        grid = ((2 * uv + 1) / size - 1)[None, None]
        rows = F.grid_sample(
            maps[view : view + 1], grid, padding_mode='border', align_corners=False
        )[0, :, 0].T  # (N, C)
        if visible_only:
            total.index_add_(0, visible.nonzero()[:, 0], rows)
        else:
            total += torch.where(visible[:, None], rows, 0.0)
        count += visible
    return total / count.clamp(min=1)[:, None], count


def lift_visible_in_a_loop(*inputs) -> tuple[Tensor, Tensor]:
    """The loop over visible points only."""
    return lift_in_a_loop(*inputs, visible_only=True)


FUNCTIONS = {'ours': lift_pairs, 'loop': lift_in_a_loop, 'sparse_loop': lift_visible_in_a_loop}


@torch.no_grad()
def time_scene(scene: str, sizes: dict[str, int]) -> dict:
    """Median seconds of all sides."""
    torch.set_num_threads(sizes['threads'])
    return time_sides(FUNCTIONS, make_scene(scene, sizes), sizes, TOLERANCE)


@torch.no_grad()
def peak_of_side(side: str, sizes: dict[str, int]) -> dict:
    """Peak memory of one side in the room."""
    torch.set_num_threads(sizes['threads'])
    scene = make_scene('room', sizes)
    numbers = measure_peak(FUNCTIONS[side], scene, sizes)
    if side == 'ours':  # the pairs can be used again
        num_pairs = len(project_pairs(scene['points'], scene['camera'], scene['depth']))
        numbers['result_mb'] += num_pairs * BYTES_OF_PAIR / 2**20
    return numbers


if __name__ == '__main__':
    be_child({'time': time_scene, 'peak': peak_of_side})
