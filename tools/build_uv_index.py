"""Which pixel of which frame shows each point, computed once: one npz per scene.

    python tools/build_uv_index.py --data_root data/synthetic --output_dir outputs/uv_index

A scene whose index was made from the same points, cameras and tolerances is kept, so the command
can be run again. docs/clip_features.md describes the files.
"""

import argparse

from oneformer3d.engine.cli import ToolParser, add_loss_arguments, loss_rules, run_tool
from oneformer3d.extraction.settings import FRAME_SELECTIONS, make_settings


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('--data-root', help='data root (default: above the scenes file)')
    parser.add_argument('--scenes-file', help='text file, one scene per line (default: all)')
    parser.add_argument('--output-dir', default='outputs/uv_index', help='(%(default)s)')
    parser.add_argument('--frames-per-scene', type=int, default=0, help='0 takes all')
    parser.add_argument('--frame-select', choices=FRAME_SELECTIONS, default='first')
    parser.add_argument('--seed', type=int, default=0, help='of --frame-select random')
    parser.add_argument('--workers', type=int, default=2, help='threads that decode depth')
    parser.add_argument('--near', type=float, help='metres (default: that of Visibility)')
    parser.add_argument('--abs-tol', type=float, help='metres (default: 0.05)')
    parser.add_argument('--rel-tol', type=float, help='(default: 0.01)')
    parser.add_argument('--edge-reject', action='store_true', help='reject depth edges too')
    add_loss_arguments(parser)
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported

from tqdm import tqdm

from oneformer3d.data.scenes import check_point_files
from oneformer3d.extraction.frames import list_frames
from oneformer3d.extraction.uv_index import UvIndex, build_uv_indices, by_scene
from oneformer3d.files.left_out import LeftOut
from oneformer3d.lifting.visibility import Visibility

LISTED = 40


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    names = ('data_root', 'scenes_file', 'frames_per_scene', 'frame_select', 'seed', 'workers')
    settings = make_settings({name: getattr(args, name) for name in names})
    lengths = {name: getattr(args, name) for name in ('near', 'abs_tol', 'rel_tol')}
    given = {name: value for name, value in lengths.items() if value is not None}
    visibility = Visibility(**given, edge_reject=args.edge_reject)
    frames = list_frames(settings)
    check_point_files(frames)
    rows, lost = [], LeftOut(args.output_dir, loss_rules(args))
    with tqdm(total=len(by_scene(frames)), desc='uv index', unit='scene') as bar:

        def done(scene: str, index: UvIndex | None, of_scene: dict[str, str]) -> None:
            for name, reason in of_scene.items():
                lost.add(f'{scene}/{name}', reason)
            if index is not None:
                rows.append((scene, len(index.frames), index.valid_rate, index.coverage))
            bar.update()

        written = build_uv_indices(
            frames, args.output_dir, visibility, args.workers, args.strict, done
        )

    if rows:
        print(f'{"scene":24}{"frames":>7}{"valid":>8}{"covered":>9}')
        rows.append((f'mean of {len(rows)}', *(sum(c) / len(rows) for c in list(zip(*rows))[1:])))
        for scene, count, valid, covered in [*rows[:-1][:LISTED], rows[-1]]:
            print(f'{scene:24}{count:7.0f}{valid:8.1%}{covered:9.1%}')
    if len(lost):
        faults = [f'  {name}: {reason}' for name, reason in lost.reasons.items()]
        print('\n'.join(['left out:', *faults[:LISTED]]))
    print(f'{args.output_dir}: {written} written, {len(by_scene(frames)) - written} were there')
    lost.check(len(frames))


if __name__ == '__main__':
    run_tool(main)
