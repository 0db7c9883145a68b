"""How the tests of the tools run a tool: as a user does, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.helpers.forked_tools import ToolServer

REPOSITORY = Path(__file__).resolve().parent.parent.parent
# one thread, and matrix products that do not depend on where in memory a buffer lies, so that
# equal runs give equal numbers
ENVIRONMENT = {
    'OMP_NUM_THREADS': '1',
    'MKL_CBWR': 'COMPATIBLE',
    'PYTHONPATH': str(REPOSITORY),
}
RunTool = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope='session')
def server(tmp_path_factory) -> Iterator['ToolServer']:
    """Starts tools that can be waited for, or killed."""
    from tests.helpers.forked_tools import ToolServer

    server = ToolServer(tmp_path_factory.mktemp('output'))
    yield server
    server.close()


@pytest.fixture(scope='session')
def run_tool() -> RunTool:
    """``run_tool('tools/x.py', 'argument', …, prefix=[…], status=0)`` → the finished process.

    Fails with the tool's output if it ends with another status than expected (None: any).
    """

    def run(
        *command: str | Path, prefix: tuple[str, ...] = (), status: int | None = 0
    ) -> subprocess.CompletedProcess:
        result = subprocess.run(
            [sys.executable, *prefix, *map(str, command)],
            cwd=REPOSITORY,
            env={**os.environ, **ENVIRONMENT},
            capture_output=True,
            text=True,
            check=False,
        )
        if status is not None:
            output = f'{result.stdout[-3000:]}\n{result.stderr[-3000:]}'
            assert result.returncode == status, output
        return result

    return run
