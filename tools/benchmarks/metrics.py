"""Instance evaluation against mmdet3d's ``instance_seg_eval``: seconds and peak memory.

Each side runs in a process of its own on the same made-up scenes, so that neither sees the
other's memory. mmdet3d takes one predicted instance id per point and all scenes at once; ours
takes (K, N) boolean masks scene by scene. Making the scenes is not timed. Peak memory is what
the process needed beyond its size after the imports, the scene in hand included.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
STATUS = Path('/proc/self/status')
MIN_REGION_SIZE = 100
ROWS = {
    'instance': 'ours, instance',
    'unified': 'ours, semantic + instance + panoptic',
    'mmdet3d': 'mmdet3d instance_seg_eval',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the made-up validation set."""
    parser.add_argument('--points', type=int, default=100_000, help='points per scene')
    parser.add_argument('--instances', type=int, default=40, help='instances per scene')
    parser.add_argument('--scenes', type=int, default=50, help='number of scenes')
    parser.add_argument('--seed', type=int, default=0, help='of the scenes')


def run(args: argparse.Namespace) -> dict:
    """Measure both sides, print a table and return the numbers.

    Returns:
        ``{'instance': {'seconds', 'peak_mb', 'ap'}, 'unified': …, 'mmdet3d': …, 'speedup',
        'memory_ratio', 'arguments'}``; peak_mb is None where the system does not tell.

    Raises:
        ValueError: sizes below 1, or the two sides disagree on AP.
        RuntimeError: a measuring process failed.
    """
    sizes = {name: getattr(args, name) for name in ('points', 'instances', 'scenes', 'seed')}
    for name in ('points', 'instances', 'scenes'):
        if sizes[name] < 1:
            raise ValueError(f'--{name} must be at least 1, got {sizes[name]}')
    result: dict = {side: _run_in_child(side, sizes) for side in ROWS}
    ours, reference = result['instance'], result['mmdet3d']
    if not np.allclose(ours['ap'], reference['ap'], rtol=1e-9, equal_nan=True):
        raise ValueError(f'AP differs: ours {ours["ap"]}, mmdet3d {reference["ap"]}')
    result['speedup'] = reference['seconds'] / ours['seconds']
    if ours['peak_mb'] is not None:
        result['memory_ratio'] = reference['peak_mb'] / ours['peak_mb']
    result['arguments'] = sizes
    _print_table(result)
    return result


def _print_table(result: dict) -> None:
    sizes = result['arguments']
    print(
        f'{sizes["scenes"]} scenes of {sizes["points"]} points and {sizes["instances"]} instances'
    )
    print(f'{"":38}{"seconds":>9}{"peak MB":>9}{"AP":>8}')
    for side, label in ROWS.items():
        row = result[side]
        peak = '–' if row['peak_mb'] is None else f'{row["peak_mb"]:.0f}'
        print(f'{label:38}{row["seconds"]:9.2f}{peak:>9}{row["ap"][0]:8.4f}')
    line = f'instance_seg_eval takes {result["speedup"]:.1f} times as long'
    if 'memory_ratio' in result:
        line += f' and {result["memory_ratio"]:.1f} times the memory'
    print(line)


def _run_in_child(side: str, sizes: dict[str, int]) -> dict:
    """Run this file as a program and read the last line that it prints."""
    print(f'measuring: {ROWS[side]} …', file=sys.stderr)
    # -P keeps this folder, whose file names are common words, off the import path.
    paths = [str(REPOSITORY), *filter(None, [os.environ.get('PYTHONPATH')])]
    process = subprocess.run(
        [sys.executable, '-P', str(Path(__file__).resolve()), side, json.dumps(sizes)],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    if process.returncode != 0:
        raise RuntimeError(f'{ROWS[side]}: its process ended with status {process.returncode}')
    return json.loads(process.stdout.splitlines()[-1])


def make_scene(seed: int, num_points: int, num_instances: int) -> tuple[dict, dict]:
    """A floor plan of Voronoi cells, and its cells again from displaced centres.

    Returns:
        ground truth and prediction as ``UnifiedSegMetric`` takes them, ScanNet's 20 classes;
        one cell in seven is wall or unlabeled, one predicted class in ten is wrong.
    """
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(seed)
    points = rng.random((num_points, 2), dtype=np.float32)
    centres = rng.random((num_instances, 2), dtype=np.float32)
    classes = rng.integers(2, 20, size=num_instances)
    background = rng.random(num_instances) < 1 / 7
    gt = cKDTree(centres).query(points)[1]
    semantic = np.where(background, rng.choice([0, 20], size=num_instances), classes)[gt]
    instance = np.where(background[gt], -1, gt)

    moved = centres + rng.normal(0, 0.02, centres.shape).astype(np.float32)
    ids = cKDTree(moved).query(points)[1]
    wrong = rng.random(num_instances) < 0.1
    labels = np.where(wrong, rng.integers(2, 20, size=num_instances), classes)
    maps = labels[ids]
    pred = {
        'pts_semantic_mask': [maps, maps],
        'pts_instance_mask': [ids[None, :] == np.arange(num_instances)[:, None], ids + 2],
        'instance_labels': labels - 2,
        'instance_scores': rng.random(num_instances, dtype=np.float32),
    }
    return {'pts_semantic_mask': semantic, 'pts_instance_mask': instance}, pred


def _measure_ours(sizes: dict[str, int], tasks: tuple[str, ...]) -> tuple[float, list[float]]:
    from tqdm import trange

    from oneformer3d.metrics import UnifiedSegMetric

    metric = UnifiedSegMetric('scannet', MIN_REGION_SIZE, tasks=tasks)
    seconds = 0.0
    for index in trange(sizes['scenes'], leave=False):
        gt, pred = make_scene(sizes['seed'] + index, sizes['points'], sizes['instances'])
        start = time.perf_counter()
        metric.process({}, [{'eval_ann_info': gt, 'pred_pts_seg': pred}])
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    scores = metric.evaluate(sizes['scenes'])
    seconds += time.perf_counter() - start
    return seconds, [scores[f'instance/{name}'] for name in ('AP', 'AP50', 'AP25')]


def _measure_mmdet3d(sizes: dict[str, int]) -> tuple[float, list[float]]:
    import torch
    from mmdet3d.evaluation import instance_seg_eval
    from tqdm import trange

    columns: tuple[list, ...] = ([], [], [], [], [])
    for index in trange(sizes['scenes'], leave=False):
        gt, pred = make_scene(sizes['seed'] + index, sizes['points'], sizes['instances'])
        instance = gt['pts_instance_mask']
        scene = (
            np.where(instance < 0, 18, gt['pts_semantic_mask'] - 2),
            np.where(instance < 0, 0, instance + 1),
            pred['pts_instance_mask'][1] - 2,
            pred['instance_labels'],
            pred['instance_scores'],
        )
        for column, value in zip(columns, scene):
            column.append(torch.from_numpy(value))
    names = tuple(f'class {k}' for k in range(18))
    options = {'min_region_sizes': np.array([MIN_REGION_SIZE])}
    start = time.perf_counter()
    scores = instance_seg_eval(*columns, tuple(range(1, 19)), names, options, logger='silent')
    seconds = time.perf_counter() - start
    return seconds, [float(scores[f'all_{name}']) for name in ('ap', 'ap_50%', 'ap_25%')]


def _kilobytes(field: str) -> int:
    """A field of /proc/self/status; unlike getrusage it knows nothing of the parent."""
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(f'{field}:'))
    return int(line.split()[1])


def _child(side: str, sizes: dict[str, int]) -> None:
    import warnings

    import mmdet3d.evaluation  # noqa: F401  both sides start from the same imports

    import oneformer3d.metrics  # noqa: F401

    warnings.simplefilter('ignore')
    measurable = STATUS.is_file()
    before = _kilobytes('VmRSS') if measurable else 0
    if side == 'mmdet3d':
        seconds, ap = _measure_mmdet3d(sizes)
    else:
        tasks = ('instance',) if side == 'instance' else ('semantic', 'instance', 'panoptic')
        seconds, ap = _measure_ours(sizes, tasks)
    peak = (_kilobytes('VmHWM') - before) / 1024 if measurable else None
    print(json.dumps({'seconds': seconds, 'peak_mb': peak, 'ap': ap}))


if __name__ == '__main__':
    _child(sys.argv[1], json.loads(sys.argv[2]))
