"""Score a model on one labelled scan, through the very path of tools/infer.py.

python tools/evaluate_scan.py LABELS --out DIR
python tools/evaluate_scan.py LABELS --config CONFIG --checkpoint WEIGHTS --mapping names.yaml

LABELS is a folder with cloud.npz (xyz, rgb, semantic, instance: N points; semantic is an index of
the classes, 255 unlabeled; instance -1 none) and classes.json ({"classes": [names]}). The mapping
says which of the model's names mean one of the labels, where they differ: {table: [table, desk]}.
Printed and written: IoU per class, accuracy of the floor, class-agnostic AP of the instances that
tools/infer.py finds and of two baselines, for the whole scan and its halves; docs/real_scans.md has
an example.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer3d.engine.cli import ToolParser, add_model_arguments, model_files, run_tool

if TYPE_CHECKING:
    import numpy as np

    from oneformer3d.metrics.labelled_scan import ScanLabels
    from oneformer3d.structures import Segmentation

CLASSES = ('wall', 'floor', 'cabinet', 'chair', 'table', 'picture')
COMPONENT_RADIUS = 0.06


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('labels', type=Path, help='folder with cloud.npz and classes.json')
    add_model_arguments(parser)
    parser.add_argument(
        '--mapping', type=Path, help='YAML: name of the labels → names of the model'
    )
    parser.add_argument(
        '--classes', nargs='+', default=CLASSES, help='names of the mean (default: %(default)s)'
    )
    parser.add_argument(
        '--kinds',
        nargs='+',
        help='names of the labels that are known kinds (default: all that the model has)',
    )
    parser.add_argument('--out', type=Path, help='folder for scores.json and classes.png')
    parser.add_argument('--device', help='cpu, cuda, ... (default: a GPU where there is one)')
    parser.add_argument(
        '--instances',
        choices=('masks', 'components', 'joined'),
        help="see tools/infer.py (default: what the model's config says)",
    )
    parser.add_argument(
        '--component-radius',
        type=float,
        default=COMPONENT_RADIUS,
        help='points at most so many metres apart are one piece (default: %(default)s)',
    )
    parser.add_argument('--tta', action=argparse.BooleanOptionalAction, help='see the inferencer')
    args = parser.parse_args()
    args.config, args.checkpoint = model_files(args)
    return args


def main() -> None:
    args = parse_args()
    from oneformer3d.engine.configs import load_config
    from oneformer3d.inference.inferencer import OneFormer3DInferencer

    points, labels = read_labels(args.labels)
    mapping = read_mapping(args.mapping)
    inferencer = OneFormer3DInferencer(
        load_config(args.config),
        args.checkpoint,
        args.device,
        score_thr=0.0,
        instances=args.instances,
        component_radius=args.component_radius,
        tta=args.tta,
    )
    result = inferencer(points)
    report = evaluate(labels, result, mapping, args.classes, inferencer.voxel_size, args.kinds)

    print(as_table(report, args.classes))
    if args.out is not None:
        write(args.out, report, labels, result, mapping)


def read_labels(folder: Path) -> 'tuple[np.ndarray, ScanLabels]':
    """Points (N, 6) and labels of a folder.

    Raises:
        FileNotFoundError, ValueError: A file is missing, or not of this form.
    """
    import numpy as np

    from oneformer3d.metrics.labelled_scan import ScanLabels

    names = json.loads((folder / 'classes.json').read_text(encoding='utf-8'))['classes']
    with np.load(folder / 'cloud.npz', allow_pickle=False) as cloud:
        missing = {'xyz', 'rgb', 'semantic', 'instance'} - set(cloud.files)
        if missing:
            raise ValueError(f'{folder}/cloud.npz: has no {", ".join(sorted(missing))}')
        points = np.concatenate([cloud['xyz'], cloud['rgb']], axis=1).astype(np.float32)
        semantic, instance = (cloud[key].astype(np.int64) for key in ('semantic', 'instance'))

    if not len(points) == len(semantic) == len(instance):
        raise ValueError(f'{folder}/cloud.npz: arrays of different lengths')
    return points, ScanLabels(tuple(names), semantic, instance)


def read_mapping(path: Path | None) -> dict[str, list[str]]:
    """Names of the labels → names of the model; {} without a file."""
    if path is None:
        return {}
    import yaml

    mapping = yaml.safe_load(path.read_text(encoding='utf-8'))
    if not isinstance(mapping, dict) or not all(isinstance(v, list) for v in mapping.values()):
        raise ValueError(f'{path}: expected "name: [names]" lines')
    return mapping


def evaluate(
    labels: 'ScanLabels',
    result: 'Segmentation',
    mapping: dict[str, list[str]],
    classes: tuple[str, ...],
    voxel_size: float,
    kinds: list[str] | None = None,
) -> dict[str, Any]:
    """Scores of the whole scan and of its halves along its longer side.

    One point of each cube that the network saw is scored, so that dense places count no more.
    """
    import numpy as np

    from oneformer3d.data.thinning import thin_scan
    from oneformer3d.metrics.labelled_scan import names_of_classes

    meant = names_of_classes(labels.names, result.class_names, mapping)
    thinned = thin_scan(result.points, voxel_size)
    row = np.zeros(len(thinned.points), np.int64)
    row[thinned.cell_of_point] = np.arange(len(result.points))

    xyz = result.upright[row]
    axis = int(np.ptp(xyz[:, :2], axis=0).argmax())
    first = xyz[:, axis] < (xyz[:, axis].min() + xyz[:, axis].max()) / 2
    parts = {'whole': np.ones(len(row), bool), 'first half': first, 'second half': ~first}

    masks = np.zeros((len(result.instances), len(row)), bool)
    for index, instance in enumerate(result.instances):
        masks[index] = instance.mask[row]
    scores = np.array([instance.score for instance in result.instances])
    known = kinds or [
        name for index, name in enumerate(labels.names) if index in meant and name != 'other'
    ]

    predicted = meant[result.semantic[row]]
    baselines = other_masks(thinned.points, predicted, labels)
    report: dict[str, Any] = {'info': describe(result), 'known': known}
    for part, keep in parts.items():
        proposals = {'instances': (masks, scores), **baselines}
        report[part] = score_part(
            labels.rows(row[keep]),
            predicted[keep],
            {name: (m[:, keep], s) for name, (m, s) in proposals.items()},
            known,
            classes,
        )
    return report


def score_part(
    labels: 'ScanLabels',
    predicted: 'np.ndarray',
    proposals: 'dict[str, tuple[np.ndarray, np.ndarray]]',
    known: list[str],
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """All scores of some of the points."""
    import numpy as np

    from oneformer3d.metrics.labelled_scan import agnostic_scores, name_ious, recall_of
    from oneformer3d.metrics.semantic import nan_mean

    iou = dict(zip(labels.names, name_ious(labels, predicted).tolist(), strict=True))
    scores: dict[str, Any] = {
        'iou': {name: value for name, value in iou.items() if not np.isnan(value)},
        'miou': nan_mean(np.array([iou[name] for name in classes if name in iou])),
        'floor': recall_of(labels, predicted, 'floor'),
        'wall': recall_of(labels, predicted, 'wall'),
    }
    for name, (masks, confidence) in proposals.items():
        every, some = (agnostic_scores(labels, masks, confidence, kinds) for kinds in (None, known))
        scores[name] = {
            'ap50': every.ap50,
            'ap25': every.ap25,
            'instances': every.num_instances,
            'known_ap50': some.ap50,
            'known_ap25': some.ap25,
            'known_instances': some.num_instances,
            'calibration_error': every.calibration_error,
        }
    return scores


def other_masks(
    points: 'np.ndarray', predicted: 'np.ndarray', labels: 'ScanLabels'
) -> 'dict[str, tuple[np.ndarray, np.ndarray]]':
    """What instances should beat: pieces of what is no stuff, and superpoints as they are."""
    import numpy as np

    from oneformer3d.data.superpoints import superpoints_from_points
    from oneformer3d.inference.components import connect, pairs_within

    stuff = [labels.names.index(name) for name in labels.stuff if name in labels.names]
    is_stuff = np.isin(predicted, stuff)
    pieces = connect(len(points), pairs_within(points[:, :3], COMPONENT_RADIUS), is_stuff)
    patches = superpoints_from_points(points[:, :3], points[:, 3:])
    return {
        'components': as_masks(np.where(is_stuff, -1, pieces)),
        'superpoints': as_masks(patches),
    }


def as_masks(ids: 'np.ndarray', min_points: int = 10) -> 'tuple[np.ndarray, np.ndarray]':
    """Ids (N,), -1 for none → masks (K, N) and scores (K,) that grow with size."""
    import numpy as np

    found, counts = np.unique(ids[ids >= 0], return_counts=True)
    found, counts = found[counts >= min_points], counts[counts >= min_points]
    return ids[None] == found[:, None], counts / (counts + min_points)


def describe(result: 'Segmentation') -> dict[str, Any]:
    """What was scored."""
    model = result.info.model
    return {
        'checkpoint': model.checkpoint,
        'config': model.config,
        'points': len(result.points),
        'points_network': result.info.num_points_network,
        'instances': len(result.instances),
        'instance_source': result.info.instance_source,
    }


def as_table(report: dict[str, Any], classes: tuple[str, ...]) -> str:
    """The scores in percent, as a table of Markdown."""
    parts = [name for name in report if name not in ('info', 'known')]
    lines = ['| | ' + ' | '.join(parts) + ' |', '|---' * (len(parts) + 1) + '|']

    def add(name: str, values: list[float]) -> None:
        lines.append(f'| {name} | ' + ' | '.join(f'{100 * value:.1f}' for value in values) + ' |')

    nan = float('nan')
    for name in classes:
        add(f'IoU {name}', [report[part]['iou'].get(name, nan) for part in parts])
    add('mean of these', [report[part]['miou'] for part in parts])
    add('floor called floor', [report[part]['floor'] for part in parts])
    add('wall called wall', [report[part]['wall'] for part in parts])
    for source in ('instances', 'components', 'superpoints'):
        for key, text in (('ap50', 'AP50'), ('ap25', 'AP25'), ('known_ap50', 'AP50 known kinds')):
            add(f'{text}, {source}', [report[part][source][key] for part in parts])
    add('calibration error', [report[part]['instances']['calibration_error'] for part in parts])
    return '\n'.join(lines)


def without_nan(value: Any) -> Any:
    """Scores that nothing could be measured for as null: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    return None if value != value else value


def write(
    out: Path,
    report: dict[str, Any],
    labels: 'ScanLabels',
    result: 'Segmentation',
    mapping: dict[str, list[str]],
) -> None:
    """scores.json, and classes.png: truth and prediction in the colours of the classes."""
    import numpy as np

    from oneformer3d.files.atomic import atomic_write_bytes
    from oneformer3d.files.images import write_png
    from oneformer3d.visualization.figure import comparison_figure

    out.mkdir(parents=True, exist_ok=True)
    # the truth in the model's names: a name of several has the first
    truth = np.full(len(labels.semantic), len(result.class_names), np.int64)
    for index, name in enumerate(labels.names):
        own = [n for n in mapping.get(name, [name]) if n in result.class_names]
        if own:
            truth[labels.semantic == index] = result.class_names.index(own[0])

    picture = comparison_figure(
        result.upright, {'predicted': result.semantic}, truth, result.class_names, result.palette
    )
    write_png(out / 'classes.png', picture)
    text = json.dumps(without_nan(report), indent=1) + '\n'
    atomic_write_bytes(out / 'scores.json', text.encode())


if __name__ == '__main__':
    run_tool(main)
