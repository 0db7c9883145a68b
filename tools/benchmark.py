"""Measure a part of the package: ``python tools/benchmark.py NAME [options]``.

Every file of ``tools/benchmarks`` is one measurement, ``add_arguments(parser)`` and
``run(args) -> dict``; ratios are always of numbers measured in the same run.
"""

import ast
import importlib
import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / 'benchmarks'
sys.path.insert(0, str(FOLDER.parents[1]))
# light, and before anything that a benchmark imports: torch and mmdet3d read what it sets
from oneformer3d.engine.cli import ToolParser


def main(argv: list[str] | None = None) -> int:
    """Run one benchmark; returns the exit status."""
    names = sorted(path.stem for path in FOLDER.glob('*.py') if not path.stem.startswith('_'))
    parser = ToolParser(description=__doc__.partition('\n')[0])
    subparsers = parser.add_subparsers(dest='name', required=True, metavar='NAME')

    # Only the chosen benchmark is imported, the others are read for their summary.
    chosen = next((word for word in (argv or sys.argv[1:]) if word in names), None)
    for name in names:
        subparser = subparsers.add_parser(name, help=_summary(name))
        subparser.add_argument('--out', type=Path, help='write the numbers to this JSON file')
        if name == chosen:
            module = importlib.import_module(f'tools.benchmarks.{name}')
            module.add_arguments(subparser)
    args = parser.parse_args(argv)
    if args.out is not None and not args.out.parent.is_dir():
        parser.error(f'--out: no folder {args.out.parent}')

    try:
        result = module.run(args)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        print(f'benchmark {args.name}: {error}', file=sys.stderr)
        return 1
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
    return 0


def _summary(name: str) -> str:
    """First sentence of a benchmark's docstring, read without importing it."""
    source = (FOLDER / f'{name}.py').read_text(encoding='utf-8')
    return (ast.get_docstring(ast.parse(source)) or '').partition('\n')[0]


if __name__ == '__main__':
    sys.exit(main())
