"""Run a table of small experiments and write what came out into the documentation.

    python tools/ablate.py bifusion
    python tools/ablate.py bifusion --cells residual gate --seeds 0 --jobs 2
    python tools/ablate.py bifusion --list
    python tools/ablate.py bifusion --report

Tables stand in configs/ablations. Every cell and seed leaves one line in docs/results/TABLE.jsonl;
what is there already and was made with the same settings and first weights is not run again, and
interrupted cells go on.
A machine without the checkpoints trains the cells that others start from anew, so ask there for the
baseline too: gains are taken only between cells that started from the same weights.
--report only writes the tables of docs/results.md anew from those lines.
"""

import argparse
import os
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from oneformer3d.engine.cli import USER_ERRORS, ToolParser, run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('table', help='name of a file in configs/ablations, or a YAML file')
    parser.add_argument('--cells', nargs='+', default=[], help='just these and what they need')
    parser.add_argument('--seeds', nargs='+', type=int, help="instead of the table's")
    parser.add_argument('--jobs', type=int, default=1, help='cells at once (%(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='of each cell (%(default)s)')
    parser.add_argument('--out', help='file of the numbers (docs/results/TABLE.jsonl)')
    parser.add_argument('--work-dir', help='checkpoints and logs (work_dirs/ablations/TABLE)')
    parser.add_argument('--docs', default='docs/results.md', help='the report (%(default)s)')
    parser.add_argument('--list', action='store_true', help='show what is done and run nothing')
    parser.add_argument('--report', action='store_true', help='write the report and run nothing')
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported

from tqdm import tqdm

from oneformer3d.experiments.ablation import first_weights, is_trained, run_cell
from oneformer3d.experiments.ablation_report import update_report
from oneformer3d.experiments.ablation_results import is_current, read_results
from oneformer3d.experiments.ablation_table import Cell, Table, in_order, read_table
from oneformer3d.experiments.compose import run_stages
from oneformer3d.experiments.composition import read_composition, select_stages

REPOSITORY = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    os.chdir(REPOSITORY)
    path = Path(args.table)
    table = read_table(path if path.suffix else f'configs/ablations/{args.table}.yaml')
    out = Path(args.out or f'docs/results/{table.name}.jsonl')
    work_dir = Path(args.work_dir or f'work_dirs/ablations/{table.name}')
    cells = in_order(table, args.cells)
    seeds = args.seeds if args.seeds is not None else list(table.seeds)

    if args.list:
        list_cells(table, cells, seeds, out)
        return
    if not args.report:
        prepare(table)
        run_cells(table, cells, seeds, out, work_dir, args.jobs, args.threads)
    update_report(args.docs, table, out)
    print(f'{args.docs}: written')


def prepare(table: Table) -> None:
    """Make what all cells read: stages of a composition that are not finished."""
    if not table.prepare:
        return
    overrides = {key: str(value) for key, value in table.prepare.get('set', {}).items()}
    composition = read_composition(table.prepare['composition'], overrides)
    stages = select_stages(composition, table.prepare.get('only', ()))
    run_stages(composition, stages, announce=partial(print, 'prepare:', flush=True))


def run_cells(
    table: Table,
    cells: list[Cell],
    seeds: list[int],
    out: Path,
    work_dir: Path,
    jobs: int,
    threads: int,
) -> None:
    """Run what is not done, seed by seed, each cell as soon as the one it starts from is there.

    A cell that others start from also needs its checkpoint, which is not in the repository.
    """
    starts = {cell.init for cell in cells}

    def is_done(cell: Cell, seed: int) -> bool:
        result = read_results(out).get((cell.name, seed))
        if not is_current(table, cell, result):
            return False
        if result.get('init_weights') != first_weights(cell, seed, work_dir):
            return False
        return cell.name not in starts or is_trained(cell, seed, work_dir)

    def one(cell: Cell, seed: int) -> str:
        if is_done(cell, seed):
            return f'{cell.name} seed {seed}: done before'
        return summary(table, run_cell(table, cell, seed, out, work_dir, threads))

    waiting = [(cell, seed) for seed in seeds for cell in cells]
    running: dict[Future, tuple[str, int]] = {}
    finished: set[tuple[str | None, int]] = {(None, seed) for seed in seeds}

    with (
        tqdm(total=len(waiting), desc=table.name, unit='cell') as bar,
        ThreadPoolExecutor(jobs) as pool,
    ):
        while waiting or running:
            ready = [item for item in waiting if (item[0].init, item[1]) in finished]
            for cell, seed in ready[: jobs - len(running)]:
                waiting.remove((cell, seed))
                running[pool.submit(one, cell, seed)] = (cell.name, seed)

            for future in wait(running, return_when=FIRST_COMPLETED).done:
                finished.add(running.pop(future))
                bar.write(future.result())
                bar.update()


def summary(table: Table, result: dict) -> str:
    """One line about a finished cell."""
    scores = ', '.join(
        f'{test} mIoU {100 * values["semantic/mIoU"]:.1f}'
        for test, values in result['metrics'].items()
    )
    minutes = sum(result['cpu_minutes'].values())
    over = f' (more than {table.budget_minutes:g})' if minutes > table.budget_minutes else ''
    return f'{result["cell"]} seed {result["seed"]}: {scores}; {minutes:.1f} CPU minutes{over}'


def list_cells(table: Table, cells: list[Cell], seeds: list[int], out: Path) -> None:
    """Show for each cell and seed whether its numbers are there and of these settings."""
    results = read_results(out)
    for cell in cells:
        states = []
        for seed in seeds:
            result = results.get((cell.name, seed))
            if result is None:
                states.append(f'{seed}: to do')
            else:
                done = is_current(table, cell, result)
                states.append(f'{seed}: {"done" if done else "old settings"}')
        print(f'{cell.name:24}{"  ".join(states)}')


if __name__ == '__main__':
    run_tool(main, errors=(*USER_ERRORS, RuntimeError))
