"""The result of an inference on disk.

Enters: the dictionary of ``OneFormer3DInferencer``. Leaves, in one folder:

- ``segmentation.ply``: the scan coloured by class; properties semantic, instance, panoptic
- ``instances.ply``: the same coloured by instance
- ``predictions.npz``: see ``prediction_arrays``
- ``segmentation.png``: input | semantic | instances from an oblique view, ``top.png`` from above
- ``summary.json``: counts, instances with class, score, size and box, times, model; written last

N points, K instances, C classes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oneformer3d.files.atomic import atomic_path, atomic_write_bytes
from oneformer3d.files.images import write_png
from oneformer3d.files.ply import write_ply
from oneformer3d.version import __version__
from oneformer3d.visualization.figure import segmentation_figure
from oneformer3d.visualization.labels import PointLabels
from oneformer3d.visualization.palette import class_colors, instance_colors

FILES = (
    'segmentation.ply',
    'instances.ply',
    'predictions.npz',
    'segmentation.png',
    'top.png',
    'summary.json',
)


def save_segmentation(
    out_dir: str | Path,
    result: Mapping[str, Any],
    source: str = '',
    model_info: Mapping[str, Any] | None = None,
    size: tuple[int, int] = (480, 640),
) -> dict[str, Any]:
    """Write all files; each appears whole or not at all, the summary after all others.

    Args:
        out_dir: folder, made if missing.
        result: of the inferencer.
        source: what was segmented, for the summary.
        model_info: of ``OneFormer3DInferencer.describe_model``, for the summary.
        size: (H, W) of each panel of the pictures.

    Returns:
        The summary.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    # A summary vouches for the other files: an old one must not vouch for new ones.
    (out_dir / 'summary.json').unlink(missing_ok=True)

    xyz, rgb = result['points'][:, :3], result['points'][:, 3:].astype(np.uint8)
    labels = {key: result[key] for key in ('semantic', 'instance', 'panoptic')}
    palette = result['palette']
    write_ply(out_dir / 'segmentation.ply', xyz, class_colors(result['semantic'], palette), labels)
    write_ply(out_dir / 'instances.ply', xyz, instance_colors(result['instance']), labels)

    with atomic_path(out_dir / 'predictions.npz') as temporary:
        np.savez_compressed(temporary, **prediction_arrays(result))

    for name, camera in (('segmentation.png', 'dollhouse'), ('top.png', 'top')):
        image = segmentation_figure(
            result['upright'],
            rgb,
            PointLabels(**labels),
            result['class_names'],
            palette,
            size=size,
            camera=camera,
        )
        write_png(out_dir / name, image)

    summary = summarize(result, source, model_info)
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + '\n'
    atomic_write_bytes(out_dir / 'summary.json', text.encode('utf-8'))
    return summary


def prediction_arrays(result: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What ``predictions.npz`` holds; it loads with ``allow_pickle=False``.

    Returns:
        - ``points`` (N, 6) float32 xyz in metres and rgb 0–255, in the input's order (points
          that were not finite are missing)
        - ``semantic``, ``panoptic_semantic`` (N,) int16 class
        - ``panoptic``, ``instance`` (N,) int32 segment id, and row of the instance or -1
        - ``instance_masks`` (K, ceil(N / 8)) uint8, bits:
          ``np.unpackbits(instance_masks, axis=1, count=N).astype(bool)``
        - ``instance_classes`` (K,) int64, ``instance_scores`` (K,) float32
        - ``class_names`` (C,) str
    """
    num_points = len(result['points'])

    # one bit a point: K full masks would be eight times as large
    packed = np.zeros((len(result['instance_points']), (num_points + 7) // 8), dtype=np.uint8)
    for row, members in enumerate(result['instance_points']):
        mask = np.zeros(num_points, dtype=bool)
        mask[members] = True
        packed[row] = np.packbits(mask)

    return {
        'points': result['points'],
        'semantic': result['semantic'].astype(np.int16),
        'panoptic_semantic': result['panoptic_semantic'].astype(np.int16),
        'panoptic': result['panoptic'].astype(np.int32),
        'instance': result['instance'].astype(np.int32),
        'instance_masks': packed,
        'instance_classes': np.asarray(result['instance_classes'], dtype=np.int64),
        'instance_scores': np.asarray(result['instance_scores'], dtype=np.float32),
        'class_names': np.array(result['class_names']),
    }


def summarize(
    result: Mapping[str, Any], source: str = '', model_info: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Counts and instances as plain JSON values; lengths in metres, times in seconds."""
    names = result['class_names']
    counts = np.bincount(result['semantic'], minlength=len(names))[: len(names)]

    instances = []
    for row, members in enumerate(result['instance_points']):
        xyz = result['points'][members, :3]
        low, high = xyz.min(axis=0), xyz.max(axis=0)
        instances.append(
            {
                'id': row,
                'class': names[int(result['instance_classes'][row])],
                'score': round(float(result['instance_scores'][row]), 4),
                'num_points': len(members),
                'box_min': _rounded(low),
                'box_max': _rounded(high),
                'size': _rounded(high - low),
            }
        )

    return {
        'input': source,
        **{key: value for key, value in result['info'].items() if key != 'seconds'},
        'points_per_class': {
            names[k]: int(counts[k]) for k in np.argsort(-counts, kind='stable') if counts[k]
        },
        'num_instances': len(instances),
        'instances': instances,
        'seconds': result['info']['seconds'],
        'model': dict(model_info or {}),
        'version': __version__,
        'files': list(FILES),
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in values]
