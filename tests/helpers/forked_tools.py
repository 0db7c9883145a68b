"""Tools in processes of their own that need not import everything again, to be killed by dozens.

``ToolServer`` starts one process that imports what the tools need; each tool runs in a child forked
from it, as ``python tools/x.py …`` would, its output in a file.
"""

import json
import os
import resource
import runpy
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.tools.conftest import ENVIRONMENT, REPOSITORY

PRELOADED = (
    'oneformer3d.register',
    'oneformer3d.inference.inferencer',
    'oneformer3d.extraction.run',
    'oneformer3d.fields.fitting.job',
    'oneformer3d.data.convert.posed_rgbd_dataset',
    'mmengine.runner',
    'mmdet3d.datasets',
    'mmdet3d.models',
    'PIL.JpegImagePlugin',
    'encodings.utf_8_sig',
    'encodings.utf_16',
)


class ToolServer:
    """Runs tools; close it at the end.

    Args:
        folder: for the output of the tools.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'tests.helpers.forked_tools'],
            cwd=REPOSITORY,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self,
        command: Sequence[str | Path],
        uid: int | None = None,
        file_bytes: int | None = None,
        **environment: str,
    ) -> int:
        """Begin a tool; its process id.

        Args:
            command: script and words.
            uid: user that it runs as; None is this one.
            file_bytes: no file may become larger, as on a disk with so much left.
            environment: variables beside those of this process.
        """
        self.count += 1
        words = [str(word) for word in command]
        request = {'command': words, 'log': str(self.log), 'environment': environment}
        return self._ask({**request, 'uid': uid, 'file_bytes': file_bytes})

    def wait(self, pid: int) -> int:
        """Exit status of a tool, negative for the signal that killed it."""
        return os.waitstatus_to_exitcode(self._ask({'wait': pid}))

    def run(self, command: Sequence[str | Path], **environment: str) -> float:
        """Seconds of a tool that must succeed."""
        begun = time.monotonic()
        status = self.wait(self.start(command, **environment))
        assert status == 0, self.log.read_text()[-3000:]
        return time.monotonic() - begun

    @property
    def log(self) -> Path:
        """Output of the last tool."""
        return self.folder / f'{self.count}.log'

    def text(self) -> str:
        """What the last tool has said, '' where it was ended before it could."""
        return self.log.read_text() if self.log.is_file() else ''

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()

    def _ask(self, request: dict) -> int:
        self.process.stdin.write(json.dumps(request) + '\n')
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def serve() -> None:
    for name in PRELOADED:
        __import__(name)
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        if 'wait' in request:
            answer = os.waitpid(request['wait'], 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                be_tool(**request)
        answers.write(f'{answer}\n')
        answers.flush()


def be_tool(
    command: list[str],
    log: str,
    environment: dict[str, str],
    uid: int | None,
    file_bytes: int | None,
) -> None:
    """Become the process of a tool; never returns."""
    status = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        os.environ.update(environment)
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        if uid is not None:
            os.setuid(uid)
        sys.argv = command
        sys.path.insert(0, str(REPOSITORY / 'tools'))
        runpy.run_path(command[0], run_name='__main__')
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # noqa: BLE001 (as an interpreter ends)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == '__main__':
    serve()
