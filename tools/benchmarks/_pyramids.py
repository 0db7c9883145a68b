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
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer3d.lifting import (
    compute_feature_confidence,
    lift_features_to_points,
    lift_mean_features,
    visible_mask,
)
from tools.benchmarks._measure import add_integers, be_child, read_integers, run_in_child
from tools.benchmarks._rooms import Scene, make_room, measure_peak, show, time_sides

SIDES = {
    'ours': 'lift_mean_features',
    'ours_dense': 'lift_features_to_points',
    'loop': 'loop over views and scales',
    'point_sample': "loop with mmdet3d's point_sample",
}
STRIDES = (4, 8, 16, 32)
FACTORS = (0.25, 0.5, 1.0, 2.0)
DECAY = 10.0
TOLERANCE = 2e-2
OPTIONS = {
    'pyramid_views': (10, 'views with a pyramid'),
    'pyramid_points': (50_000, 'points they lift to'),
    'pyramid_channels': (64, 'of each of four scales'),
}
SHARED = ('budget_mb', 'threads', 'repeats', 'seed')  # options of the whole benchmark


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the pyramid's scene, and where to draw the curve."""
    add_integers(parser, OPTIONS)
    parser.add_argument(
        '--curve', type=Path, help='draw processor seconds over points and views to this PNG'
    )


def run(args: argparse.Namespace) -> dict:
    """Measure all sides, print a table, draw the curve where one is requested.

    Returns:
        ``{side: {'seconds', 'cpu_seconds', 'spread', 'peak_mb', 'result_mb'}}``, 'visible',
        'speedup' and 'speedup_point_sample'; with a curve also 'curve', a list of rows of the same
        form with 'views' and 'points'.

    Raises:
        ValueError: sizes below 1, a curve that is no PNG, or sides that disagree.
        RuntimeError: a measuring process failed.
    """
    check_arguments(args)
    sizes = {name.removeprefix('pyramid_'): vars(args)[name] for name in (*OPTIONS, *SHARED)}
    row = time_in_child(sizes)
    for side, label in SIDES.items():
        row[side] |= run_in_child(__file__, f'pyramids, {label}', 'peak', side, sizes)

    scales = f'{len(STRIDES)} scales of {sizes["channels"]} channels'
    show(f'pyramids: {sizes["views"]} views x {sizes["points"]} points x {scales}', SIDES, row)
    print(
        f'the loop takes {row["speedup"]:.1f} times as long, point_sample '
        f'{row["speedup_point_sample"]:.1f} times (byte budget {sizes["budget_mb"]} MB)'
    )

    if args.curve is not None:
        row['curve'] = [
            {**changed, **time_in_child({**sizes, **changed, 'repeats': 1})}
            for changed in curve_sizes(sizes['views'], sizes['points'])
        ]
        draw_curve(row['curve'], sizes, args.curve)
        print(f'curve: {args.curve}')
    return row


def check_arguments(args: argparse.Namespace) -> None:
    """ValueError for sizes below 1, or a curve that cannot be written as PNG."""
    read_integers(args, tuple(OPTIONS))
    if args.curve is not None:
        if args.curve.suffix.lower() != '.png':
            raise ValueError(f'--curve must be a .png file, got {args.curve}')
        if not args.curve.parent.is_dir():
            raise ValueError(f'--curve: no folder {args.curve.parent}')


def time_in_child(sizes: dict[str, int]) -> dict:
    """Seconds of all sides and how many times as long as ours the loops take."""
    label = f'pyramids, {sizes["views"]} views, {sizes["points"]} points, seconds'
    row = run_in_child(__file__, label, 'time', sizes)
    row['speedup'] = row['loop']['seconds'] / row['ours']['seconds']
    row['speedup_point_sample'] = row['point_sample']['seconds'] / row['ours']['seconds']
    return row


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
        drawn = sorted((r for r in rows if r[fixed] == sizes[fixed]), key=lambda r, o=over: r[o])
        x = [r[over] for r in drawn]
        for side, label in SIDES.items():
            ax.plot(x, [r[side]['cpu_seconds'] for r in drawn], marker='o', label=label)
        ax.set(xscale='log', yscale='log', xlabel=f'{over} ({sizes[fixed]} {fixed})')
        ax.set_xticks(x, [f'{value:,}' for value in x])
        ax.minorticks_off()
        ax.grid(alpha=0.3)

    axes[0].set_ylabel('processor seconds')
    axes[0].legend(fontsize=8)
    figure.suptitle(f'four scales of {sizes["channels"]} channels, mean over views', fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def make_scene(sizes: dict[str, int]) -> Scene:
    """Points and views of a room, with a pyramid for each view."""
    generator = torch.Generator().manual_seed(sizes['seed'])
    torch.randn(sizes['views'], 1, 1, 1, generator=generator)  # the room is drawn after its maps
    points, camera, depth = make_room(sizes['views'], sizes['points'], generator)

    generator = torch.Generator().manual_seed(sizes['seed'])
    height, width = camera.image_size
    shape = (sizes['views'], sizes['channels'])
    maps = {
        f'feat_1/{stride}': torch.randn(
            *shape, height // stride, width // stride, generator=generator
        )
        for stride in STRIDES
    }
    return {'points': points, 'camera': camera, 'depth': depth, 'maps': maps}


def lift_mean(points, camera, depth, maps, byte_budget: int) -> tuple[Tensor, Tensor]:
    """Ours: the mean of visible pairs."""
    return lift_mean_features(
        points, maps, camera.intrinsics, camera.world_from_cam, camera.image_size, depth,
        weights=_weights(points, camera, byte_budget), byte_budget=byte_budget,
    )  # fmt: skip


def lift_table(points, camera, depth, maps, byte_budget: int) -> tuple[Tensor, Tensor]:
    """Ours: all points by all views, then the mean."""
    lifted, visible = lift_features_to_points(
        points, maps, camera.intrinsics, camera.world_from_cam, camera.image_size, depth,
        padding_mode='border', byte_budget=byte_budget,
    )  # fmt: skip
    return _weighted_mean(lifted, visible * _weights(points, camera, byte_budget))


def lift_in_a_loop(
    points, camera, depth, maps, byte_budget: int, read: Callable | None = None
) -> tuple[Tensor, Tensor]:
    """One view after the other, every scale at every point, as lifting code is mostly written."""
    read = read or _grid_sample
    lifted, weights = [], []
    for view in range(len(camera.world_from_cam)):
        pose, intrinsics = camera.world_from_cam[view], camera.intrinsics[view]
        cam_from_world = torch.inverse(pose)
        local = points @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]  # (N, 3)
        image = local @ intrinsics.T
        uv, z = image[:, :2] / image[:, 2:], image[:, 2]
        visible = visible_mask(uv, z, camera.image_size, depth[view])  # (N,)

        scales = [
            read(maps[name][view], uv, points, intrinsics, cam_from_world, camera.image_size)
            for name in maps
        ]
        lifted.append(torch.cat(scales, dim=1))  # (N, ΣC)
        distance = (points - pose[:3, 3]).norm(dim=1)
        weights.append(torch.exp(-distance / DECAY) * visible)
    return _weighted_mean(torch.stack(lifted), torch.stack(weights))


def lift_with_point_sample(*inputs) -> tuple[Tensor, Tensor]:
    """The loop with mmdet3d's function."""
    return lift_in_a_loop(*inputs, read=_mmdet3d_read)


def _weights(points, camera, byte_budget: int) -> Tensor:
    return compute_feature_confidence(
        points, camera.world_from_cam, terms=['distance'], decay=DECAY, byte_budget=byte_budget
    )  # (V, N)


def _grid_sample(feature_map, uv, points, intrinsics, cam_from_world, image_size) -> Tensor:
    height, width = image_size
    # x_norm = (2u + 1)/W − 1
    grid = (2 * uv + 1) / uv.new_tensor([width, height]) - 1
    rows = F.grid_sample(
        feature_map[None], grid[None, :, None], padding_mode='border', align_corners=False
    )
    return rows[0, :, :, 0].T  # (N, C)


def _mmdet3d_read(feature_map, uv, points, intrinsics, cam_from_world, image_size) -> Tensor:
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


def _weighted_mean(lifted: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(V, N, C) and (V, N) → (N, C) and (N,)."""
    total = weights.sum(0)
    mean = torch.einsum('vnc,vn->nc', lifted, weights)
    return mean / torch.where(total > 0, total, 1.0)[:, None], total


FUNCTIONS = {
    'ours': lift_mean,
    'ours_dense': lift_table,
    'loop': lift_in_a_loop,
    'point_sample': lift_with_point_sample,
}


@torch.no_grad()
def time_pyramids(sizes: dict[str, int]) -> dict:
    """Median seconds of all sides."""
    torch.set_num_threads(sizes['threads'])
    return time_sides(FUNCTIONS, make_scene(sizes), sizes, TOLERANCE)


@torch.no_grad()
def peak_of_side(side: str, sizes: dict[str, int]) -> dict:
    """Peak memory of one side."""
    torch.set_num_threads(sizes['threads'])
    return measure_peak(FUNCTIONS[side], make_scene(sizes), sizes)


if __name__ == '__main__':
    be_child({'time': time_pyramids, 'peak': peak_of_side})
