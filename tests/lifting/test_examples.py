"""The examples in docstrings are run, and every public name has one."""

import doctest
import importlib
import pkgutil

import pytest

from oneformer3d import lifting

MODULES = [module.name for module in pkgutil.iter_modules(lifting.__path__)]


@pytest.mark.parametrize('name', MODULES)
def test_examples_print_what_they_say(name):
    module = importlib.import_module(f'oneformer3d.lifting.{name}')
    assert doctest.testmod(module).failed == 0


def test_every_public_name_has_an_example():
    names = {name: getattr(lifting, name) for name in lifting.__all__}
    without = [name for name, x in names.items() if callable(x) and '>>>' not in (x.__doc__ or '')]
    assert without == []
