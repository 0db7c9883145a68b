"""How long every tool takes to answer --help, beside bare Python and the import of mmdet3d.

Enters: how often each is run. Leaves: user seconds of the CPU, the least of the runs, and their
ratio to bare Python's.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1]
SLOW = 'import oneformer3d, mmdet3d.structures'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--repeat', type=int, default=3, help='runs of each (%(default)s)')


def run(args: argparse.Namespace) -> dict:
    """User seconds of each command, in turns."""
    commands = {'bare Python': ['-c', 'pass'], 'import mmdet3d': ['-c', SLOW]}
    tools = sorted(TOOLS.glob('*.py'))
    commands |= {tool.name: [str(tool), '--help'] for tool in tools}

    seconds = {name: float('inf') for name in commands}
    for _ in range(args.repeat):
        for name, words in commands.items():
            seconds[name] = min(seconds[name], user_seconds([sys.executable, *words]))

    bare = seconds['bare Python']
    for name, value in seconds.items():
        print(f'{name:24}{value:8.2f} s{value / bare:9.1f} x')
    slowest = max(tools, key=lambda tool: seconds[tool.name]).name
    return {'seconds': seconds, 'slowest_tool': slowest, 'ratio': seconds[slowest] / bare}


def user_seconds(command: list[str]) -> float:
    """CPU time of a process outside the kernel."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(command, cwd=TOOLS.parent, check=True, stdout=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
