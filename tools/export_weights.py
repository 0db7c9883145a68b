"""Weights of a training run, to be passed on: half the size of the numbers, a sixth of the file.

python tools/export_weights.py work/rooms/iter_5000.pth weights/rooms_points.safetensors

Optimizer and history are left out; tools/infer.py and the others read the file as any checkpoint.
"""

import argparse
from pathlib import Path

from oneformer3d.engine.cli import ToolParser, run_tool


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('checkpoint', type=Path, help='file of a training run')
    parser.add_argument('out', type=Path, help='.safetensors to write')
    parser.add_argument('--note', default='', help='where they come from, for the header')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.out.suffix != '.safetensors':
        raise ValueError(f'{args.out}: expected a name that ends in .safetensors')
    from oneformer3d.files.checkpoints import load_checkpoint_file, write_weights

    state_dict = load_checkpoint_file(args.checkpoint)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_weights(args.out, state_dict, args.note)
    print(f'{args.out}: {len(state_dict)} tensors, {args.out.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    run_tool(main)
