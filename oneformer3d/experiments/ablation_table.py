"""The table of an ablation as it is written down: cells, their settings, and their order.

Enters: a YAML file (those of configs/ablations explain themselves): cells, each a config with
options, tests of the trained cell, and columns. Leaves: a checked ``Table``, and for every cell a
digest of all that it is trained with.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oneformer3d.engine.configs import load_config
from oneformer3d.files.names import validate_scene_name
from oneformer3d.files.yaml import read_yaml

_TABLE_KEYS = {
    'title', 'prepare', 'seeds', 'budget_minutes', 'options', 'groups', 'baseline', 'cells'
}  # fmt: skip
_CELL_KEYS = {'config', 'title', 'options', 'init', 'tests'}
DEFAULT_TEST = 'default'


@dataclass(frozen=True)
class Cell:
    """One line of a table.

    Attributes:
        name: of the cell, a file name.
        title: what the report calls it.
        config: config file.
        options: dotted key → value, the table's own below the cell's.
        init: cell whose weights it starts from, or None.
        tests: name → options on top, of each evaluation of the trained cell.
    """

    name: str
    title: str
    config: str
    options: Mapping[str, Any]
    init: str | None
    tests: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Table:
    """Cells that are compared.

    Attributes:
        name: stem of the file.
        title: heading of the report.
        prepare: settings of the composition that makes what all cells read, or empty.
        seeds: each cell is run with.
        budget_minutes: of processor time a cell should take at most.
        groups: name → classes whose mean IoU is a column of its own.
        baseline: cell that the others are compared with, or None.
        cells: by name, in order.
    """

    name: str
    title: str
    prepare: Mapping[str, Any]
    seeds: tuple[int, ...]
    budget_minutes: float
    groups: Mapping[str, tuple[str, ...]]
    baseline: str | None = None
    cells: Mapping[str, Cell] = field(default_factory=dict)


def read_table(path: str | Path) -> Table:
    """Read and check a table.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a table; names the file and the fault.
    """
    path = Path(path)
    content = read_yaml(path)
    if not {'title', 'cells'} <= set(content) <= _TABLE_KEYS:
        raise ValueError(f'{path}: expected title, cells and a subset of {sorted(_TABLE_KEYS)}')

    common = content.get('options') or {}
    cells = {
        validate_scene_name(str(name)): _cell(name, item, common, f'{path}: cell {name}')
        for name, item in content['cells'].items()
    }
    for cell in cells.values():
        if cell.init is not None and cell.init not in cells:
            raise ValueError(f'{path}: cell {cell.name} starts from {cell.init!r}: no such cell')
    baseline = content.get('baseline')
    if baseline is not None and baseline not in cells:
        raise ValueError(f'{path}: the baseline {baseline!r} is none of the cells')

    return Table(
        path.stem,
        str(content['title']),
        content.get('prepare') or {},
        tuple(int(seed) for seed in content.get('seeds', (0, 1, 2))),
        float(content.get('budget_minutes', 5)),
        {name: tuple(classes) for name, classes in (content.get('groups') or {}).items()},
        baseline,
        cells,
    )


def _cell(name: str, item: Any, common: Mapping[str, Any], where: str) -> Cell:
    if not isinstance(item, dict) or not {'config'} <= set(item) <= _CELL_KEYS:
        keys = sorted(_CELL_KEYS)
        raise ValueError(f'{where}: expected config and a subset of {keys}, got {item!r}')
    tests = item.get('tests') or {DEFAULT_TEST: {}}

    return Cell(
        str(name),
        str(item.get('title', name)),
        str(item['config']),
        {**common, **(item.get('options') or {})},
        item.get('init'),
        {str(test): options or {} for test, options in tests.items()},
    )


def in_order(table: Table, names: Sequence[str] = ()) -> list[Cell]:
    """The requested cells (all by default) and those they start from, these first.

    Raises:
        ValueError: a name that the table does not have, or cells that wait for each other.
    """
    unknown = sorted(set(names) - set(table.cells))
    if unknown:
        raise ValueError(f'no cell {", ".join(unknown)}; there are {", ".join(table.cells)}')

    ordered: list[Cell] = []
    for name in names or table.cells:
        chain: list[Cell] = []
        current: str | None = name
        while current is not None and table.cells[current] not in ordered:
            if table.cells[current] in chain:
                raise ValueError(f'cell {name}: starts from itself')
            chain.append(table.cells[current])
            current = table.cells[current].init
        ordered += reversed(chain)
    return ordered


def cell_digest(table: Table, cell: Cell) -> str:
    """Digest of what a cell is trained with, the settings of its first weights included.

    The order of the settings, and which file they stand in, do not matter. What ``prepare`` makes
    is known by its path alone: other features need another folder.
    """
    settings = load_config(cell.config, dict(cell.options)).to_dict()
    start = '' if cell.init is None else cell_digest(table, table.cells[cell.init])
    text = json.dumps([settings, start], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
