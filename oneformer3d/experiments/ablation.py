"""One cell of a table of small experiments, trained and tested with the project's own tools.

Enters: a cell, a seed, and the folder of checkpoints and logs. Leaves: a line of numbers in the
table's file. What is interrupted goes on at its last checkpoint.

A cell may start from another cell's weights (``init``); that one is then run first. Its line says
which weights they were: the same settings give other ones on another processor.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.checkpoints import load_checkpoint_file

from .ablation_results import write_result
from .ablation_table import Cell, Table, cell_digest
from .tool_process import run_in_process

_TRAINED = 'trained.json'  # in a cell's folder once its training has ended


class CellFailedError(RuntimeError):
    """Training or testing of a cell ended with an error."""


def run_cell(
    table: Table, cell: Cell, seed: int, out: str | Path, work_dir: str | Path, threads: int = 1
) -> dict[str, Any]:
    """Train and test one cell and write its line; what is trained already is only tested.

    Args:
        table: of the cell.
        cell: to run.
        seed: of weights, order and augmentation.
        out: file of the table's numbers.
        work_dir: folder of checkpoints and logs; the weights to start from are looked for here.
        threads: of each process.

    Returns:
        What the line holds.

    Raises:
        CellFailedError: a tool failed; names its log.
    """
    digest = cell_digest(table, cell)
    init_weights = first_weights(cell, seed, work_dir)
    folder = Path(work_dir) / f'{cell.name}_seed{seed}'
    _enter_folder(folder, f'{digest} from {init_weights or "random weights"}')

    trained = _train(cell, seed, folder, threads)
    minutes = {'train': trained['cpu_minutes']}
    metrics = {}
    for name, options in cell.tests.items():
        minutes[name], metrics[name] = _test(cell, name, options, folder, threads)

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
    write_result(out, result)
    return result


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


def _enter_folder(folder: Path, settings: str) -> None:
    """Make the folder of a cell; one that was made with other settings steps aside."""
    started = folder / 'settings.txt'
    if folder.is_dir() and not (
        started.is_file() and started.read_text(encoding='utf-8') == settings
    ):
        folder.rename(folder.with_name(f'{folder.name}_{time.time_ns()}'))
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(started, settings.encode())


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


def _test(
    cell: Cell, name: str, test_options: Mapping[str, Any], folder: Path, threads: int
) -> tuple[float, dict[str, float]]:
    """Minutes and metrics of one evaluation of a trained cell."""
    metrics = folder / f'{name}.json'
    command = ['tools/test.py', cell.config, _last_checkpoint(folder)]
    command += ['--work-dir', str(folder / 'test'), '--out', str(metrics)]
    options = {**cell.options, 'test_evaluator.per_class': True, **test_options}
    minutes = _run(command, options, folder / f'{name}.log', threads)
    return minutes, json.loads(metrics.read_text(encoding='utf-8'))


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
