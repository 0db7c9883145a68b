"""Make a data root: synthetic rooms, or a dataset as downloaded, or your own RGB-D sequences.

python tools/create_data.py synthetic  --out data/synthetic --num-train 24 --num-val 8 --seed 0
python tools/create_data.py synthetic  --out data/rooms --realism scanned --num-train 200
python tools/create_data.py scannet    --root DOWNLOAD --out data/scannet
python tools/create_data.py scannet200 --root DOWNLOAD --out data/scannet200
python tools/create_data.py s3dis      --root DOWNLOAD --out data/s3dis
python tools/create_data.py posed_rgbd --root SEQUENCE --out data/mine
python tools/create_data.py moving_shapes --out data/shapes     # clips for tools/stm_clips.py

The layout is described in docs/data.md. Every command can be run again: what is finished stays.
"""

import argparse
from pathlib import Path

from oneformer3d.engine.cli import (
    ToolParser,
    add_recording_arguments,
    recording_options,
    run_tool,
)


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    add_synthetic(commands)
    for dataset in ('scannet', 'scannet200'):
        add_scannet(commands, dataset)
    add_s3dis(commands)
    add_posed_rgbd(commands)
    add_moving_shapes(commands)
    return parser.parse_args()


def add_command(
    commands: argparse._SubParsersAction, name: str, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--out', required=True, type=Path, help='data root, made if missing')
    parser.add_argument('--no-progress', action='store_true', help='no progress bars')
    return parser


def add_synthetic(commands: argparse._SubParsersAction) -> None:
    parser = add_command(commands, 'synthetic', 'furnished rooms, scanned by ray casting')
    parser.add_argument('--num-train', type=int, default=24, help='training rooms')
    parser.add_argument('--num-val', type=int, default=8, help='validation rooms')
    parser.add_argument('--seed', type=int, default=0, help='seed of the whole set')
    parser.add_argument('--num-workers', type=int, help='processes (None: one per core)')
    parser.add_argument(
        '--realism',
        default='plain',
        choices=('plain', 'scanned'),
        help='scanned: recorded with a noisy camera and fused as scans are for prediction; class '
        'table rooms, configs/rooms_*.py',
    )
    parser.set_defaults(run=run_synthetic)


def add_scannet(commands: argparse._SubParsersAction, dataset: str) -> None:
    ids = 'NYU40 class ids' if dataset == 'scannet' else 'ids of the 200-class benchmark'
    parser = add_command(commands, dataset, f'ScanNet as downloaded, {ids}')
    add_root(parser, 'folder with scans/ and scannetv2-labels.combined.tsv')

    parser.add_argument(
        '--split-dir',
        type=Path,
        help='folder with scannetv2_<split>.txt (None: ROOT, its meta_data)',
    )
    parser.add_argument(
        '--splits', nargs='+', choices=('train', 'val', 'test'), default=['train', 'val', 'test']
    )
    parser.add_argument('--scenes', nargs='+', metavar='SCENE', help='only these')
    parser.add_argument('--frame-step', type=int, default=20, help='keep every so many-th image')
    parser.add_argument('--no-images', action='store_true', help='points and labels only')
    parser.add_argument(
        '--axis-align', action='store_true', help='turn points and poses along the axes'
    )
    parser.set_defaults(run=run_scannet)


def add_s3dis(commands: argparse._SubParsersAction) -> None:
    parser = add_command(commands, 's3dis', 'S3DIS (v1.2 aligned) as downloaded')
    add_root(parser, 'folder Stanford3dDataset_v1.2_Aligned_Version, or its parent')
    parser.add_argument(
        '--areas', nargs='+', type=int, choices=range(1, 7), default=list(range(1, 7))
    )
    parser.set_defaults(run=run_s3dis)


def add_posed_rgbd(commands: argparse._SubParsersAction) -> None:
    parser = add_command(commands, 'posed_rgbd', 'RGB-D sequences with poses, without labels')
    add_root(parser, 'a sequence, or a folder of sequences')
    parser.add_argument('--split', default='test', help='name of the infos')
    parser.add_argument('--voxel-size', type=float, default=0.03, help='point spacing in metres')
    parser.add_argument('--max-depth', type=float, default=5.0, help='ignore farther depth, metres')
    parser.add_argument('--frame-step', type=int, default=1, help='take every so many-th frame')
    parser.add_argument(
        '--up',
        default='auto',
        choices=('auto', 'x', 'y', 'z', '-x', '-y', '-z'),
        help="axis of the poses' world that points up; auto: as the cameras were held",
    )
    add_recording_arguments(parser)
    parser.add_argument('--scene-name', help="of a single sequence (default: its folder's name)")
    parser.set_defaults(run=run_posed_rgbd)


def add_moving_shapes(commands: argparse._SubParsersAction) -> None:
    parser = add_command(commands, 'moving_shapes', 'clips of moving shapes for tools/stm_clips.py')
    parser.add_argument('--num-train', type=int, default=400, help='clips to learn from')
    parser.add_argument('--num-val', type=int, default=64, help='clips to measure on')
    parser.add_argument('--seed', type=int, default=0, help='seed of the whole set')
    parser.set_defaults(run=run_moving_shapes)


def add_root(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument('--root', required=True, type=Path, help=text)


def run_synthetic(args: argparse.Namespace) -> None:
    from oneformer3d.data.synthetic.generate import generate_dataset

    summary = generate_dataset(
        args.out,
        num_train=args.num_train,
        num_val=args.num_val,
        seed=args.seed,
        num_workers=args.num_workers,
        progress=not args.no_progress,
        realism=args.realism,
    )
    print(
        f'{args.out}: {summary.num_scenes} rooms ({summary.num_generated} made now), '
        f'{summary.num_points} points, {summary.seconds:.0f} s'
    )


def run_scannet(args: argparse.Namespace) -> None:
    from oneformer3d.data.convert.scannet import convert_scannet

    counts = convert_scannet(
        args.root,
        args.out,
        args.command,
        splits=args.splits,
        split_dir=args.split_dir,
        scenes=args.scenes,
        frame_step=args.frame_step,
        with_images=not args.no_images,
        axis_align=args.axis_align,
        progress=not args.no_progress,
    )
    report(args.out, counts)


def run_s3dis(args: argparse.Namespace) -> None:
    from oneformer3d.data.convert.s3dis import convert_s3dis

    counts = convert_s3dis(args.root, args.out, areas=args.areas, progress=not args.no_progress)
    report(args.out, counts)


def run_posed_rgbd(args: argparse.Namespace) -> None:
    from oneformer3d.data.convert.posed_rgbd_dataset import convert_posed_rgbd

    count = convert_posed_rgbd(
        args.root,
        args.out,
        split=args.split,
        voxel_size=args.voxel_size,
        max_depth=args.max_depth,
        frame_step=args.frame_step,
        up=args.up,
        **recording_options(args),
        scene_name=args.scene_name,
        progress=not args.no_progress,
    )
    report(args.out, {args.split: count})


def run_moving_shapes(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from oneformer3d.stm.moving_shapes import write_moving_shapes

    if args.num_train < 1 or args.num_val < 1:
        raise ValueError('--num-train and --num-val: expected 1 or more')
    total = args.num_train + args.num_val
    with tqdm(total=total, desc='clips', disable=args.no_progress) as bar:
        write_moving_shapes(args.out, args.num_train, args.num_val, args.seed, bar.update)
    print(f'{args.out}: {total} clips, and those to measure on once more in reverse')


def report(out: Path, counts: dict[str, int]) -> None:
    print(f'{out}: ' + ', '.join(f'{split} {count} scenes' for split, count in counts.items()))


def main() -> None:
    args = parse_args()
    if args.out.exists() and not args.out.is_dir():
        raise NotADirectoryError(f'{args.out}: is not a folder')
    args.run(args)


if __name__ == '__main__':
    run_tool(main)
