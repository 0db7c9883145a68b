"""What the benchmarks share: options, turns, processes of their own, peak memory, tables.

Enters: the sides of a benchmark, each a function that does the same work once and returns its
numbers. Leaves: the median of every number over the rounds, and how far the rounds lie apart. The
sides take turns, so that whatever else the machine does hits all of them. Processor seconds stand
beside the clock's, since they hold on a busy machine too. The clock is that of
``torch.utils.benchmark``, which waits for CUDA.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.benchmark import Measurement, TaskSpec, timer

import oneformer3d  # noqa: F401  (before mmdet3d, whose import needs it where mmcv has no ops)

REPOSITORY = Path(__file__).resolve().parents[2]
STATUS = Path('/proc/self/status')
Numbers = dict[str, float]


def add_integers(parser: argparse.ArgumentParser, options: Mapping[str, tuple[int, str]]) -> None:
    """Add ``--name`` for every name with its default and what it is; with dashes as well."""
    for name, (default, meaning) in options.items():
        # a ToolParser spells what it is given with dashes
        spelled = dict.fromkeys((f'--{name.replace("_", "-")}', f'--{name}'))
        parser.add_argument(*spelled, type=int, default=default, help=f'{meaning} (%(default)s)')


def read_integers(args: argparse.Namespace, names: Sequence[str]) -> dict[str, int]:
    """The values of options, all of them at least 1 but the seed.

    Raises:
        ValueError: one of them is not.
    """
    values = {name: vars(args)[name.replace('-', '_')] for name in names}
    for name, value in values.items():
        if name != 'seed' and value < 1:
            raise ValueError(f'--{name} must be at least 1, got {value}')
    return values


def take_turns(
    sides: Mapping[str, Callable[[], Numbers]], rounds: int
) -> dict[str, dict[str, float]]:
    """Measure all sides in every round.

    Args:
        sides: name → function that does the work once and returns numbers by name.
        rounds: times that every side has its turn.

    Returns:
        For each side the median of each of its numbers, and 'spread': the largest of their
        interquartile ranges as a share of the median.
    """
    taken: dict[str, list[Numbers]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, measure in sides.items():
            taken[side].append(measure())

    numbers: dict[str, dict[str, float]] = {}
    for side, turns in taken.items():
        columns = {name: [turn[name] for turn in turns] for name in turns[0]}
        stats = {name: Measurement(1, x, TaskSpec(side, '')) for name, x in columns.items()}
        numbers[side] = {name: x.median for name, x in stats.items()}
        numbers[side]['spread'] = max(x.iqr / x.median if x.median else 0 for x in stats.values())
    return numbers


def clocked(function: Callable, *inputs: Any) -> tuple[Any, Numbers]:
    """What a call returns, and its 'seconds' and 'cpu_seconds'."""
    start, cpu_start = timer(), time.process_time()
    result = function(*inputs)
    return result, {'seconds': timer() - start, 'cpu_seconds': time.process_time() - cpu_start}


def peak_memory(function: Callable, *inputs: Any) -> tuple[Any, float | None]:
    """What a call returns, and the megabytes that it needed beyond what was held before.

    Right for the first large call of a process, since the system keeps one peak for all. None
    where the system does not tell.
    """
    if not STATUS.is_file():
        return function(*inputs), None
    before = _kilobytes('VmRSS')
    result = function(*inputs)
    return result, (_kilobytes('VmHWM') - before) / 1024


def _kilobytes(field: str) -> int:
    """A field of /proc/self/status; unlike getrusage it knows nothing of the parent."""
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(f'{field}:'))
    return int(line.split()[1])


def run_in_child(file: str, label: str, task: str, *arguments: Any) -> dict:
    """Do one task of a benchmark in a process of its own.

    Args:
        file: of the benchmark, whose last lines call ``be_child``.
        label: what is measured, for the line on stderr.
        task: its name among the tasks of ``be_child``.
        arguments: of the task, as JSON can hold them.

    Raises:
        RuntimeError: the process failed.
    """
    print(f'measuring: {label} …', file=sys.stderr)
    # -P keeps the folder of the benchmarks, whose file names are common words, off the import path.
    command = [sys.executable, '-P', '-m', f'tools.benchmarks.{Path(file).stem}']
    paths = [str(REPOSITORY), *filter(None, [os.environ.get('PYTHONPATH')])]
    process = subprocess.run(
        [*command, task, json.dumps(arguments)],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    if process.returncode != 0:
        raise RuntimeError(f'{label}: its process ended with status {process.returncode}')
    return json.loads(process.stdout.splitlines()[-1])


def be_child(tasks: Mapping[str, Callable[..., dict]]) -> None:
    """Do the task on the command line and print its numbers as the last line."""
    task, arguments = sys.argv[1:]
    print(json.dumps(tasks[task](*json.loads(arguments))))


def print_table(columns: Mapping[str, str], rows: Mapping[str, Sequence[float | None]]) -> None:
    """Print a line per row.

    Args:
        columns: heading → format of its numbers, such as ``.2f``.
        rows: label → its numbers; None is shown as a dash.
    """
    cells = {
        label: ['–' if x is None else f'{x:{form}}' for x, form in zip(values, columns.values())]
        for label, values in rows.items()
    }
    first = max(map(len, cells)) + 1
    widths = [max(map(len, column)) + 2 for column in zip(columns, *cells.values())]
    for label, values in {'': list(columns), **cells}.items():
        print(f'{label:{first}}' + ''.join(f'{x:>{w}}' for x, w in zip(values, widths)))
