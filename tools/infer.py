"""Segment scans with a trained model; no ground truth is needed.

python tools/infer.py room.ply --out DIR
python tools/infer.py kinect_sequence/ --config CONFIG --checkpoint WEIGHTS
python tools/infer.py SCANS/ more.ply --config CONFIG --checkpoint WEIGHTS --shard 0/4

INPUT is a cloud, a mesh, a folder of posed RGB-D frames in any format of docs/data.md, or a folder
that holds such scans. The result of a scan goes to work_dirs/infer/NAME (DIR/NAME with --out, DIR
itself for a single scan): segmentation.ply, instances.ply, instances.json, predictions.npz,
segmentation.png, top.png and summary.json; see docs/inference.md. What is finished is not done
again.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer3d.engine.cli import (
    USER_ERRORS,
    ToolParser,
    add_folder_arguments,
    add_model_arguments,
    add_recording_arguments,
    add_scan_arguments,
    folder_options,
    model_files,
    recording_options,
    run_tool,
    tell,
)
from oneformer3d.engine.progress import show_progress
from oneformer3d.engine.share import add_shard_argument, share_of

if TYPE_CHECKING:
    from oneformer3d.inference.inferencer import OneFormer3DInferencer
    from oneformer3d.inference.scans import ScanJob
    from oneformer3d.structures import Segmentation

UPS = ('x', 'y', 'z', '-x', '-y', '-z')
INSTANCES = ('masks', 'components', 'joined')


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='INPUT',
        help='cloud, folder of posed frames, or of scans',
    )
    add_model_arguments(parser)
    parser.add_argument('--out', help='folder for the results (default: work_dirs/infer)')
    parser.add_argument('--fresh', action='store_true', help='segment also what is finished')
    add_shard_argument(parser)
    add_folder_arguments(parser)
    parser.add_argument('--device', help='cpu, cuda, ... (default: a GPU where there is one)')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='least instance score (default: %(default)s)'
    )
    parser.add_argument(
        '--voxel-size',
        type=float,
        help="thin the cloud to one point per cube of so many metres (default: the model's voxel "
        'size; 0: keep all points)',
    )
    parser.add_argument(
        '--max-points',
        type=int,
        default=150_000,
        help='segment larger scenes in overlapping tiles (default: %(default)s)',
    )
    parser.add_argument(
        '--tile-margin', type=float, default=1.0, help='context of a tile in metres'
    )
    parser.add_argument(
        '--instances',
        choices=INSTANCES,
        help="the network's masks, connected pieces of what is no wall, floor or ceiling, or both "
        "(default: what the model's config says)",
    )
    parser.add_argument(
        '--component-radius',
        type=float,
        default=0.06,
        help='points at most so many metres apart are one piece (default: %(default)s)',
    )
    parser.add_argument(
        '--tta',
        action=argparse.BooleanOptionalAction,
        help="average over mirrored and turned views of each scan, at several times the network's "
        "time (default: what the model's config says)",
    )
    parser.add_argument(
        '--up',
        choices=UPS,
        help='axis of the input that points up (default: z, of RGB-D frames as the cameras tell)',
    )
    add_scan_arguments(parser)
    add_recording_arguments(parser)
    parser.add_argument(
        '--clip-weights',
        help='for a model with image features: the CLIP that they were made with (file or tag of '
        'open_clip); a folder is then segmented with its images',
    )
    parser.add_argument('--clip-model', help='open_clip model, where the weights do not tell')
    parser.add_argument(
        '--vocabulary',
        nargs='+',
        metavar='WORD',
        help='name what is found by these words instead of the trained classes (needs '
        '--clip-weights and folders of images)',
    )
    parser.add_argument(
        '--with-classes', action='store_true', help='the trained classes beside the vocabulary'
    )
    parser.add_argument('--clip-layers', nargs='+', help='as at the extraction')
    parser.add_argument('--clip-input-size', nargs='+', type=int, help='as at the extraction')
    parser.add_argument(
        '--extras',
        nargs='+',
        default=[],
        choices=('glb', 'las', 'scannet', 'instances'),
        help="write as well: scene.glb, scan.las (needs laspy), the ScanNet benchmark's files, a "
        'PLY per instance',
    )
    parser.add_argument(
        '--html', action='store_true', help='write as well: scene.html, which any browser shows'
    )
    parser.add_argument(
        '--max-views', type=int, default=64, help='images of a folder (default: %(default)s)'
    )
    args = parser.parse_args()
    args.config, args.checkpoint = model_files(args)
    return args


def main() -> None:
    args = parse_args()
    check(args)
    from oneformer3d.inference.scans import list_jobs

    every = list_jobs(args.inputs, args.out)
    share = share_of(args.shard)
    jobs = share.of(every)
    if share.count > 1:
        print(f'share {share.index} of {share.count}: {len(jobs)} of {len(every)} scans')
    if len(every) == 1:
        segment(jobs, args)
        return

    # one broken scan does not keep the others from being segmented
    faults = segment(jobs, args, USER_ERRORS)
    print(f'{len(jobs) - len(faults)} of {len(jobs)} scans are segmented')
    if faults:
        raise ValueError(f'{len(faults)} of {len(jobs)} scans failed: {"; ".join(faults)}')


def check(args: argparse.Namespace) -> None:
    """What can be wrong is found before anything slow is loaded."""
    if not 0 <= args.score_thr <= 1:
        raise ValueError(f'--score-thr: expected a number within 0 to 1, got {args.score_thr}')
    if args.max_points < 1 or args.tile_margin < 0 or (args.voxel_size or 0) < 0:
        raise ValueError('--max-points, --tile-margin and --voxel-size must not be negative')
    if args.vocabulary is not None and args.clip_weights is None:
        raise ValueError('--vocabulary needs --clip-weights, which compare words with images')
    if args.with_classes and args.vocabulary is None:
        raise ValueError('--with-classes needs --vocabulary')
    if args.out is not None and Path(args.out).exists() and not Path(args.out).is_dir():
        raise NotADirectoryError(f'{args.out}: is not a folder')


def segment(
    jobs: 'list[ScanJob]', args: argparse.Namespace, passed: tuple[type[Exception], ...] = ()
) -> list[str]:
    """Segment the scans that have no result yet; what went wrong, of the errors to pass over."""
    from oneformer3d.inference.scans import is_finished
    from oneformer3d.structures.segmentation import EXTRA_FILES
    from oneformer3d.viewer.page import PAGE

    extras = [EXTRA_FILES[extra] for extra in args.extras] + ([PAGE] if args.html else [])
    reading = {'unit': args.unit, 'columns': args.columns, 'up': args.up, **recording_options(args)}
    if not jobs:
        return []

    inferencer, faults = load_model(args), []
    for number, job in enumerate(jobs, start=1):
        if len(jobs) > 1:
            print(f'[{number}/{len(jobs)}] {job.source}')
        try:
            key = inferencer.key(job.source, **reading)
            if not args.fresh and is_finished(job.out, key, extras):
                print(f'finished already: {job.out}')
                continue
            segment_one(job, inferencer, key, reading, args)
        except passed as error:
            faults.append(str(error))
            print(f'failed: {error}')
    return faults


def load_model(args: argparse.Namespace) -> 'OneFormer3DInferencer':
    """The model with the settings of the command line."""
    from oneformer3d.engine.configs import load_config
    from oneformer3d.inference.inferencer import OneFormer3DInferencer
    from oneformer3d.inference.model_settings import test_settings

    show_progress('load model', 0, 1)
    config = load_config(args.config, folder_options(args))
    words = args.vocabulary
    if args.with_classes:
        classes = test_settings(config, str(args.config))[0].classes
        words = [*classes, *(word for word in words if word not in classes)]
    inferencer = OneFormer3DInferencer(
        config,
        args.checkpoint,
        args.device,
        score_thr=args.score_thr,
        voxel_size=args.voxel_size,
        max_points=args.max_points,
        tile_margin=args.tile_margin,
        clip=clip_settings(args),
        max_views=args.max_views,
        vocabulary=words,
        instances=args.instances,
        component_radius=args.component_radius,
        tta=args.tta,
    )
    show_progress('load model', 1, 1)
    return inferencer


def segment_one(
    job: 'ScanJob',
    inferencer: 'OneFormer3DInferencer',
    key: str,
    reading: dict[str, Any],
    args: argparse.Namespace,
) -> None:
    """Read a scan, segment it and write its result."""
    from oneformer3d.data.scan import read_scan
    from oneformer3d.viewer.page import PAGE, write_page
    from oneformer3d.viewer.scene import view_scene

    show_progress('read scan', 0, 1)
    scan = read_scan(job.source, **reading)
    show_progress('read scan', 1, 1)
    tell(scan.warnings, args.warnings)
    result = inferencer.segment(scan, progress=show_progress)
    result = replace(result, info=replace(result.info, key=key))

    show_progress('write files', 0, 1)
    result.save(job.out, args.extras)
    if args.html:
        title = job.source.resolve().name
        write_page(job.out / PAGE, view_scene(title, result.upright, result.rgb, result))
    show_progress('write files', 1, 1)
    report(result, job.out)


def clip_settings(args: argparse.Namespace) -> dict | None:
    """What was said about CLIP, None if nothing was."""
    settings = {
        'weights': args.clip_weights,
        'model': args.clip_model,
        'layers': args.clip_layers,
        'input_size': args.clip_input_size,
    }
    if args.clip_weights is None:
        named = [name for name, value in settings.items() if value is not None]
        if named:
            raise ValueError(f'--clip-{named[0].replace("_", "-")} needs --clip-weights')
        return None
    return {name: value for name, value in settings.items() if value is not None}


def report(result: 'Segmentation', out: Path) -> None:
    """The main numbers on stdout."""
    summary, info = result.summary(), result.info
    print(f'{len(result.points)} points, {info.num_points_network} for the network')
    if info.num_isolated:
        print(f'{info.num_isolated} isolated points take the labels of the nearest others')
    shares = [
        f'{name} {100 * count / len(result.points):.1f} %'
        for name, count in summary['points_per_class'].items()
    ]
    print('classes: ' + ', '.join(shares))

    print(f'{len(result.instances)} instances with a score of at least {info.score_thr}')
    for instance in result.instances[:20]:
        size = ' x '.join(f'{length:.2f}' for length in instance.box.size)
        print(f'  {instance.score:.2f} {instance.name:15s} {size} m')
    if len(result.instances) > 20:
        print(f'  and {len(result.instances) - 20} more: see summary.json')
    print('seconds: ' + ', '.join(f'{k} {v:.2f}' for k, v in info.seconds.items()))
    print(f'results: {out}')


if __name__ == '__main__':
    run_tool(main)
