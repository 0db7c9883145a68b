"""Segment a scan with a trained model; no ground truth is needed.

python tools/infer.py room.ply --config CONFIG --checkpoint WEIGHTS --out DIR
python tools/infer.py kinect_sequence/ --config CONFIG --checkpoint WEIGHTS --out DIR

INPUT is a cloud, a mesh, or a folder of posed RGB-D frames in any format of docs/data.md. DIR
receives segmentation.ply, instances.ply, instances.json, predictions.npz, segmentation.png,
top.png and summary.json; see docs/inference.md.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from oneformer3d.engine.cli import (
    ToolParser,
    add_folder_arguments,
    add_recording_arguments,
    add_scan_arguments,
    folder_options,
    recording_options,
    run_tool,
    tell,
)
from oneformer3d.engine.progress import show_progress
from oneformer3d.files.shipped import find_config

if TYPE_CHECKING:
    from oneformer3d.structures import Segmentation

UPS = ('x', 'y', 'z', '-x', '-y', '-z')


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('input', help='point cloud, or folder of posed RGB-D frames')
    parser.add_argument('--config', required=True, help='config the model was trained with')
    parser.add_argument('--checkpoint', required=True, help='trained weights')
    parser.add_argument('--out', required=True, help='folder for the results')
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
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not 0 <= args.score_thr <= 1:
        raise ValueError(f'--score-thr: expected a number within 0 to 1, got {args.score_thr}')
    if args.max_points < 1 or args.tile_margin < 0 or (args.voxel_size or 0) < 0:
        raise ValueError('--max-points, --tile-margin and --voxel-size must not be negative')
    # What can be wrong is found before anything slow is loaded.
    find_config(args.config)
    if not Path(args.checkpoint).is_file():
        raise FileNotFoundError(f'{args.checkpoint}: no such checkpoint file')
    if not Path(args.input).exists():
        raise FileNotFoundError(f'{args.input}: no such file or folder')
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise NotADirectoryError(f'{args.out}: is not a folder')

    from oneformer3d.data.scan import read_scan
    from oneformer3d.engine.configs import load_config
    from oneformer3d.inference.inferencer import OneFormer3DInferencer
    from oneformer3d.viewer.page import PAGE, write_page
    from oneformer3d.viewer.scene import view_scene

    show_progress('read scan', 0, 1)
    scan = read_scan(
        args.input, unit=args.unit, columns=args.columns, up=args.up, **recording_options(args)
    )
    show_progress('read scan', 1, 1)
    tell(scan.warnings, args.warnings)
    show_progress('load model', 0, 1)
    inferencer = OneFormer3DInferencer(
        load_config(args.config, folder_options(args)),
        args.checkpoint,
        args.device,
        score_thr=args.score_thr,
        voxel_size=args.voxel_size,
        max_points=args.max_points,
        tile_margin=args.tile_margin,
        clip=clip_settings(args),
        max_views=args.max_views,
    )
    show_progress('load model', 1, 1)
    result = inferencer(scan, progress=show_progress)
    show_progress('write files', 0, 1)
    result.save(args.out, args.extras)
    if args.html:
        title = Path(args.input).resolve().name
        write_page(Path(args.out) / PAGE, view_scene(title, result.upright, result.rgb, result))
    show_progress('write files', 1, 1)
    report(result, args.out)


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


def report(result: 'Segmentation', out: str) -> None:
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
