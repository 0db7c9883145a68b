"""A tool as a module, for tests that need no process of their own (which takes seconds)."""

import importlib.util
from types import ModuleType

from tests.tools.conftest import REPOSITORY


def load_tool(name: str) -> ModuleType:
    """``tools/<name>.py``, whose ``main(argv)`` raises what the process would say in one line."""
    path = REPOSITORY / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'tool_{name}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
