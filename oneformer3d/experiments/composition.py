"""Stages of a chain and what each waits for, read from a YAML file.

Enters: a YAML file with variables and stages (configs/composer.yaml explains its form). Leaves: a
``Composition``, whose stages know their commands, what they promise and which stages come before.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneformer3d.files.names import validate_scene_name
from oneformer3d.files.yaml import read_yaml

_VARIABLE = re.compile(r'\{(\w+)\}')
_STAGE_KEYS = {'name', 'run', 'args', 'cfg_options', 'makes', 'after'}


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: of the stage.
        command: words after ``python``; ``{@path}`` stands for what that file holds when it runs.
        makes: files or folders that are there when it is finished.
        after: names of the stages that are finished before it begins.
    """

    name: str
    command: tuple[str, ...]
    makes: tuple[str, ...]
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Composition:
    """A chain of stages and the folder with its record."""

    work_dir: str
    stages: tuple[Stage, ...]

    def stage_names(self) -> list[str]:
        """Names in order."""
        return [stage.name for stage in self.stages]

    def digests(self) -> dict[str, str]:
        """Stage → digest of its command and of the commands of all stages that it waits for."""
        digests: dict[str, str] = {}
        for stage in self.stages:
            digest = hashlib.blake2b(digest_size=16)
            digest.update(json.dumps([stage.name, *stage.command]).encode())
            for name in stage.after:
                digest.update(digests[name].encode())
            digests[stage.name] = digest.hexdigest()
        return digests

    def stages_after(self, name: str) -> set[str]:
        """Names of the stages that wait for one, directly or through others."""
        found = {name}
        for stage in self.stages:
            if found & set(stage.after):
                found.add(stage.name)
        return found - {name}


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

    stages: list[Stage] = []
    for item in content['stages']:
        stages.append(_stage(item, variables, [stage.name for stage in stages], str(path)))
    if not stages:
        raise ValueError(f'{path}: expected at least one stage')
    return Composition(variables['work_dir'], tuple(stages))


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


def _stage(item: Any, variables: Mapping[str, str], earlier: Sequence[str], source: str) -> Stage:
    """One entry of the file; ``earlier`` are the names of the entries before it."""
    if not isinstance(item, dict) or not {'name', 'run'} <= set(item) <= _STAGE_KEYS:
        raise ValueError(f'{source}: a stage has {sorted(_STAGE_KEYS)}, got {item!r}')
    name = validate_scene_name(str(item['name']))
    where = f'{source}: stage {name}'
    if name in earlier:
        raise ValueError(f'{where}: there is a stage of this name before it')

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
    makes = tuple(fill(str(path), variables, where) for path in makes)

    after = item.get('after', list(earlier[-1:]))
    if not isinstance(after, list) or any(other not in earlier for other in after):
        raise ValueError(f'{where}: after should list stages before it, got {after!r}')
    return Stage(name, tuple(words), makes, tuple(after))


def _option(name: str, value: Any, variables: Mapping[str, str], where: str) -> list[str]:
    """``--name value …``; true is a bare flag, false and null are nothing."""
    if value is None or value is False:
        return []
    if value is True:
        return [f'--{name}']
    values = value if isinstance(value, list) else [value]
    return [f'--{name}', *(fill(str(v), variables, where) for v in values)]
