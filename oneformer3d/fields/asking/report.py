"""What a fit is reported with: numbers in ``report.json``, a table, pictures.

Enters: a ``FittedField`` and its scene. Leaves: plain values, lines of text, files.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from oneformer3d.clip.text import CANONICAL_PHRASES
from oneformer3d.files.atomic import atomic_write_bytes

from ..fitting.fitted import FittedField
from ..scene.scene import FieldScene
from .baseline import nearest_view_baseline
from .evaluate import evaluate_points, evaluate_view_instances, evaluate_views
from .evaluate_text import evaluate_text
from .pictures import draw_views, write_turntable
from .text import EncodeText

_UNITS = {'psnr': 'dB', 'depth': 'm', 'miou': '%', 'accuracy': '%', 'pq': '%'}
_TURN_FRAMES = 24


def write_report(
    path: str | Path,
    fitted: FittedField,
    scene: FieldScene,
    baseline: bool = False,
    encode_text: EncodeText | None = None,
) -> dict[str, Any]:
    """Measure a field in its held-out views and at the scan's points, and write a JSON file.

    Args:
        path: of the file.
        fitted: the field.
        scene: that it was fitted to.
        baseline: measure the nearest learnt view, too.
        encode_text: also measure how well the names of the classes find the scan's objects.

    Returns:
        'scene', 'method', 'steps', 'seconds', 'views', and by group 'held_out',
        'view_instances', 'points', 'nearest_view' and 'text', as far as they can be measured.
    """
    learnt, held_out = scene.split(fitted.settings.holdout_every)
    with tqdm(total=len(held_out), desc='held-out views', unit='view') as bar:
        views = evaluate_views(fitted, scene, held_out, on_view=bar.update)
    report: dict[str, Any] = {
        'scene': scene.name,
        'method': fitted.settings.method,
        'steps': fitted.step,
        'seconds': fitted.report.get('seconds', 0.0),
        'views': len(learnt),
        'held_out': views,
    }
    report['view_instances'] = evaluate_view_instances(fitted, scene, held_out)
    if scene.points is not None:
        report['points'] = evaluate_points(fitted, scene.points)
    if baseline and held_out and scene.has_depth:
        report['nearest_view'] = nearest_view_baseline(scene, learnt, held_out)
    if encode_text is not None and scene.points is not None and fitted.class_names:
        vectors, negatives = encode_text(fitted.class_names), encode_text(CANONICAL_PHRASES)
        report['text'] = evaluate_text(fitted, scene.points, vectors, negatives)

    atomic_write_bytes(path, json.dumps(report, indent=2).encode() + b'\n')
    return report


def report_lines(report: dict[str, Any]) -> Iterator[str]:
    """The report as a table."""
    yield f'{report["method"]}: {report["steps"]} steps in {report["seconds"]:.1f} s'
    for group in ('held_out', 'view_instances', 'nearest_view', 'points', 'text'):
        for name, value in report.get(group, {}).items():
            unit = _UNITS.get(name.split('_')[0], '')
            yield f'{group.replace("_", " "):14s} {name:20s} {value:9.3f} {unit}'


def draw_report(out: str | Path, fitted: FittedField, scene: FieldScene) -> None:
    """Draw ``views/``, the first held-out views, and ``turntable.gif``, a turn on the spot."""
    _, held_out = scene.split(fitted.settings.holdout_every)
    views = held_out[:3] or [0]
    cameras, names = [scene.camera[v] for v in views], [scene.frames[v] for v in views]
    draw_views(fitted, cameras, names, Path(out) / 'views')
    with tqdm(total=_TURN_FRAMES, desc='turntable', unit='frame') as bar:
        path = Path(out) / 'turntable.gif'
        write_turntable(path, fitted, _TURN_FRAMES, way='all', on_frame=bar.update)
