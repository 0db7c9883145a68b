"""Neural fields: a small room fitted on the spot, and hash grids against the papers' perceptron.

``--part networks``: a synthetic room is made, views held out, and the same settings fit

    hash   ``HashGridField``
    mlp    ``SemanticNeRF``, four layers of 256 on encoded positions

with the same pixels, samples and losses. Quality is that of the views held out and of the room's
own points; seconds are those of the steps, and processor seconds stand beside the clock's, since
they hold on a busy machine too. Times to a PSNR are to that of held-out pixels after each view's
exposure, which nobody can know, is balanced; the ratio is of the times to the best that the
perceptron reached. On CUDA the settings take larger batches.

``--part samplers``: the room without its depth, with proposal networks and with two rounds of
samples. ``--part door``: a room seen through a door, with and without contraction.
"""

import argparse
import json
import resource
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from oneformer3d.fields.asking.baseline import nearest_view_baseline
from oneformer3d.fields.asking.evaluate import evaluate_points, evaluate_views
from oneformer3d.fields.fitting.fitted import FittedField
from oneformer3d.fields.fitting.settings import FitSettings, make_fit_settings
from oneformer3d.fields.scene.scene import FieldScene
from oneformer3d.files.devices import pick_device
from tools.benchmarks._door_room import measure_door
from tools.benchmarks._field_fits import CONFIG, MEASURE, fit, make_room, time_to
from tools.benchmarks._field_samplers import measure_samplers
from tools.benchmarks._measure import add_integers, clocked, print_table

SIDES = {
    'hash': {},
    'mlp': {'field': 'mlp', 'learning_rate': 1e-3, 'warmup_steps': 50, 'final_rate': 0.3},
}
LEVELS = (20, 22, 25)  # dB
OPTIONS = {
    'steps': (1200, 'of the hash-grid field'),
    'mlp_steps': (120, 'of the perceptron, 0 for none'),
    'measure_every': (25, 'steps'),
    'threads': (1, 'of torch'),
    'seed': (0, 'of the room and the fits'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the fits."""
    add_integers(parser, OPTIONS)
    parser.add_argument('--device', default='auto', help='auto | cpu | cuda')
    parser.add_argument(
        '--part', choices=('networks', 'samplers', 'door'), default='networks', help='(%(default)s)'
    )
    parser.add_argument('--room', type=Path, help='keep the room here, or take the one that is')


def run(args: argparse.Namespace) -> dict:
    """Fit both sides, print a table and return the numbers.

    Returns:
        Of the samplers and the door see ``measure_samplers`` and ``measure_door``. Else per side
        'seconds', 'cpu_seconds', 'pixels_per_second' that are learnt from, 'history' (PSNR of
        held-out rays) and 'time_to' each of ``LEVELS`` dB, and of the hash grids also
        'rendered_rays_per_second', 'held_out', 'points', 'nearest_view'; 'psnr_both' with
        'speedup' of the processor (or clock) time to it; 'peak_mb' of the process; 'arguments'.

    Raises:
        ValueError: no steps, or steps between measurements below 1.
    """
    if args.steps < 1 or args.measure_every < 1 or args.mlp_steps < 0:
        raise ValueError('--steps and --measure_every must be at least 1')

    torch.set_num_threads(args.threads)
    device = pick_device(args.device).type
    if args.part == 'door':
        return measure_door(args.steps, args.seed, device)
    with tempfile.TemporaryDirectory() as temporary:
        root = args.room or Path(temporary)
        if args.part == 'samplers':
            same = {'steps': args.steps, 'measure_every': args.measure_every, 'seed': args.seed}
            return measure_samplers(make_room(root, args.seed, max_side=80), same, device)
        scene = make_room(root, args.seed)
        result = measure(scene, args, device)
    show(result)
    return result


def measure(scene: FieldScene, args: argparse.Namespace, device: str) -> dict:
    """All numbers of both sides."""
    steps = {'hash': args.steps, 'mlp': args.mlp_steps}
    clock = 'seconds' if device == 'cuda' else 'cpu_seconds'
    result: dict = {
        'arguments': {key: str(value) for key, value in vars(args).items()},
        'device': torch.cuda.get_device_name() if device == 'cuda' else 'cpu',
    }

    for side, changes in SIDES.items():
        if steps[side] == 0:
            continue
        settings = side_settings(changes, steps[side], args, device)
        fitted = fit(scene, settings, side, device)
        report = fitted.report
        pixels = settings.batch_rays + settings.surface_pixels
        result[side] = {
            'seconds': report['seconds'],
            'cpu_seconds': report['cpu_seconds'],
            'pixels_per_second': fitted.step * pixels / report[clock],
            'history': report['history'],
            'time_to': {str(db): time_to(report['history'], db, clock) for db in LEVELS},
        }
        if side == 'hash':
            result[side] |= quality(fitted, scene, clock)

    if 'mlp' in result:
        result['psnr_both'] = max(row[MEASURE] for row in result['mlp']['history'])
        times = {
            side: time_to(result[side]['history'], result['psnr_both'], clock) for side in SIDES
        }
        if times['hash'] is not None:
            result['speedup'] = times['mlp'] / times['hash']
    result['peak_mb'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def quality(fitted: FittedField, scene: FieldScene, clock: str) -> dict:
    """What a field shows in the views held out and at the room's points, and how fast."""
    learnt, held_out = scene.split(fitted.settings.holdout_every)
    views, numbers = clocked(evaluate_views, fitted, scene, held_out)
    height, width = scene.camera.image_size
    return {
        'held_out': views,
        'rendered_rays_per_second': len(held_out) * height * width / numbers[clock],
        'points': evaluate_points(fitted, scene.points),
        'nearest_view': nearest_view_baseline(scene, learnt, held_out),
    }


def side_settings(changes: dict, steps: int, args: argparse.Namespace, device: str) -> FitSettings:
    """Settings of one side."""
    settings = make_fit_settings(
        CONFIG,
        {'steps': steps, 'measure_every': args.measure_every, 'seed': args.seed, **changes},
    )
    if device == 'cuda':
        settings = replace(
            settings,
            batch_rays=16384,
            surface_pixels=65536,
            coarse_samples=16,
            fine_samples=16,
        )
    return settings


def show(result: dict) -> None:
    """Print the numbers, side by side."""
    columns = {'seconds': '.1f', 'CPU s': '.1f', 'pixels/s': '.0f', 'held-out PSNR': '.2f'}
    rows = {}
    for side in (side for side in SIDES if side in result):
        row = result[side]
        rates = (row['seconds'], row['cpu_seconds'], row['pixels_per_second'])
        rows[side] = [*rates, row['history'][-1][MEASURE], *row['time_to'].values()]
    print_table(columns | {f's to {db} dB': '.1f' for db in LEVELS}, rows)

    for group in ('held_out', 'points', 'nearest_view'):
        print(f'{group}: {json.dumps({k: round(v, 4) for k, v in result["hash"][group].items()})}')
    print(f'renders {result["hash"]["rendered_rays_per_second"]:.0f} rays/s')
    if 'speedup' in result:
        print(
            f'hash grids reach {result["psnr_both"]:.2f} dB {result["speedup"]:.1f} times as fast'
        )
    print(f'peak memory {result["peak_mb"]:.0f} MB on {result["device"]}')
