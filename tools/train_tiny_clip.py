"""Train a small CLIP on crops and captions of posed, labelled images (the synthetic rooms).

    python tools/train_tiny_clip.py --data data/synthetic --out work_dirs/tiny_clip

It gives image features and text queries that mean something without any download: use
OUT/tiny_clip.pth wherever CLIP weights are asked for. A finished checkpoint of the same
settings is kept.
"""

import argparse
import json
from pathlib import Path

from oneformer3d.engine.cli import ToolParser, run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('--data', default='data/synthetic', help='data root (default: %(default)s)')
    parser.add_argument(
        '--out', default='work_dirs/tiny_clip', help='folder of the checkpoint (%(default)s)'
    )
    parser.add_argument('--steps', type=int, default=1600, help='(%(default)s)')
    parser.add_argument('--batch-size', type=int, default=32, help='(%(default)s)')
    parser.add_argument('--crop-size', type=int, default=96, help='(%(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='(%(default)s)')
    parser.add_argument(
        '--max-images', type=int, default=600, help='training images in memory (%(default)s)'
    )
    parser.add_argument(
        '--unknown-words',
        action='store_true',
        help='learn as well what is nothing in particular, so that words it never read find less',
    )
    parser.add_argument('--threads', type=int, help='CPU threads (default: torch decides)')
    parser.add_argument('--fresh', action='store_true', help='train again in any case')
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported

import torch
from tqdm import tqdm

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.tiny_clip.run import CHECKPOINT_NAME, make_tiny_clip
from oneformer3d.tiny_clip.train import TinyClipSettings

LABELS = {
    'crop_zero_shot': 'crop zero-shot accuracy',
    'crop_zero_shot_balanced': 'crop zero-shot accuracy, mean over classes',
    'object_probe': 'dense linear probe per object',
    'object_probe_random': 'the same with random weights',
    'object_probe_ratio': 'ratio',
    'train_seconds': 'seconds of training',
}


def main() -> None:
    args = parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    settings = TinyClipSettings(
        steps=args.steps,
        batch_size=args.batch_size,
        crop_size=args.crop_size,
        neutral_share=0.12 if args.unknown_words else 0.0,
        num_others=24 if args.unknown_words else 0,
        seed=args.seed,
    )
    with tqdm(total=args.steps, desc='tiny CLIP', unit='step') as bar:

        def progress(step: int, loss: float) -> None:
            bar.update(step + 1 - bar.n)
            bar.set_postfix(loss=f'{loss:.3f}', refresh=False)

        report = make_tiny_clip(
            args.data, args.out, settings, args.max_images, args.fresh, progress
        )
    for key, label in LABELS.items():
        print(f'{label:45s} {report[key]:8.3f}')
    path = Path(args.out)
    atomic_write_bytes(path / 'report.json', json.dumps(report, indent=2).encode() + b'\n')
    print(f'weights: {path / CHECKPOINT_NAME}')


if __name__ == '__main__':
    run_tool(main)
