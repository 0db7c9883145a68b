"""Fit a neural field to one scene: a folder of posed RGB-D frames, or DATA_ROOT/<scene>.

    python tools/fit_field.py data/synthetic/room0000_00 --out work_dirs/fields/room0000_00
    python tools/fit_field.py SCENE --out OUT --method feature_field --store outputs/clip_feat
    python tools/fit_field.py SCENE --out OUT --method lerf --weights tiny_clip.pth
    python tools/fit_field.py SCENE --out OUT --start FIELD --method feature_field --store STORE

OUT/field.pth is the field. A fit that was interrupted goes on when it is started again, and ends
with the same numbers. OUT/report.json holds what it shows in views it did not learn from.
"""

import argparse
import json
from pathlib import Path

import torch
import yaml
from tqdm import tqdm

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.clip.text import CANONICAL_PHRASES
from oneformer3d.engine.cli import run_tool
from oneformer3d.fields.asking.evaluate import (
    evaluate_points,
    evaluate_views,
    nearest_view_baseline,
)
from oneformer3d.fields.asking.evaluate_text import evaluate_text
from oneformer3d.fields.asking.pictures import draw_views, write_turntable
from oneformer3d.fields.asking.segment import read_prior
from oneformer3d.fields.fitting.fitted import (
    CHECKPOINT_NAME,
    FittedField,
    add_feature_head,
    load_field,
)
from oneformer3d.fields.fitting.loop import fit_field
from oneformer3d.fields.fitting.settings import METHODS, FitSettings, make_fit_settings
from oneformer3d.fields.scene.folder import load_field_scene
from oneformer3d.fields.scene.language import with_language, write_pyramids
from oneformer3d.fields.scene.scene import FieldScene
from oneformer3d.files.atomic import atomic_write_bytes

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'fields'
UNITS = {'psnr': 'dB', 'depth': 'm', 'miou': '%', 'accuracy': '%'}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('scene', help='folder of posed RGB-D frames, or DATA_ROOT/<scene>')
    parser.add_argument('--method', choices=METHODS, help="(default: the config's)")
    parser.add_argument('--config', help='YAML of settings (default: configs/fields/<method>.yaml)')
    parser.add_argument('--out', required=True, help='folder of the field')
    parser.add_argument('--store', help='feature store with the frames')
    parser.add_argument('--weights', help='CLIP whose crop embeddings "lerf" learns')
    parser.add_argument('--model', default='ViT-B-16', help='of the weights (%(default)s)')
    parser.add_argument('--labels', help='auto, none, a folder of label images, or labelled points')
    parser.add_argument('--prior', help='.npz or .ply with classes of points, as of a segmentor')
    parser.add_argument(
        '--start',
        metavar='FIELD',
        help='add a head of features to this field, which stays as it is',
    )
    parser.add_argument('--frame_step', type=int, default=1, help='take every so many-th frame')
    parser.add_argument(
        '--set', nargs='+', default=[], metavar='NAME=VALUE', help='settings, e.g. steps=500'
    )
    parser.add_argument('--device', default='auto', help='auto | cpu | cuda')
    parser.add_argument('--threads', type=int, help='CPU threads (default: torch decides)')
    parser.add_argument('--fresh', action='store_true', help='begin again in any case')
    parser.add_argument('--pictures', action='store_true', help='draw held-out views and a turn')
    parser.add_argument('--baseline', action='store_true', help='measure the nearest view, too')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    settings = read_settings(args)
    device = args.device
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    scene = load_field_scene(
        args.scene,
        store=args.store,
        labels=settings.labels,
        class_table=settings.class_table,
        frame_step=args.frame_step,
        max_side=settings.max_side,
    )
    if settings.method == 'lerf':
        scene = embed_crops(scene, args, settings)
    prior = None if args.prior is None else read_prior(args.prior, len(scene.class_names))
    start = None if args.start is None else with_new_head(args.start, scene, settings)
    with tqdm(total=settings.steps, desc=scene.name, unit='step') as bar:

        def progress(step: int, values: dict[str, float]) -> None:
            bar.update(step - bar.n)
            shown = {k: values[k] for k in ('psnr', 'held_out_psnr') if k in values}
            bar.set_postfix({k: f'{v:.2f}' for k, v in shown.items()}, refresh=False)

        fitted = fit_field(
            scene,
            settings,
            args.out,
            resume=not args.fresh,
            prior=prior,
            start=start,
            device=device,
            on_step=progress,
        )
    report = measure(fitted, scene, args.baseline)
    if args.weights is not None and scene.points is not None:
        report['text'] = measure_text(fitted, scene, args)
    atomic_write_bytes(
        Path(args.out) / 'report.json', json.dumps(report, indent=2).encode() + b'\n'
    )
    print_report(report)
    if args.pictures:
        draw(fitted, scene, Path(args.out))
    print(f'field: {Path(args.out) / CHECKPOINT_NAME}')


def read_settings(args: argparse.Namespace) -> FitSettings:
    """Settings of the config, the arguments and ``--set``."""
    path = args.config or CONFIGS / f'{args.method or "semantic_nerf"}.yaml'
    overrides: dict = {}
    for item in args.set:
        name, equals, value = item.partition('=')
        if not equals:
            raise ValueError(f'--set: expected NAME=VALUE, got {item!r}')
        group, dot, key = name.partition('.')
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f'--set: {item!r} is not readable') from error
        if dot:
            overrides.setdefault(group, {})[key] = parsed
        else:
            overrides[name] = parsed
    for name in ('method', 'labels'):
        if getattr(args, name) is not None:
            overrides[name] = getattr(args, name)
    return make_fit_settings(path, overrides)


def with_new_head(path: str, scene: FieldScene, settings: FitSettings) -> FittedField:
    """A fitted field with one more head for the store's features."""
    if scene.stamp is None:
        raise ValueError('--start adds a head of features: give their --store')
    fitted, _ = load_field(path)
    if fitted.scene != scene.name:
        raise ValueError(f'{path}: is a field of {fitted.scene}, not of {scene.name}')
    options = settings.field_options.get('features', {})
    return add_feature_head(fitted, 'features', scene.stamp.channels, scene.stamp, **options)


def embed_crops(scene: FieldScene, args: argparse.Namespace, settings: FitSettings) -> FieldScene:
    """The scene with CLIP embeddings of crops, made where they are not there yet."""
    if args.weights is None:
        raise ValueError('method lerf needs --weights of a CLIP')
    encoder = ClipEncoder(args.model, args.weights, mode='clip')
    encoder = ClipEncoder(
        args.model, args.weights, mode='clip', input_size=encoder.visual.image_size
    )
    with tqdm(total=len(scene), desc='CLIP of crops', unit='view') as bar:
        store = write_pyramids(
            scene,
            encoder,
            Path(args.out) / 'crops',
            settings.language_scales,
            on_view=bar.update,
        )
    return with_language(scene, store)


def measure(fitted: FittedField, scene: FieldScene, baseline: bool) -> dict:
    """All measurements as plain values."""
    learnt, held_out = scene.split(fitted.settings.holdout_every)
    with tqdm(total=len(held_out), desc='held-out views', unit='view') as bar:
        views = evaluate_views(fitted, scene, held_out, on_view=bar.update)
    report = {
        'scene': scene.name,
        'method': fitted.settings.method,
        'steps': fitted.step,
        'seconds': fitted.report.get('seconds', 0.0),
        'views': len(learnt),
        'held_out': views,
    }
    if scene.points is not None:
        with_instances = 'instances' in fitted.field.head_nets
        report['points'] = evaluate_points(fitted, scene.points, with_instances)
    if baseline and held_out and scene.has_depth:
        report['nearest_view'] = nearest_view_baseline(scene, learnt, held_out)
    return report


def measure_text(fitted: FittedField, scene: FieldScene, args: argparse.Namespace) -> dict:
    """How well the names of the classes find the scan's objects."""
    encoder = ClipEncoder(args.model, args.weights, mode='clip')
    vectors = encoder.encode_text(fitted.class_names) if fitted.class_names else None
    if vectors is None:
        return {}
    return evaluate_text(fitted, scene.points, vectors, encoder.encode_text(CANONICAL_PHRASES))


def print_report(report: dict) -> None:
    """A table of the measurements."""
    print(f'{report["method"]}: {report["steps"]} steps in {report["seconds"]:.1f} s')
    for group in ('held_out', 'nearest_view', 'points', 'text'):
        for name, value in report.get(group, {}).items():
            unit = UNITS.get(name.split('_')[0], '')
            print(f'{group.replace("_", " "):14s} {name:20s} {value:9.3f} {unit}')


def draw(fitted: FittedField, scene: FieldScene, out: Path) -> None:
    """Pictures of the first held-out views, and a turn on the spot."""
    _, held_out = scene.split(fitted.settings.holdout_every)
    views = held_out[:3] or [0]
    draw_views(
        fitted, [scene.camera[v] for v in views], [scene.frames[v] for v in views], out / 'views'
    )
    with tqdm(total=24, desc='turntable', unit='frame') as bar:
        write_turntable(out / 'turntable.gif', fitted, 24, way='all', on_frame=bar.update)


if __name__ == '__main__':
    run_tool(main)
