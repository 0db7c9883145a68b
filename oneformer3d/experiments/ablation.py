"""Tables of small experiments: cells that train and are tested with the project's own tools.

Enters: a YAML file (configs/ablations/*.yaml explain themselves): cells, each a config with
options, tests of the trained cell, and columns. Leaves: one JSON per cell and seed. A cell is
done when its JSON is there and was made with the settings that the cell has now; what is
interrupted goes on at its last checkpoint.

A cell may start from another cell's weights (``init``); that one is then run first. Its JSON says
which weights they were: the same settings give other ones on another processor.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from oneformer3d.engine.cli import load_config
from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.checkpoints import load_checkpoint_file
from oneformer3d.files.names import validate_scene_name

from .tool_process import run_in_process

_TABLE_KEYS = {
    'title', 'prepare', 'seeds', 'budget_minutes', 'options', 'groups', 'baseline', 'cells'
}  # fmt: skip
_CELL_KEYS = {'config', 'title', 'options', 'init', 'tests'}
DEFAULT_TEST = 'default'
_TRAINED = 'trained.json'  # in a cell's folder once its training has ended


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
        prepare: settings of the chain that makes what all cells read, or empty.
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


class CellFailedError(RuntimeError):
    """Training or testing of a cell ended with an error."""


def read_table(path: str | Path) -> Table:
    """Read and check a table.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a table; names the file and the fault.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: not readable as YAML: {" ".join(str(error).split())}') from error
    if not isinstance(content, dict) or not {'title', 'cells'} <= set(content) <= _TABLE_KEYS:
        raise ValueError(f'{path}: expected title, cells and some of {sorted(_TABLE_KEYS)}')
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
        raise ValueError(f'{where}: expected config and some of {sorted(_CELL_KEYS)}, got {item!r}')
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
    """The cells asked for (all by default) and those they start from, these first.

    Raises:
        ValueError: a name that the table does not have, or cells that wait for each other.
    """
    unknown = sorted(set(names) - set(table.cells))
    if unknown:
        raise ValueError(f'no cell {", ".join(unknown)}; there are {", ".join(table.cells)}')
    ordered: list[Cell] = []
    for name in names or table.cells:
        chain: list[Cell] = []
        wanted: str | None = name
        while wanted is not None and table.cells[wanted] not in ordered:
            if table.cells[wanted] in chain:
                raise ValueError(f'cell {name}: starts from itself')
            chain.append(table.cells[wanted])
            wanted = table.cells[wanted].init
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


def is_current(table: Table, cell: Cell, result: Mapping[str, Any] | None) -> bool:
    """Whether these are numbers of the settings and the tests that the cell has now."""
    if result is None or result['digest'] != cell_digest(table, cell):
        return False
    return result.get('tests') == {name: dict(options) for name, options in cell.tests.items()}


def is_trained(cell: Cell, seed: int, work_dir: str | Path) -> bool:
    """Whether the training of a cell has ended in this folder, so that others may start from it."""
    return (Path(work_dir) / f'{cell.name}_seed{seed}' / _TRAINED).is_file()


def first_weights(cell: Cell, seed: int, work_dir: str | Path) -> str | None:
    """Digest of the weights that a cell starts from, or None of a cell with random ones.

    Raises:
        CellFailedError: the cell that it starts from has left none.
    """
    if cell.init is None:
        return None
    path = _last_checkpoint(Path(work_dir) / f'{cell.init}_seed{seed}')
    digest = hashlib.blake2b(digest_size=8)
    for name, weights in sorted(load_checkpoint_file(path).items()):
        digest.update(name.encode())
        digest.update(weights.contiguous().numpy().tobytes())
    return digest.hexdigest()


def result_path(out: str | Path, cell: Cell, seed: int) -> Path:
    """File of a cell's numbers."""
    return Path(out) / f'{cell.name}_seed{seed}.json'


def read_result(path: Path) -> dict[str, Any] | None:
    """Numbers of a cell, or None.

    Raises:
        ValueError: not such a file.
    """
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding='utf-8'))
        return {**result, 'digest': str(result['digest']), 'metrics': dict(result['metrics'])}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{path}: not the numbers of a cell: {error}') from error


def run_cell(
    table: Table, cell: Cell, seed: int, out: str | Path, work_dir: str | Path, threads: int = 1
) -> dict[str, Any]:
    """Train and test one cell and write its JSON; what is trained already is only tested.

    Args:
        table: of the cell.
        cell: to run.
        seed: of weights, order and augmentation.
        out: folder of the JSON files.
        work_dir: folder of checkpoints and logs; the weights to start from are looked for here.
        threads: of each process.

    Returns:
        What the JSON holds.

    Raises:
        CellFailedError: a tool failed; names its log.
    """
    digest = cell_digest(table, cell)
    init_weights = first_weights(cell, seed, work_dir)
    settings = f'{digest} from {init_weights or "random weights"}'
    folder = Path(work_dir) / f'{cell.name}_seed{seed}'
    started = folder / 'settings.txt'
    if folder.is_dir() and not (
        started.is_file() and started.read_text(encoding='utf-8') == settings
    ):
        folder.rename(folder.with_name(f'{folder.name}_{time.time_ns()}'))
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(started, settings.encode())
    trained = _train(cell, seed, folder, threads)
    minutes = {'train': trained['cpu_minutes']}
    metrics = {}
    for name, test_options in cell.tests.items():
        metrics_file = folder / f'{name}.json'
        command = ['tools/test.py', cell.config, _last_checkpoint(folder)]
        command += ['--work-dir', str(folder / 'test'), '--out', str(metrics_file)]
        options = {**cell.options, 'test_evaluator.per_class': True, **test_options}
        minutes[name] = _run(command, options, folder / f'{name}.log', threads)
        metrics[name] = json.loads(metrics_file.read_text(encoding='utf-8'))
    result = {
        'cell': cell.name,
        'seed': seed,
        'digest': digest,
        'config': cell.config,
        'options': dict(cell.options),
        'init': cell.init,
        'init_weights': init_weights,
        'tests': {name: dict(options) for name, options in cell.tests.items()},
        'cpu_minutes': {name: round(value, 2) for name, value in minutes.items()},
        'train_seconds': round(trained['seconds'], 1),
        'metrics': {
            test: {name: round(value, 5) for name, value in sorted(values.items())}
            for test, values in metrics.items()
        },
    }
    text = json.dumps(result, indent=1) + '\n'
    atomic_write_bytes(result_path(out, cell, seed), text.encode())
    return result


def _train(cell: Cell, seed: int, folder: Path, threads: int) -> dict[str, float]:
    """Train a cell, unless that is done; what its last run took."""
    record = folder / _TRAINED
    if record.is_file():
        return json.loads(record.read_text(encoding='utf-8'))
    options = {**cell.options, 'randomness.seed': seed}
    if cell.init is not None:
        options['load_from'] = _last_checkpoint(folder.with_name(f'{cell.init}_seed{seed}'))
    command = ['tools/train.py', cell.config, '--work-dir', str(folder), '--resume']
    start = time.perf_counter()
    minutes = _run(command, options, folder / 'train.log', threads)
    trained = {'cpu_minutes': minutes, 'seconds': time.perf_counter() - start}
    atomic_write_bytes(record, json.dumps(trained).encode())
    return trained


def _last_checkpoint(folder: Path) -> str:
    """The checkpoint that mmengine names in a text file; the folder may have moved since."""
    path = folder / 'last_checkpoint'
    if not path.is_file():
        raise CellFailedError(f'{path}: no such file; run that cell again')
    return str(folder / Path(path.read_text(encoding='utf-8').strip()).name)


def _run(command: Sequence[str], options: Mapping[str, Any], log: Path, threads: int) -> float:
    """Run a tool with its output in a log; minutes of processor time of it and its workers."""
    words = [f'{key}={_text(value)}' for key, value in options.items()]
    status, seconds = run_in_process([*command, '--cfg-options', *words], log, threads)
    if status != 0:
        raise CellFailedError(f'{command[0]} ended with status {status}; see {log}')
    return seconds / 60


def _text(value: Any) -> str:
    """As ``--cfg-options`` reads it."""
    if isinstance(value, list | tuple):
        return '[' + ','.join(map(_text, value)) + ']'
    return str(value)
