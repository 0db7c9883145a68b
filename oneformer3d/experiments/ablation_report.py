"""What a table of experiments found, as Markdown.

Enters: a ``Table`` and the file of its numbers. Leaves: the part of the report between
``<!-- TABLE -->`` and ``<!-- /TABLE -->``: a row for each cell and test, mean ± standard deviation
over seeds. The rest of the file is written by hand and left alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from oneformer3d.files.atomic import atomic_write_bytes

from .ablation_results import read_results
from .ablation_table import DEFAULT_TEST, Cell, Table

COLUMNS = {
    'mIoU': 'semantic/mIoU',
    'AP50': 'instance/AP50',
    'PQ': 'panoptic/PQ',
}


def update_report(path: str | Path, table: Table, out: str | Path) -> None:
    """Write a table's part of the report anew; a part that is not there yet is appended.

    Args:
        path: the Markdown file.
        table: whose part.
        out: file of its numbers.

    Raises:
        ValueError: the part has a beginning and no end.
    """
    path = Path(path)
    text = path.read_text(encoding='utf-8') if path.is_file() else '# Results\n'
    first, last = f'<!-- {table.name} -->', f'<!-- /{table.name} -->'
    part = f'{first}\n\n{markdown(table, out)}\n\n{last}'

    if first in text:
        before, _, rest = text.partition(first)
        _, found, after = rest.partition(last)
        if not found:
            raise ValueError(f'{path}: {first} without {last}')
        text = before + part + after
    else:
        text = f'{text.rstrip()}\n\n## {table.title}\n\n{part}\n'

    atomic_write_bytes(path, text.encode('utf-8'))


def markdown(table: Table, out: str | Path) -> str:
    """The rows of all cells of which there are numbers."""
    found = read_results(out)
    results = {
        name: [found[name, seed] for seed in table.seeds if (name, seed) in found]
        for name in table.cells
    }

    # A column needs a cell that was measured that way.
    measured = [metrics for rs in results.values() for r in rs for metrics in r['metrics'].values()]
    columns = {
        name: key for name, key in COLUMNS.items() if any(key in metrics for metrics in measured)
    }

    header = ['', *columns, *table.groups]
    if table.baseline is not None:
        header.insert(2, 'gain')
    rows = [[*header, 'CPU minutes', 'seeds']]
    for cell in table.cells.values():
        if results[cell.name]:
            rows += _rows(table, cell, results, columns)
    return '\n'.join(_markdown_rows(rows))


def _rows(
    table: Table,
    cell: Cell,
    results: Mapping[str, list[dict]],
    columns: Mapping[str, str],
) -> list[list[str]]:
    rows = []
    for test in cell.tests:
        runs = [r for r in results[cell.name] if test in r['metrics']]
        values = {
            name: [100 * r['metrics'][test].get(key, np.nan) for r in runs]
            for name, key in columns.items()
        }
        for group, classes in table.groups.items():
            values[group] = [100 * group_iou(r['metrics'][test], classes) for r in runs]

        title = cell.title if test == DEFAULT_TEST else f'{cell.title}, {test}'
        row = [title, *(mean_and_deviation(column) for column in values.values())]
        if table.baseline is not None:
            row.insert(2, _difference(table, table.baseline, runs, test, results))

        # The training is paid once, however many tests follow it.
        minutes = '–'
        if test == next(iter(cell.tests)):
            minutes = f'{np.mean([r["cpu_minutes"]["train"] for r in runs]):.1f}'
        rows.append([*row, minutes, ' '.join(str(r['seed']) for r in runs)])
    return rows


def _difference(
    table: Table,
    baseline: str,
    runs: list[dict],
    test: str,
    results: Mapping[str, list[dict]],
) -> str:
    """mIoU above the baseline's first test, over the seeds where both had the same start."""
    first = next(iter(table.cells[baseline].tests))
    if runs[0]['cell'] == baseline and test == first:
        return '–'

    baseline_of = {r['seed']: r for r in results[baseline]}
    gains = [
        100 * (r['metrics'][test]['semantic/mIoU'] - other['metrics'][first]['semantic/mIoU'])
        for r in runs
        if (other := baseline_of.get(r['seed'])) and _comparable(r, other)
    ]
    return f'{np.mean(gains):+.1f}' if gains else '–'


def _comparable(result: Mapping, other: Mapping) -> bool:
    """Whether two cells that start from the same one did so from the same weights of it."""
    if result['init'] != other['init']:
        return True
    return result.get('init_weights') == other.get('init_weights')


def group_iou(metrics: Mapping[str, float], classes: Sequence[str]) -> float:
    """Mean IoU of a group of classes, those that do not occur left out; NaN if none does."""
    values = [metrics.get(f'semantic/IoU/{name}', np.nan) for name in classes]
    values = [value for value in values if not np.isnan(value)]
    return float(np.mean(values)) if values else float('nan')


def mean_and_deviation(values: Sequence[float]) -> str:
    """'55.7 ± 1.2', or '55.7' of one."""
    values = [value for value in values if not np.isnan(value)]
    if not values:
        return '–'
    if len(values) == 1:
        return f'{values[0]:.1f}'
    return f'{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}'


def _markdown_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ['| ' + ' | '.join(row) + ' |' for row in rows]
    return [lines[0], '|' + '---|' * len(rows[0]), *lines[1:]]
