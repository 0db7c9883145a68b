"""Instance evaluation against mmdet3d's ``instance_seg_eval``: seconds and peak memory.

Each side runs in a process of its own on the same made-up scenes, so that neither sees the
other's memory. mmdet3d takes one predicted instance id per point and all scenes at once; ours
takes (K, N) boolean masks scene by scene. Making the scenes is not timed. Peak memory is what
the process needed beyond its size after the imports, the scene in hand included.
"""

import argparse
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from scipy.spatial import cKDTree
from tqdm import trange

from tools.benchmarks._measure import (
    add_integers,
    be_child,
    clocked,
    peak_memory,
    print_table,
    read_integers,
    run_in_child,
)

MIN_REGION_SIZE = 100
ROWS = {
    'instance': 'ours, instance',
    'unified': 'ours, semantic + instance + panoptic',
    'mmdet3d': 'mmdet3d instance_seg_eval',
}
OPTIONS = {
    'points': (100_000, 'points per scene'),
    'instances': (40, 'instances per scene'),
    'scenes': (50, 'number of scenes'),
    'seed': (0, 'of the scenes'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the made-up validation set."""
    add_integers(parser, OPTIONS)


def run(args: argparse.Namespace) -> dict:
    """Measure both sides, print a table and return the numbers.

    Returns:
        ``{'instance': {'seconds', 'peak_mb', 'ap'}, 'unified': …, 'mmdet3d': …, 'speedup',
        'memory_ratio', 'arguments'}``; peak_mb is None where the system does not tell.

    Raises:
        ValueError: sizes below 1, or the two sides disagree on AP.
        RuntimeError: a measuring process failed.
    """
    sizes = read_integers(args, tuple(OPTIONS))
    result: dict = {
        side: run_in_child(__file__, label, 'measure', side, sizes) for side, label in ROWS.items()
    }
    ours, reference = result['instance'], result['mmdet3d']
    if not np.allclose(ours['ap'], reference['ap'], rtol=1e-9, equal_nan=True):
        raise ValueError(f'AP differs: ours {ours["ap"]}, mmdet3d {reference["ap"]}')

    result['speedup'] = reference['seconds'] / ours['seconds']
    if ours['peak_mb'] is not None:
        result['memory_ratio'] = reference['peak_mb'] / ours['peak_mb']
    result['arguments'] = sizes

    print('{scenes} scenes of {points} points and {instances} instances'.format(**sizes))
    rows = {
        label: (result[side]['seconds'], result[side]['peak_mb'], result[side]['ap'][0])
        for side, label in ROWS.items()
    }
    print_table({'seconds': '.2f', 'peak MB': '.0f', 'AP': '.4f'}, rows)
    memory = f' and {result["memory_ratio"]:.1f} times the memory' * ('memory_ratio' in result)
    print(f'instance_seg_eval takes {result["speedup"]:.1f} times as long{memory}')
    return result


def make_scene(seed: int, num_points: int, num_instances: int) -> tuple[dict, dict]:
    """A floor plan of Voronoi cells, and its cells again from displaced centres.

    Returns:
        ground truth and prediction as ``UnifiedSegMetric`` takes them, ScanNet's 20 classes;
        one cell in seven is wall or unlabeled, one predicted class in ten is wrong.
    """
    rng = np.random.default_rng(seed)
    points = rng.random((num_points, 2), dtype=np.float32)
    centres = rng.random((num_instances, 2), dtype=np.float32)
    classes = rng.integers(2, 20, size=num_instances)
    background = rng.random(num_instances) < 1 / 7
    gt = cKDTree(centres).query(points)[1]  # (N,)
    semantic = np.where(background, rng.choice([0, 20], size=num_instances), classes)[gt]
    instance = np.where(background[gt], -1, gt)

    moved = centres + rng.normal(0, 0.02, centres.shape).astype(np.float32)
    ids = cKDTree(moved).query(points)[1]  # (N,)
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


def evaluate_ours(sizes: Mapping[str, int], tasks: tuple[str, ...]) -> tuple[float, list[float]]:
    """Seconds, and AP, AP50 and AP25, of our metric."""
    from oneformer3d.metrics import UnifiedSegMetric

    metric = UnifiedSegMetric('scannet', MIN_REGION_SIZE, tasks=tasks)
    seconds = 0.0
    for index in trange(sizes['scenes'], leave=False):
        gt, pred = make_scene(sizes['seed'] + index, sizes['points'], sizes['instances'])
        sample = {'eval_ann_info': gt, 'pred_pts_seg': pred}
        seconds += clocked(metric.process, {}, [sample])[1]['seconds']
    scores, numbers = clocked(metric.evaluate, sizes['scenes'])
    ap = [scores[f'instance/{name}'] for name in ('AP', 'AP50', 'AP25')]
    return seconds + numbers['seconds'], ap


def evaluate_mmdet3d(sizes: Mapping[str, int]) -> tuple[float, list[float]]:
    """Seconds, and AP, AP50 and AP25, of mmdet3d's evaluation."""
    from mmdet3d.evaluation import instance_seg_eval

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
    arguments = (*columns, tuple(range(1, 19)), names, options, 'silent')
    scores, numbers = clocked(instance_seg_eval, *arguments)
    return numbers['seconds'], [float(scores[f'all_{x}']) for x in ('ap', 'ap_50%', 'ap_25%')]


def measure(side: str, sizes: dict[str, int]) -> dict:
    """Seconds, peak memory and AP of one side."""
    # both sides start from the same imports
    import mmdet3d.evaluation  # noqa: F401

    import oneformer3d.metrics  # noqa: F401

    warnings.simplefilter('ignore')
    if side == 'mmdet3d':
        (seconds, ap), peak = peak_memory(evaluate_mmdet3d, sizes)
    else:
        tasks = ('instance',) if side == 'instance' else ('semantic', 'instance', 'panoptic')
        (seconds, ap), peak = peak_memory(evaluate_ours, sizes, tasks)
    return {'seconds': seconds, 'peak_mb': peak, 'ap': ap}


if __name__ == '__main__':
    be_child({'measure': measure})
