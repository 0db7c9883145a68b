"""Fit a neural field to one scene: a folder of posed RGB-D frames, or DATA_ROOT/<scene>.

    python tools/fit_field.py data/synthetic/room0000_00 --out work_dirs/fields/room0000_00
    python tools/fit_field.py SCENE --out OUT --method feature_field --store outputs/clip_feat
    python tools/fit_field.py SCENE --out OUT --method feature_field --store CLIP=A --store DINO=B
    python tools/fit_field.py SCENE --out OUT --method lerf --weights tiny_clip.pth
    python tools/fit_field.py SCENE --out OUT --start FIELD --method feature_field --store STORE
    python tools/fit_field.py SCENE --out OUT --config configs/fields/feature_field_gpu.yaml ...

OUT/field.pth is the field. A fit that was interrupted goes on when it is started again, and ends
with the same numbers. OUT/report.json holds what it shows in views it did not learn from.
"""

import argparse
from pathlib import Path

from oneformer3d.engine.cli import (
    ToolParser,
    add_recording_arguments,
    recording_options,
    run_tool,
)

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'fields'
METHODS = sorted(p.stem for p in CONFIGS.glob('*.yaml') if not p.stem.endswith('_gpu'))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('scene', help='folder of posed RGB-D frames, or DATA_ROOT/<scene>')
    parser.add_argument('--method', choices=METHODS, help="(default: the config's)")
    parser.add_argument('--config', help='YAML of settings (default: configs/fields/<method>.yaml)')
    parser.add_argument('--out', required=True, help='folder of the field')

    # what it learns from
    parser.add_argument(
        '--store',
        action='append',
        default=[],
        metavar='[TYPE=]STORE',
        help='feature store with the frames (CLIP unless named); again for each further type',
    )
    parser.add_argument('--weights', help='CLIP whose crop embeddings "lerf" learns')
    parser.add_argument('--model', default='ViT-B-16', help='of the weights (%(default)s)')
    parser.add_argument('--labels', help='auto, none, a folder of label images, or labelled points')
    parser.add_argument('--prior', help='.npz or .ply with classes of points, as of a segmentor')
    parser.add_argument(
        '--start',
        metavar='FIELD',
        help='add a head of features to this field, which stays as it is',
    )

    # how
    parser.add_argument('--frame-step', type=int, default=1, help='take every so many-th frame')
    add_recording_arguments(parser)
    parser.add_argument(
        '--set', nargs='+', default=[], metavar='NAME=VALUE', help='settings, e.g. steps=500'
    )
    parser.add_argument('--device', default='auto', help='auto | cpu | cuda')
    parser.add_argument('--threads', type=int, help='CPU threads (default: torch decides)')
    parser.add_argument('--fresh', action='store_true', help='begin again in any case')

    # what is reported
    parser.add_argument('--pictures', action='store_true', help='draw held-out views and a turn')
    parser.add_argument('--baseline', action='store_true', help='measure the nearest view, too')
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported

import torch

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.fields.asking.report import draw_report, report_lines, write_report
from oneformer3d.fields.fitting.field_file import CHECKPOINT_NAME
from oneformer3d.fields.fitting.job import FitJob, parse_stores, run_fit
from oneformer3d.fields.fitting.settings import (
    FitSettings,
    make_fit_settings,
    parse_overrides,
)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    out = Path(args.out)

    scene, fitted = run_fit(
        FitJob(
            args.scene,
            out,
            read_settings(args),
            stores=parse_stores(args.store),
            weights=args.weights,
            model=args.model,
            prior=args.prior,
            start=args.start,
            reading={'frame_step': args.frame_step, **recording_options(args)},
            resume=not args.fresh,
            device=args.device,
        )
    )

    encode_text = None
    if args.weights is not None:
        encode_text = ClipEncoder(args.model, args.weights, mode='clip').encode_text
    report = write_report(out / 'report.json', fitted, scene, args.baseline, encode_text)
    for line in report_lines(report):
        print(line)
    if args.pictures:
        draw_report(out, fitted, scene)
    print(f'field: {out / CHECKPOINT_NAME}')


def read_settings(args: argparse.Namespace) -> FitSettings:
    """Settings of the config, the arguments and ``--set``."""
    overrides = parse_overrides(args.set)
    for name in ('method', 'labels'):
        if getattr(args, name) is not None:
            overrides[name] = getattr(args, name)
    path = args.config or CONFIGS / f'{args.method or "semantic_nerf"}.yaml'
    return make_fit_settings(path, overrides)


if __name__ == '__main__':
    run_tool(main)
