"""Many views' features to points: visible pairs in one weighted gather against a loop over views.

The work on both sides: project all points into all views, test them against the depth maps,
sample the feature maps bilinearly, and average over the views that see a point.

    ours         ``project_pairs`` and ``gather_pairs``
    loop         per view ``grid_sample`` at all points, masked sum
    sparse loop  per view ``grid_sample`` at the visible points only, indexed sum

Two scenes are made up with depth maps in closed form: views from inside an empty room (a quarter
of the pairs visible or less, as in real scans), and a cloud that every view sees whole. The sides
take turns and the median counts; processor seconds stand beside the clock's, since they hold on a
busy machine too. Peak memory is measured on the first scene in a process for each side and counts
what it needs beyond the inputs. Then come the pyramids of ``_multiscale.py``: four scales in one
call against loops, mmdet3d's ``point_sample`` among them.
"""

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[2]
STATUS = Path('/proc/self/status')
SIDES = {
    'ours': 'pairs and weighted gather',
    'loop': 'grid_sample loop, all points',
    'sparse_loop': 'grid_sample loop, visible points',
}
SCENES = {'room': 'room seen from inside', 'all_visible': 'every point in every view'}
SIZES = ('views', 'points', 'channels', 'grid', 'budget_mb', 'threads', 'seed')
DEPTH_SIZE = (240, 320)
IMAGE_SIZE = (480, 640)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the made-up scene and how it is measured."""
    parser.add_argument('--views', type=int, default=40, help='views of the scene')
    parser.add_argument('--points', type=int, default=200_000, help='points of the scene')
    parser.add_argument('--channels', type=int, default=192, help='channels of the feature maps')
    parser.add_argument('--grid', type=int, default=28, help='cells along a side of a map')
    parser.add_argument('--budget_mb', type=int, default=128, help='byte budget in MiB')
    parser.add_argument('--threads', type=int, default=2, help='of torch')
    parser.add_argument('--repeats', type=int, default=3, help='runs of each side')
    parser.add_argument('--seed', type=int, default=0, help='of the scene')
    _pyramids().add_arguments(parser)


def run(args: argparse.Namespace) -> dict:
    """Measure all sides on both scenes, print a table and return the numbers.

    Returns:
        For each scene ``{side: {'seconds', 'cpu_seconds', 'peak_mb', 'result_mb'}}``, 'visible'
        (share of the pairs), 'speedup' and 'speedup_sparse'; 'pyramids', see ``_multiscale.run``;
        'arguments' beside them. peak_mb is None where the system does not tell, and missing where
        it was not measured.

    Raises:
        ValueError: sizes below 1, or the sides disagree.
        RuntimeError: a measuring process failed.
    """
    sizes = {name: getattr(args, name) for name in SIZES}
    for name in (*SIZES[:-1], 'repeats'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name} must be at least 1, got {getattr(args, name)}')
    _pyramids().check_arguments(args)
    result: dict = {'arguments': {**sizes, 'repeats': args.repeats}}
    for scene in SCENES:
        row = _run_in_child('time', scene, {**sizes, 'repeats': args.repeats})
        if scene == 'room':
            for side in SIDES:
                row[side].update(_run_in_child(side, scene, sizes))
        row['speedup'] = row['loop']['seconds'] / row['ours']['seconds']
        row['speedup_sparse'] = row['sparse_loop']['seconds'] / row['ours']['seconds']
        result[scene] = row
        _print_table(scene, row, sizes)
    result['pyramids'] = _pyramids().run(args)
    return result


def _pyramids() -> ModuleType:
    """The file beside this one; by path, since this folder is not on the import path."""
    path = Path(__file__).with_name('_multiscale.py')
    spec = importlib.util.spec_from_file_location('benchmark_multiscale', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _print_table(scene: str, row: dict, sizes: dict[str, int]) -> None:
    print(
        f'{SCENES[scene]}: {sizes["views"]} views x {sizes["points"]} points x '
        f'{sizes["channels"]} channels, {row["visible"]:.1%} of the pairs visible'
    )
    print(f'{"":34}{"seconds":>9}{"CPU s":>9}{"peak MB":>9}{"of it result MB":>17}')
    for side, label in SIDES.items():
        numbers = row[side]
        line = f'{label:34}{numbers["seconds"]:9.2f}{numbers["cpu_seconds"]:9.2f}'
        if numbers.get('peak_mb') is not None:
            line += f'{numbers["peak_mb"]:9.0f}{numbers["result_mb"]:17.0f}'
        print(line)
    print(
        f'the loop takes {row["speedup"]:.1f} times as long, the sparse loop '
        f'{row["speedup_sparse"]:.1f} times (byte budget {sizes["budget_mb"]} MB)'
    )


def _run_in_child(task: str, scene: str, sizes: dict[str, int]) -> dict:
    """Run this file as a program and read the last line that it prints."""
    print(f'measuring: {SCENES[scene]}, {SIDES.get(task, "seconds")} …', file=sys.stderr)
    # -P keeps this folder, whose file names are common words, off the import path.
    paths = [str(REPOSITORY), *filter(None, [os.environ.get('PYTHONPATH')])]
    process = subprocess.run(
        [sys.executable, '-P', str(Path(__file__).resolve()), task, scene, json.dumps(sizes)],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    if process.returncode != 0:
        raise RuntimeError(f'{task} of {scene}: its process ended with status {process.returncode}')
    return json.loads(process.stdout.splitlines()[-1])


def make_scene(name: str, sizes: dict[str, int]) -> dict:
    """Points, cameras, depth maps or None, and feature maps of a made-up scene."""
    import torch

    generator = torch.Generator().manual_seed(sizes['seed'])
    num_views, num_points = sizes['views'], sizes['points']
    shape = (num_views, sizes['channels'], sizes['grid'], sizes['grid'])
    maps = torch.randn(shape, generator=generator)
    if name == 'room':
        points, camera, depth = _room(num_views, num_points, generator)
    else:
        points = 1.5 * torch.rand(num_points, 3, generator=generator) - 0.75
        angles = 2 * math.pi * torch.arange(num_views) / num_views
        camera, depth = _cameras(angles, radius=-4.0, tilt=0.0, focal=500.0), None
    return {'points': points, 'camera': camera, 'depth': depth, 'maps': maps}


def _room(num_views: int, num_points: int, generator) -> tuple:
    """Points on the six faces of a 6 x 3 x 5 m box, cameras near its middle, exact depth."""
    import torch

    half = torch.tensor([3.0, 1.5, 2.5])
    areas = torch.stack((half[1] * half[2], half[0] * half[2], half[0] * half[1]))
    axis = torch.multinomial(areas, num_points, replacement=True, generator=generator)
    points = (2 * torch.rand(num_points, 3, generator=generator) - 1) * half
    side = 2.0 * torch.randint(0, 2, (num_points,), generator=generator) - 1
    rows = torch.arange(num_points)
    points[rows, axis] = side * half[axis]
    angles = 2 * math.pi * torch.rand(num_views, generator=generator)
    camera = _cameras(angles, radius=-1.0, tilt=0.15, focal=430.0)
    small = camera.resize(DEPTH_SIZE)
    rays = small.unproject(torch.ones(num_views, *DEPTH_SIZE))
    centre = small.world_from_cam[:, None, None, :3, 3]
    direction = rays - centre
    depth = ((half * direction.sign() - centre) / direction).amin(-1)
    return points, camera, depth


def _cameras(angles, radius: float, tilt: float, focal: float):
    """Cameras looking along horizontal directions, ``radius`` metres ahead of the middle."""
    import torch

    from oneformer3d.lifting import Camera

    zero = torch.zeros_like(angles)
    forward = torch.stack((angles.sin(), zero + tilt, angles.cos()), -1)
    forward = forward / forward.norm(dim=-1, keepdim=True)
    right = torch.stack((angles.cos(), zero, -angles.sin()), -1)
    down = torch.linalg.cross(forward, right)
    pose = torch.eye(4).repeat(len(angles), 1, 1)
    pose[:, :3, :3] = torch.stack((right, down, forward), dim=-1)
    pose[:, :3, 3] = radius * forward
    height, width = IMAGE_SIZE
    intrinsics = torch.tensor(
        [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]
    )
    return Camera(intrinsics.expand(len(angles), 3, 3), pose, IMAGE_SIZE)


def _ours(points, camera, depth, maps, byte_budget: int):
    from oneformer3d.lifting import gather_pairs, project_pairs

    pairs = project_pairs(points, camera, depth, byte_budget=byte_budget)
    return gather_pairs(
        maps, pairs, camera.image_size, num_points=len(points), byte_budget=byte_budget
    )


def _loop(points, camera, depth, maps, byte_budget: int, visible_only: bool = False):
    """What most lifting code does: one view after the other."""
    import torch
    import torch.nn.functional as F

    from oneformer3d.lifting import visible_mask

    height, width = camera.image_size
    size = points.new_tensor([width, height])
    total = points.new_zeros(len(points), maps.shape[1])
    count = points.new_zeros(len(points))
    for view in range(len(maps)):
        uv, z = camera[view].project(points)
        visible = visible_mask(
            uv, z, camera.image_size, depth=None if depth is None else depth[view]
        )
        if visible_only:
            uv = uv[visible]
        grid = ((2 * uv + 1) / size - 1)[None, None]
        rows = F.grid_sample(
            maps[view : view + 1], grid, padding_mode='border', align_corners=False
        )[0, :, 0].T
        if visible_only:
            total.index_add_(0, visible.nonzero()[:, 0], rows)
        else:
            total += torch.where(visible[:, None], rows, 0.0)
        count += visible
    return total / count.clamp(min=1)[:, None], count


def _sparse_loop(*inputs):
    return _loop(*inputs, visible_only=True)


FUNCTIONS = {'ours': _ours, 'loop': _loop, 'sparse_loop': _sparse_loop}


def _time(scene: dict, sizes: dict[str, int]) -> dict:
    """Median seconds of each side, taking turns, and a check that they agree."""
    import torch

    inputs = (*scene.values(), sizes['budget_mb'] << 20)
    _warm_up(FUNCTIONS.values(), scene, inputs[-1])
    seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    results = {}
    for _ in range(sizes['repeats']):
        for side, function in FUNCTIONS.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            results[side] = function(*inputs)
            passed = time.perf_counter() - start, time.process_time() - cpu_start
            seconds[side].append(passed)
    features, count = results['ours']
    for side in ('loop', 'sparse_loop'):
        # A pixel exactly on a limit may fall on either side of it.
        same = results[side][1] == count
        if same.float().mean() < 0.999 or not torch.allclose(
            results[side][0][same], features[same], atol=1e-3
        ):
            raise ValueError(f'{SIDES[side]} and {SIDES["ours"]} disagree')
    numbers: dict = {}
    for side, passed in seconds.items():
        clock, cpu = (statistics.median(column) for column in zip(*passed))
        numbers[side] = {'seconds': clock, 'cpu_seconds': cpu}
    numbers['visible'] = float(count.sum()) / (len(scene['points']) * len(scene['maps']))
    return numbers


def _peak(side: str, scene: dict, sizes: dict[str, int]) -> dict:
    """Peak memory of one run beyond the inputs, and the bytes of what it returns or keeps."""
    _warm_up([FUNCTIONS[side]], scene, sizes['budget_mb'] << 20)
    measurable = STATUS.is_file()
    before = _kilobytes('VmRSS') if measurable else 0
    features, count = FUNCTIONS[side](*scene.values(), sizes['budget_mb'] << 20)
    result_bytes = (features.numel() + count.numel()) * 4
    if side == 'ours':  # the pairs: point, view, u, v, depth
        result_bytes += int(count.sum()) * (8 + 8 + 4 + 4 + 4)
    peak = (_kilobytes('VmHWM') - before) / 1024 if measurable else None
    return {'peak_mb': peak, 'result_mb': result_bytes / 2**20}


def _warm_up(functions: Iterable[Callable], scene: dict, byte_budget: int) -> None:
    """A first small run, so that what libraries need once is not counted."""
    small = {**scene, 'points': scene['points'][:1000].clone()}
    for function in functions:
        function(*small.values(), byte_budget)


def _kilobytes(field: str) -> int:
    """A field of /proc/self/status; unlike getrusage it knows nothing of the parent."""
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(f'{field}:'))
    return int(line.split()[1])


def _child(task: str, scene_name: str, sizes: dict[str, int]) -> None:
    import torch

    torch.set_num_threads(sizes['threads'])
    scene = make_scene(scene_name, sizes)
    with torch.no_grad():
        numbers = _time(scene, sizes) if task == 'time' else _peak(task, scene, sizes)
    print(json.dumps(numbers))


if __name__ == '__main__':
    _child(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
