"""A chain of named stages, each a command of this repository, that can be stopped and gone on with.

Enters: a YAML file with variables and stages (configs/composer.yaml explains its form). Leaves:
what the stages make, and a record of the finished ones. A stage is done when the record has its
command, the commands of all stages before it are the recorded ones too, and every file it promises
is there; otherwise it runs, and with it all stages after it.
"""

import hashlib
import json
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.names import validate_scene_name
from oneformer3d.files.yaml import read_yaml

RECORD_NAME = 'compose.json'
_VARIABLE = re.compile(r'\{(\w+)\}')
_FILE = re.compile(r'\{@([^{}]+)\}')
_STAGE_KEYS = {'name', 'run', 'args', 'cfg_options', 'makes'}


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: of the stage.
        command: words after ``python``; ``{@path}`` stands for what that file holds when it runs.
        makes: files or folders that are there when it is finished.
    """

    name: str
    command: tuple[str, ...]
    makes: tuple[str, ...]


@dataclass(frozen=True)
class Composition:
    """A chain of stages and the folder with its record."""

    work_dir: str
    stages: tuple[Stage, ...]

    def stage_names(self) -> list[str]:
        """Names in order."""
        return [stage.name for stage in self.stages]

    def digests(self) -> dict[str, str]:
        """Stage → digest of its command and of all commands before it."""
        digest, found = hashlib.blake2b(digest_size=16), {}
        for stage in self.stages:
            digest.update(json.dumps([stage.name, *stage.command]).encode())
            found[stage.name] = digest.copy().hexdigest()
        return found


@dataclass(frozen=True)
class StageTimes:
    """How long a stage took.

    Attributes:
        seconds: by the clock.
        processor_seconds: of its threads and the processes it waited for; beside other programs
            this says more.
    """

    seconds: float
    processor_seconds: float


@dataclass(frozen=True)
class _RecordedStage:
    """What the record keeps of a finished stage."""

    digest: str
    command: list[str]
    seconds: float
    processor_seconds: float


class StageFailedError(RuntimeError):
    """A stage ended with another status than 0, or did not make what it promised."""


def read_composition(path: str | Path, overrides: Mapping[str, str] | None = None) -> Composition:
    """Read and check a chain.

    Args:
        path: YAML file, read with the safe loader.
        overrides: values of its variables.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or unknown variables; names the fault.
    """
    content = read_yaml(path)
    if set(content) != {'variables', 'stages'}:
        raise ValueError(f'{path}: expected "variables" and "stages"')
    variables = resolve_variables(content['variables'], overrides or {}, str(path))
    if 'work_dir' not in variables:
        raise ValueError(f'{path}: the variables should have a work_dir')

    stages = tuple(_stage(item, variables, str(path)) for item in content['stages'])
    names = [stage.name for stage in stages]
    if not names or len(set(names)) != len(names):
        raise ValueError(f'{path}: expected stages with different names, got {names}')
    return Composition(variables['work_dir'], stages)


def resolve_variables(
    variables: Mapping[str, Any], overrides: Mapping[str, str], source: str
) -> dict[str, str]:
    """Variables as text, overridden; a value may use variables before it.

    Raises:
        ValueError: an override of no variable, or a value that uses an unknown one.
    """
    unknown = sorted(set(overrides) - set(variables))
    if unknown:
        raise ValueError(f'{source}: no variables {", ".join(unknown)}; it has {list(variables)}')
    resolved: dict[str, str] = {}
    for name, value in variables.items():
        resolved[name] = fill(str(overrides.get(name, value)), resolved, source)
    return resolved


def fill(text: str, variables: Mapping[str, str], source: str) -> str:
    """Put variables in the place of ``{name}``.

    Raises:
        ValueError: an unknown name.
    """

    def value(match: re.Match) -> str:
        if match[1] not in variables:
            raise ValueError(f'{source}: no variable {match[1]!r} for {text!r}')
        return variables[match[1]]

    return _VARIABLE.sub(value, text)


def select_stages(
    composition: Composition,
    only: Sequence[str] = (),
    first: str | None = None,
    last: str | None = None,
) -> list[Stage]:
    """The requested stages, in the order of the chain.

    Raises:
        ValueError: a name that the chain does not have.
    """
    names = composition.stage_names()
    unknown = [n for n in (*only, first, last) if n is not None and n not in names]
    if unknown:
        raise ValueError(f'no stage {", ".join(unknown)}; there are {", ".join(names)}')

    begin = names.index(first) if first else 0
    end = names.index(last) + 1 if last else len(names)
    return [s for s in composition.stages[begin:end] if not only or s.name in only]


def finished_stages(composition: Composition) -> dict[str, StageTimes]:
    """Stage → its times, of those that need not run again."""
    record, digests = _read_record(composition), composition.digests()
    finished = {}
    for stage in composition.stages:
        entry = record.get(stage.name)
        if entry is None or entry.digest != digests[stage.name]:
            break
        if not all(Path(path).exists() for path in stage.makes):
            break
        finished[stage.name] = StageTimes(entry.seconds, entry.processor_seconds)
    return finished


def run_stages(
    composition: Composition,
    stages: Sequence[Stage],
    fresh: bool = False,
    announce: Callable[[str], None] = lambda line: None,
) -> dict[str, StageTimes]:
    """Run stages one after the other, except those that are finished.

    Args:
        composition: of the stages.
        stages: to run, in the order of the composition.
        fresh: run also what is finished.
        announce: called with a line before each stage.

    Returns:
        Stage → times of its last run.

    Raises:
        StageFailedError, FileNotFoundError: as ``run_stage``.
    """
    finished = {} if fresh else finished_stages(composition)
    times = {}
    for number, stage in enumerate(stages, start=1):
        title = f'=== {number}/{len(stages)} {stage.name}'
        if stage.name in finished:
            announce(f'{title}: finished before')
            times[stage.name] = finished[stage.name]
        else:
            announce(f'{title}: python {shlex.join(stage.command)}')
            times[stage.name] = run_stage(composition, stage)
    return times


def run_stage(composition: Composition, stage: Stage) -> StageTimes:
    """Run one stage with its output on this terminal and note that it is finished.

    Raises:
        StageFailedError: it failed, or what it promised is not there.
        FileNotFoundError: a file that its command takes words from is missing.
    """
    command = [sys.executable, *(_with_files(word) for word in stage.command)]

    # What follows is made from what this stage makes, so from here on it is not finished.
    names = composition.stage_names()
    earlier = set(names[: names.index(stage.name)])
    record = {name: entry for name, entry in _read_record(composition).items() if name in earlier}
    _write_record(composition, record)

    start, start_processor = time.perf_counter(), _processor_seconds()
    status = subprocess.run(command, check=False).returncode
    times = StageTimes(
        seconds=round(time.perf_counter() - start, 1),
        processor_seconds=round(_processor_seconds() - start_processor, 1),
    )
    if status != 0:
        raise StageFailedError(f'stage {stage.name!r} ended with status {status}')
    missing = [path for path in stage.makes if not Path(path).exists()]
    if missing:
        raise StageFailedError(f'stage {stage.name!r} did not make {", ".join(missing)}')

    digest = composition.digests()[stage.name]
    record[stage.name] = _RecordedStage(digest, list(stage.command), **asdict(times))
    _write_record(composition, record)
    return times


def _processor_seconds() -> float:
    """Of the processes that this one started and waited for, and so on down."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _stage(item: Any, variables: Mapping[str, str], source: str) -> Stage:
    if not isinstance(item, dict) or not {'name', 'run'} <= set(item) <= _STAGE_KEYS:
        raise ValueError(f'{source}: a stage has {sorted(_STAGE_KEYS)}, got {item!r}')
    name = validate_scene_name(str(item['name']))
    where = f'{source}: stage {name}'

    words = [fill(word, variables, where) for word in shlex.split(str(item['run']))]
    for option, value in (item.get('args') or {}).items():
        words += _option(option, value, variables, where)
    options = item.get('cfg_options') or {}
    if options:
        settings = [f'{key}={fill(str(v), variables, where)}' for key, v in options.items()]
        words += ['--cfg-options', *settings]

    makes = item.get('makes') or []
    if not isinstance(makes, list):
        raise ValueError(f'{where}: makes should be a list')
    return Stage(name, tuple(words), tuple(fill(str(path), variables, where) for path in makes))


def _option(name: str, value: Any, variables: Mapping[str, str], where: str) -> list[str]:
    """``--name value …``; true is a bare flag, false and null are nothing."""
    if value is None or value is False:
        return []
    if value is True:
        return [f'--{name}']
    values = value if isinstance(value, list) else [value]
    return [f'--{name}', *(fill(str(v), variables, where) for v in values)]


def _with_files(word: str) -> str:
    """Put the content of files in the place of ``{@path}``."""

    def content(match: re.Match) -> str:
        path = Path(match[1])
        if not path.is_file():
            raise FileNotFoundError(f'{path}: no such file; has the stage before it run?')
        return path.read_text(encoding='utf-8').strip()

    return _FILE.sub(content, word)


def _read_record(composition: Composition) -> dict[str, '_RecordedStage']:
    path = Path(composition.work_dir) / RECORD_NAME
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
        return {name: _RecordedStage(**entry) for name, entry in record.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f'{path}: not a record of stages: {error}') from error


def _write_record(composition: Composition, record: Mapping[str, '_RecordedStage']) -> None:
    entries = {name: asdict(entry) for name, entry in record.items()}
    text = json.dumps(entries, indent=1) + '\n'
    atomic_write_bytes(Path(composition.work_dir) / RECORD_NAME, text.encode('utf-8'))
