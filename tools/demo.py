"""The main job on the embedded default: rooms, points, CLIP, fusion, test, predict, ask, report.

    python tools/demo.py                 (or: bash tools/demo.sh, which also sets up)
    python tools/demo.py --fresh         start again instead of going on
    python tools/demo.py --quick         all of it on three rooms, in minutes; learns little

The stages stand in configs/demo.yaml; each is one of the project's own tools, run as a user would
run it. What is finished already is not done twice.
"""

import argparse
import json
import os
import shutil
from functools import partial
from pathlib import Path

from oneformer3d.engine.cli import USER_ERRORS, ToolParser, run_tool
from oneformer3d.experiments.compose import StageTimes, run_stages, seconds_together
from oneformer3d.experiments.composition import read_composition

REPOSITORY = Path(__file__).resolve().parent.parent
HEADLINES = {
    'semantic mIoU': 'semantic/mIoU',
    'instance AP': 'instance/AP',
    'instance AP50': 'instance/AP50',
    'instance AP25': 'instance/AP25',
    'panoptic PQ': 'panoptic/PQ',
}
QUICK = {'num_train': 2, 'num_val': 1, 'points_epochs': 1, 'fused_epochs': 1, 'clip_steps': 20}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('--out', help='results (work_dirs/demo; work_dirs/demo_quick)')
    parser.add_argument('--data', help='rooms (data/synthetic; with --quick OUT/rooms)')
    parser.add_argument('--num-train', type=int, help='training rooms (24; 2)')
    parser.add_argument('--num-val', type=int, help='validation rooms (8; 1)')
    parser.add_argument('--epochs', type=int, help='of each training (20 and 14; 1)')
    parser.add_argument('--jobs', type=int, default=2, help='stages at once (%(default)s)')
    parser.add_argument('--fresh', action='store_true', help='delete earlier results first')
    parser.add_argument('--quick', action='store_true', help='few rooms and steps, to see it run')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    os.chdir(REPOSITORY)
    composition = read_composition('configs/demo.yaml', variables(args))
    out = Path(composition.work_dir)
    if args.fresh and out.exists():
        shutil.rmtree(out)

    announce = partial(print, flush=True)
    times = run_stages(composition, composition.stages, announce=announce, jobs=args.jobs)
    print('\n' + write_report(out, times))
    print(f'report: {out / "report.md"}')


def variables(args: argparse.Namespace) -> dict[str, str]:
    """The variables of the composition that the arguments change."""
    values = {}
    if args.quick:
        out = args.out or 'work_dirs/demo_quick'
        values = {**QUICK, 'work_dir': out, 'data': f'{out}/rooms'}
    given = {
        'work_dir': args.out,
        'data': args.data,
        'num_train': args.num_train,
        'num_val': args.num_val,
        'points_epochs': args.epochs,
        'fused_epochs': args.epochs,
    }
    values |= {name: value for name, value in given.items() if value is not None}
    return {name: str(value) for name, value in values.items()}


def write_report(out: Path, times: dict[str, StageTimes]) -> str:
    """Write ``report.md``: metrics, times, where the files are; return its text."""
    points, fused = (
        json.loads((out / f'metrics_{name}.json').read_text(encoding='utf-8'))
        for name in ('points', 'fused')
    )
    rows = [
        f'| {label} | {100 * points[key]:.1f} | {100 * fused[key]:.1f} |'
        for label, key in HEADLINES.items()
    ]
    time_rows = [
        f'| {name.replace("_", " ")} | {taken.seconds:.0f} | {taken.processor_seconds:.0f} |'
        for name, taken in times.items()
    ]
    processor_seconds = sum(taken.processor_seconds for taken in times.values())
    together = seconds_together(list(times.values()))
    time_rows.append(f'| **together** | {together:.0f} | {processor_seconds:.0f} |')
    pictures = sorted(path.relative_to(out) for path in out.glob('pictures/*.png'))
    predictions = sorted(path.relative_to(out) for path in out.glob('predict/*'))

    lines = [
        '# Demo: OneFormer3D on synthetic rooms',
        '',
        '| validation rooms, % | points | points and images |',
        '|---|---|---|',
        *rows,
        '',
        '| step | seconds | processor seconds |',
        '|---|---|---|',
        *time_rows,
        '',
        'Weights and logs: `points/`, `clip/` and `fused/`. All metrics: `metrics_*.json`.'
        f' Pictures: {len(pictures)} in `pictures/`, for example',
        '',
        *[f'![{path.stem}]({path})' for path in pictures[:2]],
        '',
        'A room predicted from its images and depth alone, without labels:',
        *[f'- `{path}`' for path in predictions],
        '',
        'The same room to turn, click and ask in a browser: [scene.html](ask/scene.html)',
        '',
    ]
    text = '\n'.join(lines)
    (out / 'report.md').write_text(text, encoding='utf-8')
    return text


if __name__ == '__main__':
    run_tool(main, errors=(*USER_ERRORS, RuntimeError))
