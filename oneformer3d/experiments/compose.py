"""Run the stages of a composition, so that it can be stopped and gone on with.

Enters: a ``Composition``. Leaves: what its stages make, and a record of the finished ones. A stage
is done when the record has its command, the commands of all stages that it waits for are the
recorded ones too, and every file it promises is there; otherwise it runs, and with it all stages
that wait for it. Stages that do not wait for each other may run side by side.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from oneformer3d.experiments.composition import Composition, Stage
from oneformer3d.files.atomic import atomic_write_bytes

RECORD_NAME = 'compose.json'
_FILE = re.compile(r'\{@([^{}]+)\}')


@dataclass(frozen=True)
class StageTimes:
    """When a stage ran and for how long.

    Attributes:
        began: seconds since 1970.
        seconds: by the clock.
        processor_seconds: of its threads and the processes it waited for; beside other programs
            this says more.
    """

    began: float
    seconds: float
    processor_seconds: float


@dataclass(frozen=True)
class _RecordedStage:
    """What the record keeps of a finished stage."""

    digest: str
    command: list[str]
    began: float
    seconds: float
    processor_seconds: float


@dataclass(frozen=True)
class _Running:
    """A stage whose process runs.

    Attributes:
        stage: that it is of.
        process: of its command.
        log: file of its output; None where that goes to this terminal.
        began: seconds since 1970.
    """

    stage: Stage
    process: subprocess.Popen
    log: Path | None
    began: float


class StageFailedError(RuntimeError):
    """A stage ended with another status than 0, or did not make what it promised."""


def seconds_together(times: Sequence[StageTimes]) -> float:
    """Seconds by the clock in which at least one of the stages ran.

    >>> seconds_together([StageTimes(0, 10, 0), StageTimes(4, 10, 0), StageTimes(100, 5, 0)])
    19.0
    """
    together, end = 0.0, float('-inf')
    for taken in sorted(times, key=lambda taken: taken.began):
        last = taken.began + taken.seconds
        together += max(0, last - max(taken.began, end))
        end = max(end, last)
    return together


def finished_stages(composition: Composition) -> dict[str, StageTimes]:
    """Stage → its times, of those that need not run again."""
    record, digests = _read_record(composition), composition.digests()
    finished = {}
    for stage in composition.stages:
        entry = record.get(stage.name)
        if entry is None or entry.digest != digests[stage.name]:
            continue
        if set(stage.after) <= set(finished) and all(Path(path).exists() for path in stage.makes):
            finished[stage.name] = StageTimes(entry.began, entry.seconds, entry.processor_seconds)
    return finished


def run_stages(
    composition: Composition,
    stages: Sequence[Stage],
    fresh: bool = False,
    announce: Callable[[str], None] = lambda line: None,
    jobs: int = 1,
) -> dict[str, StageTimes]:
    """Run stages, each once those that it waits for are finished, except finished ones.

    With several jobs the threads of this process (``OMP_NUM_THREADS``, or the number of cores) are
    shared between the stages that run side by side. One of these has the terminal; the output of
    the others is in ``logs/STAGE.log`` of the composition's folder.

    Args:
        composition: of the stages.
        stages: to run, in the order of the composition.
        fresh: run also what is finished.
        announce: called with a line before each stage.
        jobs: stages at once.

    Returns:
        Stage → times of its last run, in the order of ``stages``.

    Raises:
        StageFailedError: a stage failed, or what it promised is not there; those that run beside
            it are waited for, others are not begun.
        FileNotFoundError: a file that a command takes words from is missing.
        ValueError: no job at all.
    """
    if jobs < 1:
        raise ValueError(f'jobs: expected at least 1, got {jobs}')
    times = {} if fresh else finished_stages(composition)
    titles = {
        stage.name: f'=== {n}/{len(stages)} {stage.name}' for n, stage in enumerate(stages, 1)
    }
    for stage in stages:
        if stage.name in times:
            announce(f'{titles[stage.name]}: finished before')

    waiting = [stage for stage in stages if stage.name not in times]
    running: list[_Running] = []
    failure: Exception | None = None
    try:
        while running or (waiting and failure is None):
            begun = [] if failure else _ready(waiting, running)[: jobs - len(running)]
            share = _num_threads() // max(1, len(running) + len(begun)) if jobs > 1 else None
            for stage in begun:
                log = _log_of(composition, stage, running)
                where = '' if log is None else f'  (output in {log})'
                announce(f'{titles[stage.name]}: python {shlex.join(stage.command)}{where}')
                waiting.remove(stage)
                running.append(_begin(composition, stage, log, share))

            for ended, processor_seconds in _wait(running):
                running.remove(ended)
                try:
                    times[ended.stage.name] = _end(composition, ended, processor_seconds)
                except StageFailedError as error:
                    failure = failure or error
                    if running:
                        announce(f'{titles[ended.stage.name]}: failed; what runs beside it ends')
        if failure is not None:
            raise failure
    finally:
        for left in running:  # only where this process is told to end
            left.process.terminate()
        for left in running:
            left.process.wait()
    return {stage.name: times[stage.name] for stage in stages}


def run_stage(composition: Composition, stage: Stage) -> StageTimes:
    """Run one stage with its output on this terminal and note that it is finished.

    Raises:
        StageFailedError: it failed, or what it promised is not there.
        FileNotFoundError: a file that its command takes words from is missing.
    """
    return run_stages(composition, [stage], fresh=True)[stage.name]


def _ready(waiting: Sequence[Stage], running: Sequence[_Running]) -> list[Stage]:
    """Those whose earlier stages are not to be run any more."""
    unfinished = {stage.name for stage in waiting} | {other.stage.name for other in running}
    return [stage for stage in waiting if not unfinished & set(stage.after)]


def _log_of(composition: Composition, stage: Stage, running: Sequence[_Running]) -> Path | None:
    """Two progress bars do not share a terminal: the second writes into a file."""
    if all(other.log is not None for other in running):
        return None
    return Path(composition.work_dir) / 'logs' / f'{stage.name}.log'


def _begin(
    composition: Composition, stage: Stage, log: Path | None, num_threads: int | None
) -> _Running:
    """Start the process of a stage; from here on it is not finished."""
    command = [sys.executable, *(_with_files(word) for word in stage.command)]
    _forget(composition, stage)
    environment = dict(os.environ)
    if num_threads is not None:
        environment['OMP_NUM_THREADS'] = str(max(1, num_threads))

    began = time.time()
    if log is None:
        return _Running(stage, subprocess.Popen(command, env=environment), log, began)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('wb') as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    return _Running(stage, process, log, began)


def _wait(running: Sequence[_Running]) -> list[tuple[_Running, float]]:
    """Wait until a process has ended; each that has with its processor seconds."""
    while running:
        ended = []
        for other in running:
            # of this process and those it waited for, which RUSAGE_CHILDREN would mix with others
            pid, status, used = os.wait4(other.process.pid, os.WNOHANG)
            if pid:
                other.process.returncode = os.waitstatus_to_exitcode(status)
                ended.append((other, used.ru_utime + used.ru_stime))
        if ended:
            return ended
        time.sleep(0.02)
    return []


def _end(composition: Composition, ended: _Running, processor_seconds: float) -> StageTimes:
    """Check what a stage promised and note that it is finished."""
    stage, status = ended.stage, ended.process.returncode
    if status != 0:
        hint = '' if ended.log is None else f'; its output is in {ended.log}'
        raise StageFailedError(f'stage {stage.name!r} ended with status {status}{hint}')
    missing = [path for path in stage.makes if not Path(path).exists()]
    if missing:
        raise StageFailedError(f'stage {stage.name!r} did not make {", ".join(missing)}')

    seconds = time.time() - ended.began
    times = StageTimes(round(ended.began, 1), round(seconds, 1), round(processor_seconds, 1))
    digest = composition.digests()[stage.name]
    entry = _RecordedStage(digest, list(stage.command), **asdict(times))
    _write_record(composition, {**_read_record(composition), stage.name: entry})
    return times


def _num_threads() -> int:
    """Threads that this process may use."""
    words = os.environ.get('OMP_NUM_THREADS', '')
    return int(words) if words.isdigit() and int(words) > 0 else os.cpu_count() or 1


def _with_files(word: str) -> str:
    """Put the content of files in the place of ``{@path}``."""

    def content(match: re.Match) -> str:
        path = Path(match[1])
        if not path.is_file():
            raise FileNotFoundError(f'{path}: no such file; has the stage before it run?')
        return path.read_text(encoding='utf-8').strip()

    return _FILE.sub(content, word)


def _forget(composition: Composition, stage: Stage) -> None:
    """A stage that begins is not finished, and neither are those made from what it makes."""
    unfinished = {stage.name, *composition.stages_after(stage.name)}
    record = _read_record(composition)
    _write_record(composition, {n: entry for n, entry in record.items() if n not in unfinished})


def _read_record(composition: Composition) -> dict[str, _RecordedStage]:
    """The entries that this version wrote; a stage that another version noted runs again."""
    path = Path(composition.work_dir) / RECORD_NAME
    if not path.is_file():
        return {}
    names = {field.name for field in fields(_RecordedStage)}
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
        entries = {name: entry for name, entry in record.items() if names == set(entry)}
        return {name: _RecordedStage(**entry) for name, entry in entries.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f'{path}: not a record of stages: {error}') from error


def _write_record(composition: Composition, record: Mapping[str, _RecordedStage]) -> None:
    entries = {name: asdict(entry) for name, entry in record.items()}
    text = json.dumps(entries, indent=1) + '\n'
    atomic_write_bytes(Path(composition.work_dir) / RECORD_NAME, text.encode('utf-8'))
