"""Ask a fitted field about points: classes, and how relevant text is.

    python tools/query_field.py work_dirs/fields/room --points scan.ply --out work_dirs/query
    python tools/query_field.py work_dirs/fields/room --text "a chair" lamp \
        --weights work_dirs/tiny_clip/tiny_clip.pth --out work_dirs/query --views 3
    python tools/query_field.py work_dirs/fields/room --points scan.ply --features
    python tools/query_field.py work_dirs/fields/room --pseudo_labels DATA_ROOT

Points are in world metres; without --points the surfaces that the views saw are asked. Writes
points.npz and points.ply (and text.*, features.npz), and pictures of views. Places that no view
saw get no answer: label 255, confidence 0, features 0.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.clip.text import CANONICAL_PHRASES
from oneformer3d.data.class_tables import get_class_table
from oneformer3d.data.readers import read_point_cloud
from oneformer3d.engine.cli import run_tool
from oneformer3d.fields.asking.pictures import (
    draw_views,
    surface_points,
    write_labelled_cloud,
    write_turntable,
)
from oneformer3d.fields.asking.query import (
    instances_at_points,
    query_features_at_points,
    query_lerf_with_text,
    query_nerf_at_points,
)
from oneformer3d.fields.asking.segment import write_pseudo_labels
from oneformer3d.fields.fitting.fitted import FittedField, load_field
from oneformer3d.files.atomic import atomic_path
from oneformer3d.store import StampMismatchError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('field', help='field.pth, or its folder')
    parser.add_argument('--points', help='.ply, .pcd, .npy or .bin')
    parser.add_argument('--text', nargs='+', help='phrases')
    parser.add_argument('--negatives', nargs='+', default=list(CANONICAL_PHRASES))
    parser.add_argument('--weights', help='of the CLIP whose language the field learnt')
    parser.add_argument('--model', default='ViT-B-16', help='of the weights (%(default)s)')
    parser.add_argument('--threshold', type=float, default=0.5, help='of relevancy (%(default)s)')
    parser.add_argument('--out', default='outputs/field_query', help='folder (%(default)s)')
    parser.add_argument('--features', action='store_true', help='write distilled features, too')
    parser.add_argument('--views', type=int, default=0, help='pictures of so many learnt views')
    parser.add_argument('--turntable', action='store_true', help='a GIF that turns on the spot')
    parser.add_argument('--pseudo_labels', metavar='DATA_ROOT', help='write label files for a scan')
    parser.add_argument('--class_table', default='synthetic', help='of pseudo-labels (%(default)s)')
    parser.add_argument('--min_confidence', type=float, default=0.5, help='of pseudo-labels')
    parser.add_argument('--device', default='auto', help='auto | cpu | cuda')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    device = args.device
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    fitted, _ = load_field(args.field, device)
    out = Path(args.out)
    if args.pseudo_labels is not None:
        export_labels(fitted, args)
        return
    if args.points is not None:
        points = torch.from_numpy(read_point_cloud(args.points)[:, :3].copy())
    else:
        points = surface_points(fitted)
    text = negatives = None
    if fitted.class_names:
        write_classes(fitted, points, out)
    if args.features:
        found = query_features_at_points(fitted, points)
        found['features'] = found['features'].half()
        write_rows(out / 'features.npz', points, found)
    if args.text is not None:
        text, negatives = encode(fitted, args)
        result = query_lerf_with_text(
            fitted, points, text, threshold=args.threshold, negatives=negatives
        )
        write_rows(out / 'text.npz', points, result, phrases=np.array(args.text))
        write_labelled_cloud(out / 'text.ply', points, result, None)
        for column, phrase in enumerate(args.text):
            found = result['relevancy_matrix'][:, column]
            share = float((result['valid_mask'] & (result['labels'] == column)).float().mean())
            print(f'{phrase:24s} highest relevancy {float(found.max()):.3f}, points {share:.1%}')
    if args.views:
        camera = fitted.observations.camera
        chosen = np.linspace(0, len(fitted.frames) - 1, min(args.views, len(fitted.frames)))
        rows = chosen.round().astype(int).tolist()
        names = [fitted.frames[row] for row in rows]
        draw_views(
            fitted, [camera[row] for row in rows], names, out, text, negatives, args.text or ()
        )
    if args.turntable:
        with tqdm(total=36, desc='turntable', unit='frame') as bar:
            write_turntable(out / 'turntable.gif', fitted, 36, way='all', on_frame=bar.update)
    print(f'{len(points)} points: {out}')


def write_classes(fitted: FittedField, points: Tensor, out: Path) -> None:
    """Classes, and instances where the field knows some."""
    has_instances = 'instances' in fitted.field.head_nets
    result = (instances_at_points if has_instances else query_nerf_at_points)(fitted, points)
    write_rows(out / 'points.npz', points, result, class_names=np.array(fitted.class_names))
    write_labelled_cloud(out / 'points.ply', points, result, fitted.palette)
    observed = float(result['observed'].float().mean())
    print(f'observed {observed:.1%} of the points')


def encode(fitted: FittedField, args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Vectors of phrases and negatives by the CLIP that the field learnt from."""
    stamp = fitted.language_stamp or fitted.stamp
    if stamp is None or stamp.mode != 'clip':
        raise ValueError(
            f'{args.field}: learnt no features of a text space; fit with --method lerf, or with '
            'features of mode clip'
        )
    if args.weights is None:
        raise ValueError('--text needs --weights of the CLIP that the field learnt from')
    encoder = ClipEncoder(args.model, args.weights, mode='clip')
    if encoder.weights_digest != stamp.weights_digest:
        raise StampMismatchError(
            f'{args.field}: learnt from {stamp.encoder} ({stamp.weights_digest}), the text would '
            f'be read by {encoder.name} ({encoder.weights_digest})'
        )
    return encoder.encode_text(args.text), encoder.encode_text(args.negatives)


def export_labels(fitted: FittedField, args: argparse.Namespace) -> None:
    """Pseudo-labels of the points of the field's scene."""
    root = Path(args.pseudo_labels)
    source = args.points or root / 'points' / f'{fitted.scene}.bin'
    points = torch.from_numpy(read_point_cloud(source)[:, :3].copy())
    shares = write_pseudo_labels(
        fitted, points, root, fitted.scene, get_class_table(args.class_table), args.min_confidence
    )
    print(f'{fitted.scene}: labelled {shares["labelled"]:.1%} of {len(points)} points in {root}')


def write_rows(path: Path, points: Tensor, result: dict[str, Tensor], **more: np.ndarray) -> None:
    """Everything that was found, as arrays."""
    arrays = {name: values.numpy() for name, values in result.items()}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, points=points.numpy(), **arrays, **more)


if __name__ == '__main__':
    run_tool(main)
