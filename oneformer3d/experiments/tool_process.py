"""A tool of the project in a process of its own, without importing everything anew.

Enters: a command line and a log file. Leaves: the exit status and the processor time. Imports take
ten seconds, as long as some tests of a trained model do: a server imports them once, without any
thread, and forks for every tool (the fork server of ``multiprocessing``).
"""

import multiprocessing
import os
import resource
import runpy
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

_PRELOAD = ('oneformer3d.register', 'mmdet3d.models', 'mmdet3d.datasets')


def run_in_process(command: Sequence[str], log: Path, threads: int = 1) -> tuple[int, float]:
    """Run a tool and wait for it.

    Args:
        command: the tool's file and its arguments.
        log: file that its output is appended to.
        threads: of the process.

    Returns:
        Its exit status, negative for a signal, and seconds of processor time of it and of the
        workers it waited for.
    """
    if torch.cuda.is_available():  # importing may have started CUDA, which no fork survives
        context = multiprocessing.get_context('spawn')
    else:
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload(list(_PRELOAD))
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_run, args=(list(command), str(log), os.getcwd(), threads, sender)
    )
    process.start()
    sender.close()
    try:
        seconds = receiver.recv()
    except EOFError:  # killed
        seconds = float('nan')
    process.join()
    assert process.exitcode is not None  # it has ended
    return process.exitcode, seconds


def _run(command: list[str], log: str, folder: str, threads: int, sender: Connection) -> None:
    """The child: be the tool."""
    os.chdir(folder)
    with open(log, 'ab') as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    torch.set_num_threads(threads)
    sys.argv = command
    try:
        runpy.run_path(command[0], run_name='__main__')
    finally:
        sys.stdout.flush()
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        sender.send(sum(usage.ru_utime + usage.ru_stime for usage in used))
