"""Tell which model a checkpoint is of, convert its layout, and say what to run next.

python tools/convert_checkpoint.py oneformer3d_1xb4_scannet.pth
python tools/convert_checkpoint.py FILE --out converted.pth --layout published

Every tool reads both layouts of spconv's weights, so nothing needs to be converted for use here.
OUT holds the weights alone, their numbers as they were, in the layout of spconv's modules since
version 2.2 (modules) or of the published files (published), for programs that read only one.
Nothing in FILE is executed.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from oneformer3d.engine.cli import ToolParser, run_tool

if TYPE_CHECKING:
    from oneformer3d.inference.known_models import KnownModel

LAYOUTS = {
    'modules': "spconv's modules, (out, kD, kH, kW, in)",
    'published': 'published files, (kD, kH, kW, in, out)',
    'none': 'no kernels of five axes',
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('checkpoint', type=Path, metavar='FILE', help='.pth or .safetensors')
    parser.add_argument('--out', type=Path, help='.pth to write (default: nothing is written)')
    parser.add_argument(
        '--layout', choices=('modules', 'published'), default='modules', help='of OUT (%(default)s)'
    )
    args = parser.parse_args(argv)
    if args.out is not None and args.out.suffix != '.pth':
        parser.error(f'--out: expected a name that ends in .pth, got {args.out}')
    if args.out is not None and args.out.resolve() == args.checkpoint.resolve():
        parser.error('--out: would replace FILE')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from oneformer3d.files.checkpoints import load_checkpoint_file, write_checkpoint
    from oneformer3d.inference.known_models import identify
    from oneformer3d.segmentor.weights import published_layout

    state_dict = load_checkpoint_file(args.checkpoint)
    try:
        first, *others = identify(state_dict)
    except ValueError as error:
        raise ValueError(f'{args.checkpoint}: {error}') from error

    millions = sum(value.numel() for value in state_dict.values()) / 1e6
    print(f'{args.checkpoint}: {len(state_dict)} tensors, {millions:.1f} million numbers')
    print(f'model: {first.config}, class table {first.class_table}')
    print(f'layout: {LAYOUTS[first.layout]}')
    if others:
        print(f'the same model: {", ".join(known.config for known in others)}')

    weights = args.checkpoint
    if args.out is not None:
        to_modules = args.layout == 'modules'
        converted = first.weights if to_modules else published_layout(first.weights)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(args.out, {'state_dict': dict(converted)})
        print(f'written: {args.out}, layout: {LAYOUTS[args.layout]}')
        weights = args.out
    print('\n'.join(['next:', *(f'  {line}' for line in next_commands(first, weights))]))


def next_commands(known: 'KnownModel', weights: Path) -> list[str]:
    """What can be done with the weights of a model."""
    return [
        f'oneformer3d infer SCAN --config {known.config} --checkpoint {weights}',
        f'oneformer3d test {known.config} {weights}',
        f'oneformer3d train {known.config} --cfg-options load_from={weights}',
    ]


if __name__ == '__main__':
    run_tool(main)
