"""The whole chain in one command: data → tiny CLIP → uv → features → train → test → pictures.

    python tools/compose.py
    python tools/compose.py --set num_train=4 num_val=2 epochs=2 work_dir=work_dirs/small
    python tools/compose.py --list
    python tools/compose.py --until extract

The stages stand in configs/composer.yaml. What is finished is not done twice; a stage whose command
changed runs again, and all after it. --only, --from and --until choose stages, --fresh runs them
in any case.
"""

import argparse
import os
import shlex
from functools import partial
from pathlib import Path

from oneformer3d.engine.cli import USER_ERRORS, ToolParser, run_tool
from oneformer3d.experiments.compose import finished_stages, run_stages, seconds_together
from oneformer3d.experiments.composition import read_composition, select_stages

REPOSITORY = Path(__file__).resolve().parents[1]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('--config', default='configs/composer.yaml', help='(%(default)s)')
    parser.add_argument('--set', nargs='+', default=[], metavar='NAME=VALUE', help='variables')
    parser.add_argument('--only', nargs='+', default=[], metavar='STAGE', help='just these')
    parser.add_argument('--from', dest='first', metavar='STAGE', help='begin with this one')
    parser.add_argument('--until', dest='last', metavar='STAGE', help='end after this one')
    parser.add_argument('--jobs', type=int, default=1, help='stages at once (%(default)s)')
    parser.add_argument('--fresh', action='store_true', help='run also what is finished')
    parser.add_argument('--list', action='store_true', help='show the stages and run nothing')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    overrides = dict(item.partition('=')[::2] for item in args.set)
    if any('=' not in item for item in args.set):
        raise ValueError(f'--set: expected NAME=VALUE, got {" ".join(args.set)}')

    os.chdir(REPOSITORY)
    composition = read_composition(args.config, overrides)
    chosen = select_stages(composition, args.only, args.first, args.last)
    if args.list:
        finished = finished_stages(composition)
        for stage in chosen:
            state = f'{finished[stage.name].seconds:.0f} s' if stage.name in finished else 'to do'
            print(f'{stage.name:12}{state:>8}  python {shlex.join(stage.command)}')
        return

    times = run_stages(composition, chosen, args.fresh, partial(print, flush=True), args.jobs)
    print('\n' + '\n'.join(f'{name:12}{taken.seconds:8.0f} s' for name, taken in times.items()))
    total = seconds_together(list(times.values()))
    print(f'{"together":12}{total:8.0f} s; results in {composition.work_dir}')


if __name__ == '__main__':
    run_tool(main, errors=(*USER_ERRORS, RuntimeError))
