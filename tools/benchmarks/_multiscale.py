"""Feature pyramids of many views lifted and averaged: one call against loops over views and scales.

The work on all sides: project the points into every view of a made-up room, test them against the
depth maps, read four feature maps of strides 4 to 32, and take the mean over the views that see a
point, weighted by exp(−distance / 10 m).

    ours          ``lift_mean_features``: visible pairs only, no table of points by views
    ours_dense    ``lift_features_to_points`` (V, N, ΣC), then the weighted mean
    loop          per view and scale ``grid_sample`` at all points, stacked, then the mean
    point_sample  the same loop with mmdet3d's ``point_sample``

``point_sample`` is told to read at pixel centres (it would read half a cell off), so that all
sides agree. Part of ``tools/benchmark.py lifting``.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STATUS = Path('/proc/self/status')
SIDES = {
    'ours': 'lift_mean_features',
    'ours_dense': 'lift_features_to_points',
    'loop': 'loop over views and scales',
    'point_sample': "loop with mmdet3d's point_sample",
}
SIZES = ('views', 'points', 'channels', 'budget_mb', 'threads', 'seed')
STRIDES = (4, 8, 16, 32)
FACTORS = (0.25, 0.5, 1.0, 2.0)
DECAY = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the pyramid's scene, and where to draw the curve."""
    parser.add_argument('--pyramid_views', type=int, default=10, help='views with a pyramid')
    parser.add_argument('--pyramid_points', type=int, default=50_000, help='points they lift to')
    parser.add_argument('--pyramid_channels', type=int, default=64, help='of each of four scales')
    parser.add_argument(
        '--curve', type=Path, help='draw processor seconds over points and views to this PNG'
    )


def run(args: argparse.Namespace) -> dict:
    """Measure all sides, print a table, draw the curve if asked to.

    Returns:
        ``{side: {'seconds', 'cpu_seconds', 'peak_mb', 'result_mb'}}``, 'visible', 'speedup' and
        'speedup_point_sample'; with a curve also 'curve', a list of rows of the same form with
        'views' and 'points'.

    Raises:
        ValueError: sizes below 1, a curve that is no PNG, or sides that disagree.
        RuntimeError: a measuring process failed.
    """
    sizes = {
        'views': args.pyramid_views,
        'points': args.pyramid_points,
        'channels': args.pyramid_channels,
        'budget_mb': args.budget_mb,
        'threads': args.threads,
        'seed': args.seed,
    }
    check_arguments(args)
    row = _run_in_child('time', {**sizes, 'repeats': args.repeats})
    for side in SIDES:
        row[side].update(_run_in_child(side, sizes))
    _print_table(row, sizes)
    if args.curve is not None:
        row['curve'] = [
            {**changed, **_run_in_child('time', {**sizes, **changed, 'repeats': 1})}
            for changed in curve_sizes(sizes['views'], sizes['points'])
        ]
        draw_curve(row['curve'], sizes, args.curve)
        print(f'curve: {args.curve}')
    return row


def check_arguments(args: argparse.Namespace) -> None:
    """ValueError for sizes below 1, or a curve that cannot be written as PNG."""
    for name in ('pyramid_views', 'pyramid_points', 'pyramid_channels'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name} must be at least 1, got {getattr(args, name)}')
    if args.curve is not None:
        if args.curve.suffix.lower() != '.png':
            raise ValueError(f'--curve must be a .png file, got {args.curve}')
        if not args.curve.parent.is_dir():
            raise ValueError(f'--curve: no folder {args.curve.parent}')


def curve_sizes(views: int, points: int) -> list[dict[str, int]]:
    """A quarter to the double of the points, then of the views; the common middle once."""
    sizes = [{'views': views, 'points': max(1, int(points * factor))} for factor in FACTORS]
    sizes += [{'views': max(1, int(views * factor)), 'points': points} for factor in FACTORS]
    return [size for i, size in enumerate(sizes) if size not in sizes[:i]]


def draw_curve(rows: list[dict], sizes: dict[str, int], path: Path) -> None:
    """Processor seconds over points (at one number of views) and over views, a line per side."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout='constrained')
    for ax, over, fixed in zip(axes, ('points', 'views'), ('views', 'points')):
        shown = sorted((r for r in rows if r[fixed] == sizes[fixed]), key=lambda r, o=over: r[o])
        x = [r[over] for r in shown]
        for side, label in SIDES.items():
            ax.plot(x, [r[side]['cpu_seconds'] for r in shown], marker='o', label=label)
        ax.set(xscale='log', yscale='log', xlabel=f'{over} ({sizes[fixed]} {fixed})')
        ax.set_xticks(x, [f'{value:,}' for value in x])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0].set_ylabel('processor seconds')
    axes[0].legend(fontsize=8)
    figure.suptitle(f'four scales of {sizes["channels"]} channels, mean over views', fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _print_table(row: dict, sizes: dict[str, int]) -> None:
    print(
        f'pyramids: {sizes["views"]} views x {sizes["points"]} points x {len(STRIDES)} scales of '
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
        f'the loop takes {row["speedup"]:.1f} times as long, point_sample '
        f'{row["speedup_point_sample"]:.1f} times (byte budget {sizes["budget_mb"]} MB)'
    )


def _run_in_child(task: str, sizes: dict[str, int]) -> dict:
    """Run this file as a program and read the last line that it prints."""
    at = f'{sizes["views"]} views, {sizes["points"]} points'
    print(f'measuring: pyramids, {at}, {SIDES.get(task, "seconds")} …', file=sys.stderr)
    paths = [str(REPOSITORY), *filter(None, [os.environ.get('PYTHONPATH')])]
    process = subprocess.run(
        [sys.executable, '-P', str(Path(__file__).resolve()), task, json.dumps(sizes)],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    if process.returncode != 0:
        raise RuntimeError(f'pyramids, {task}: its process ended with {process.returncode}')
    return json.loads(process.stdout.splitlines()[-1])


def make_scene(sizes: dict[str, int]) -> dict:
    """Points and views of the room of the lifting benchmark, with a pyramid for each view."""
    import torch

    spec = importlib.util.spec_from_file_location('rooms', Path(__file__).with_name('lifting.py'))
    rooms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rooms)
    scene = rooms.make_scene('room', {**sizes, 'channels': 1, 'grid': 1})
    height, width = scene['camera'].image_size
    generator = torch.Generator().manual_seed(sizes['seed'])
    scene['maps'] = {
        f'feat_1/{stride}': torch.randn(
            sizes['views'], sizes['channels'], height // stride, width // stride,
            generator=generator,
        )
        for stride in STRIDES
    }  # fmt: skip
    return scene


def _ours(points, camera, depth, maps, byte_budget: int):
    from oneformer3d.lifting import compute_feature_confidence, lift_mean_features

    weights = compute_feature_confidence(
        points, camera.world_from_cam, terms=['distance'], decay=DECAY, byte_budget=byte_budget
    )
    return lift_mean_features(
        points, maps, camera.intrinsics, camera.world_from_cam, camera.image_size, depth,
        weights=weights, byte_budget=byte_budget,
    )  # fmt: skip


def _ours_dense(points, camera, depth, maps, byte_budget: int):
    from oneformer3d.lifting import compute_feature_confidence, lift_features_to_points

    lifted, visible = lift_features_to_points(
        points, maps, camera.intrinsics, camera.world_from_cam, camera.image_size, depth,
        byte_budget=byte_budget,
    )  # fmt: skip
    weights = visible * compute_feature_confidence(
        points, camera.world_from_cam, terms=['distance'], decay=DECAY, byte_budget=byte_budget
    )
    return _weighted_mean(lifted, weights)


def _loop(points, camera, depth, maps, byte_budget: int, read: Callable | None = None):
    """One view after the other, every scale at every point, as lifting code is mostly written."""
    import torch

    from oneformer3d.lifting import visible_mask

    read = read or _grid_sample
    lifted, weights = [], []
    for view in range(len(camera.world_from_cam)):
        pose, intrinsics = camera.world_from_cam[view], camera.intrinsics[view]
        cam_from_world = torch.inverse(pose)
        local = points @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
        image = local @ intrinsics.T
        uv, z = image[:, :2] / image[:, 2:], image[:, 2]
        visible = visible_mask(uv, z, camera.image_size, depth[view])
        scales = [
            read(maps[name][view], uv, points, intrinsics, cam_from_world, camera.image_size)
            for name in maps
        ]
        lifted.append(torch.cat(scales, dim=1))
        distance = (points - pose[:3, 3]).norm(dim=1)
        weights.append(torch.exp(-distance / DECAY) * visible)
    return _weighted_mean(torch.stack(lifted), torch.stack(weights))


def _point_sample(points, camera, depth, maps, byte_budget: int):
    return _loop(points, camera, depth, maps, byte_budget, read=_mmdet3d_read)


def _grid_sample(feature_map, uv, points, intrinsics, cam_from_world, image_size):
    import torch.nn.functional as F

    height, width = image_size
    grid = (2 * uv + 1) / uv.new_tensor([width, height]) - 1
    rows = F.grid_sample(
        feature_map[None], grid[None, :, None], padding_mode='border', align_corners=False
    )
    return rows[0, :, :, 0].T


def _mmdet3d_read(feature_map, uv, points, intrinsics, cam_from_world, image_size):
    from mmdet3d.models.layers.fusion_layers.point_fusion import point_sample

    projection = points.new_zeros(4, 4)
    projection[:3] = intrinsics @ cam_from_world[:3]
    projection[3, 3] = 1
    return point_sample(
        {}, feature_map[None], points, projection, 'DEPTH',
        img_scale_factor=points.new_ones(2), img_crop_offset=points.new_tensor([-0.5, -0.5]),
        img_flip=False, img_pad_shape=image_size, img_shape=image_size,
        padding_mode='border', align_corners=False,
    )  # fmt: skip


def _weighted_mean(lifted, weights):
    """(V, N, C) and (V, N) → (N, C) and (N,)."""
    import torch

    total = weights.sum(0)
    mean = torch.einsum('vnc,vn->nc', lifted, weights)
    return mean / torch.where(total > 0, total, 1.0)[:, None], total


FUNCTIONS = {
    'ours': _ours,
    'ours_dense': _ours_dense,
    'loop': _loop,
    'point_sample': _point_sample,
}


def _time(scene: dict, sizes: dict[str, int]) -> dict:
    """Median seconds of each side, taking turns, and a check that they agree."""
    import torch

    inputs = (*scene.values(), sizes['budget_mb'] << 20)
    for function in FUNCTIONS.values():
        function(scene['points'][:1000], *inputs[1:])
    passed: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    results = {}
    for _ in range(sizes['repeats']):
        for side, function in FUNCTIONS.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            results[side] = function(*inputs)
            passed[side].append((time.perf_counter() - start, time.process_time() - cpu_start))
    features, total = results['ours']
    for side, (other, other_total) in results.items():
        # A pixel exactly on a limit may fall on either side of it.
        same = (other_total - total).abs() < 1e-3
        if same.float().mean() < 0.999 or not torch.allclose(
            other[same], features[same], atol=2e-2
        ):
            raise ValueError(f'{SIDES[side]} and {SIDES["ours"]} disagree')
    numbers: dict = {}
    for side, times in passed.items():
        clock, cpu = (statistics.median(column) for column in zip(*times))
        numbers[side] = {'seconds': clock, 'cpu_seconds': cpu}
    numbers['speedup'] = numbers['loop']['seconds'] / numbers['ours']['seconds']
    numbers['speedup_point_sample'] = (
        numbers['point_sample']['seconds'] / numbers['ours']['seconds']
    )
    from oneformer3d.lifting import project_pairs

    num_pairs = len(project_pairs(scene['points'], scene['camera'], scene['depth']))
    numbers['visible'] = num_pairs / (len(scene['points']) * sizes['views'])
    return numbers


def _peak(side: str, scene: dict, sizes: dict[str, int]) -> dict:
    """Peak memory of one run beyond the inputs, and the bytes of what it returns."""
    inputs = (*scene.values(), sizes['budget_mb'] << 20)
    FUNCTIONS[side](scene['points'][:1000], *inputs[1:])
    measurable = STATUS.is_file()
    before = _kilobytes('VmRSS') if measurable else 0
    features, total = FUNCTIONS[side](*inputs)
    result_bytes = (features.numel() + total.numel()) * 4
    peak = (_kilobytes('VmHWM') - before) / 1024 if measurable else None
    return {'peak_mb': peak, 'result_mb': result_bytes / 2**20}


def _kilobytes(field: str) -> int:
    """A field of /proc/self/status; unlike getrusage it knows nothing of the parent."""
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(f'{field}:'))
    return int(line.split()[1])


def _child(task: str, sizes: dict[str, int]) -> None:
    import torch

    torch.set_num_threads(sizes['threads'])
    scene = make_scene(sizes)
    with torch.no_grad():
        numbers = _time(scene, sizes) if task == 'time' else _peak(task, scene, sizes)
    print(json.dumps(numbers))


if __name__ == '__main__':
    _child(sys.argv[1], json.loads(sys.argv[2]))
