"""The numbers of a table of experiments: one file, one line of JSON per cell and seed, sorted.

Enters: a path such as ``docs/results/bifusion.jsonl`` and the numbers of one cell and seed. Leaves:
the file with that line new or replaced; at any time it is complete, and cells that end together,
in threads or in processes, do not lose each other's lines.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oneformer3d.files.atomic import atomic_write_bytes

from .ablation_table import Cell, Table, cell_digest

Results = dict[tuple[str, int], dict[str, Any]]  # (cell, seed) → its numbers


def read_results(path: str | Path) -> Results:
    """Read the numbers of all cells and seeds; empty where there is no file yet.

    Raises:
        ValueError: a line that is not the numbers of a cell; names the file and the line.
    """
    path = Path(path)
    if not path.is_file():
        return {}

    results: Results = {}
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
        try:
            entry = json.loads(line)
            entry = {**entry, 'digest': str(entry['digest']), 'metrics': dict(entry['metrics'])}
            results[str(entry['cell']), int(entry['seed'])] = entry
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f'{path}, line {number}: not the numbers of a cell: {error}'
            ) from error
    return results


def write_result(path: str | Path, result: Mapping[str, Any]) -> None:
    """Put the numbers of one cell and seed into the file, in place of older ones."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        results = read_results(path)
        results[result['cell'], result['seed']] = dict(result)
        lines = [json.dumps(results[key]) + '\n' for key in sorted(results)]
        atomic_write_bytes(path, ''.join(lines).encode('utf-8'))


def is_current(table: Table, cell: Cell, result: Mapping[str, Any] | None) -> bool:
    """Whether these are numbers of the settings and the tests that the cell has now."""
    if result is None or result['digest'] != cell_digest(table, cell):
        return False
    return result.get('tests') == {name: dict(options) for name, options in cell.tests.items()}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for oneself; the system takes the lock back from a process that dies."""
    # The file itself is replaced by every write, so a lock on it would be one on the old file.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
