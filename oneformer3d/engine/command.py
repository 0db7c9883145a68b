"""The command ``oneformer3d``: every tool of the package as a subcommand, from any folder.

Enters: the words of a command line. Leaves: what the tool leaves. ``oneformer3d infer …`` is
``python tools/infer.py …``; nothing heavy is imported before the tool itself does.
"""

import ast
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

from oneformer3d.files.shipped import shipped_folder
from oneformer3d.version import __version__

USAGE = 'usage: oneformer3d [--help] [--version] TOOL ...'


def main() -> None:
    """Run the tool that the command line names; exit status 2 for one that is not there."""
    words = sys.argv[1:]
    tools = find_tools()

    if not words or words[0] in ('-h', '--help'):
        sys.stdout.write(help_text(tools))
        return
    if words[0] == '--version':
        sys.stdout.write(f'oneformer3d {__version__}\n')
        return

    name = words[0].replace('_', '-')
    if name not in tools:
        sys.exit(f'{USAGE}\noneformer3d: no tool {words[0]!r}; there are {", ".join(tools)}')
    if find_spec('mmdet3d') is None and not {'-h', '--help'} & set(words[1:]):
        sys.exit(f'error: mmdet3d is missing; {how_to_install()}')

    # as if the file had been run: its usage line names the subcommand
    sys.argv = [f'oneformer3d {name}', *words[1:]]
    runpy.run_path(str(tools[name]), run_name='__main__')


def find_tools() -> dict[str, Path]:
    """Name of a subcommand → file, in alphabetical order."""
    files = sorted((shipped_folder() / 'tools').glob('*.py'))
    return {file.stem.replace('_', '-'): file for file in files}


def help_text(tools: dict[str, Path]) -> str:
    """What there is, with the first line of each tool's docstring."""
    width = max(map(len, tools))
    lines = [f'  {name:{width}}  {summary(file)}' for name, file in tools.items()]
    return '\n'.join([USAGE, '', 'tools (each has --help):', *lines, ''])


def summary(file: Path) -> str:
    """First line of a tool's docstring, read without importing it."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding='utf-8')))
    return (docstring or '').partition('\n')[0]


def how_to_install() -> str:
    """The two lines that bring the OpenMMLab packages, whose own pins pip cannot resolve."""
    folder = shipped_folder() / 'requirements'
    return ' '.join(
        ('pip install --no-deps', *(f'-r {folder / name}.txt' for name in ('openmmlab', 'mmcv')))
    )
