"""Examples in docstrings print what they say, and functions that a user calls first have one."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

from oneformer3d import lifting, store
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / 'oneformer3d'
# every public function of these has an example
SHOWN = ('fields/rendering', 'fusion/geo_pe.py', 'clip/freezing.py')


def module_name(path: Path) -> str:
    return '.'.join(path.relative_to(REPOSITORY).with_suffix('').parts).removesuffix('.__init__')


WITH_EXAMPLES = sorted(
    module_name(path) for path in PACKAGE.rglob('*.py') if '>>>' in path.read_text()
)


@pytest.mark.parametrize('name', WITH_EXAMPLES)
def test_examples_print_what_they_say(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(('room', 'needs_one'), [(lifting, callable), (store, inspect.isfunction)])
def test_every_exported_name_has_an_example(room, needs_one):
    names = {name: getattr(room, name) for name in room.__all__}
    shown = {name: x for name, x in names.items() if needs_one(x)}
    assert len(shown) > 3
    assert [name for name, x in shown.items() if '>>>' not in (x.__doc__ or '')] == []


@pytest.mark.parametrize('place', SHOWN)
def test_every_public_function_has_an_example(place):
    path = PACKAGE / place
    files = [path] if path.is_file() else sorted(path.glob('[!_]*.py'))
    without, count = [], 0
    for file in files:
        module = importlib.import_module(module_name(file))
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith('_'):
                count += 1
                if '>>>' not in (function.__doc__ or ''):
                    without.append(f'{module.__name__}.{name}')
    assert count > 0
    assert without == []
