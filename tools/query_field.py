"""Query a fitted field at points: classes, and how relevant text is.

    python tools/query_field.py work_dirs/fields/room --points scan.ply --out work_dirs/query
    python tools/query_field.py work_dirs/fields/room --text "a chair" lamp \
        --weights work_dirs/tiny_clip/tiny_clip.pth --out work_dirs/query --views 3
    python tools/query_field.py work_dirs/fields/room --points scan.ply --features
    python tools/query_field.py work_dirs/fields/room --pseudo_labels DATA_ROOT

Points are in world metres; without --points the surfaces that the views observed are queried,
one point in 2 cm.
Writes points.npz and points.ply (and text.*, features.npz), and pictures of views. Positions that
no view observed get no answer: label 255, confidence 0, features 0.
"""

import argparse
from pathlib import Path

from oneformer3d.engine.cli import ToolParser, run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('field', help='field.pth, or its folder')
    parser.add_argument('--points', help='.ply, .pcd, .npy or .bin')

    # text
    parser.add_argument('--text', nargs='+', help='phrases')
    parser.add_argument('--negatives', nargs='+', help="(default: LERF's)")
    parser.add_argument(
        '--templates', nargs='+', help='sentences with {} for the phrase (default: of a room)'
    )
    parser.add_argument(
        '--average', action='store_true', help='the phrases are one query, their mean (as in F3RM)'
    )
    parser.add_argument(
        '--clip-weights',
        '--weights',
        dest='weights',
        help='of the CLIP whose language the field learnt',
    )
    parser.add_argument(
        '--clip-model',
        '--model',
        dest='model',
        default='ViT-B-16',
        help='of the weights (%(default)s)',
    )
    parser.add_argument('--temperature', type=float, default=0.1, help='of it (%(default)s)')
    parser.add_argument('--threshold', type=float, default=0.5, help='of relevancy (%(default)s)')

    # what is written
    parser.add_argument('--out', default='outputs/field_query', help='folder (%(default)s)')
    parser.add_argument('--features', action='store_true', help='write distilled features, too')
    parser.add_argument('--views', type=int, default=0, help='pictures of so many learnt views')
    parser.add_argument('--turntable', action='store_true', help='a GIF that turns on the spot')
    parser.add_argument('--pseudo-labels', metavar='DATA_ROOT', help='write label files for a scan')
    parser.add_argument('--class-table', default='synthetic', help='of pseudo-labels (%(default)s)')
    parser.add_argument('--min-confidence', type=float, default=0.5, help='of pseudo-labels')
    parser.add_argument('--device', default='auto', help='auto | cpu | cuda')
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported

import numpy as np
import torch
from tqdm import tqdm

from oneformer3d.clip.text import CANONICAL_PHRASES, PROMPT_TEMPLATES
from oneformer3d.data.class_tables import get_class_table
from oneformer3d.data.clouds.as_scan import read_point_cloud
from oneformer3d.fields.asking.answers import (
    encode_phrases,
    write_classes,
    write_features,
    write_observed,
    write_relevancy,
)
from oneformer3d.fields.asking.pictures import draw_views, write_turntable
from oneformer3d.fields.asking.segment import write_pseudo_labels
from oneformer3d.fields.asking.text import TextQuery
from oneformer3d.fields.fitting.field_file import load_field
from oneformer3d.fields.fitting.fitted import FittedField
from oneformer3d.fields.fitting.surfaces import QUERY_SPACING, learnt_camera, surface_points
from oneformer3d.files.devices import pick_device


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    fitted, _ = load_field(args.field, pick_device(args.device))
    if args.pseudo_labels is not None:
        export_labels(fitted, args)
        return

    out, text = Path(args.out), None
    points = surface_points(fitted, QUERY_SPACING) if args.points is None else read_xyz(args.points)
    write = write_classes if fitted.class_names else write_observed
    print(f'observed {write(out, fitted, points):.1%} of the points')
    if args.features:
        write_features(out, fitted, points)
    if args.text is not None:
        text = encode_phrases(
            args.field,
            fitted,
            args.text,
            args.negatives or CANONICAL_PHRASES,
            args.model,
            args.weights,
            args.templates or PROMPT_TEMPLATES,
        )
        text = text.averaged() if args.average else text
        rows = write_relevancy(out, fitted, points, text, args.threshold, args.temperature)
        for phrase, highest, share in rows:
            print(f'{phrase:24s} highest relevancy {highest:.3f}, points {share:.1%}')
    draw(fitted, args, out, text)
    print(f'{len(points)} points: {out}')


def draw(fitted: FittedField, args: argparse.Namespace, out: Path, text: TextQuery | None) -> None:
    """Pictures of learnt views, evenly chosen, and a turn on the spot."""
    if args.views:
        last, count = len(fitted.frames) - 1, min(args.views, len(fitted.frames))
        rows = np.linspace(0, last, count).round().astype(int).tolist()
        cameras = [learnt_camera(fitted, row) for row in rows]
        draw_views(fitted, cameras, [fitted.frames[row] for row in rows], out, text)
    if args.turntable:
        with tqdm(total=36, desc='turntable', unit='frame') as bar:
            write_turntable(out / 'turntable.gif', fitted, 36, way='all', on_frame=bar.update)


def export_labels(fitted: FittedField, args: argparse.Namespace) -> None:
    """Pseudo-labels of the points of the field's scene."""
    root = Path(args.pseudo_labels)
    points = read_xyz(args.points or root / 'points' / f'{fitted.scene}.bin')
    shares = write_pseudo_labels(
        fitted, points, root, fitted.scene, get_class_table(args.class_table), args.min_confidence
    )
    print(f'{fitted.scene}: labelled {shares["labelled"]:.1%} of {len(points)} points in {root}')


def read_xyz(path: str | Path) -> torch.Tensor:
    """Points (N, 3) of a file."""
    return torch.from_numpy(read_point_cloud(path)[:, :3].copy())


if __name__ == '__main__':
    run_tool(main)
