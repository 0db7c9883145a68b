"""Train the tube decoder on clips of moving shapes: boxes, shapes and actions from a few frames.

    python tools/stm_moving_shapes.py
    python tools/stm_moving_shapes.py --per-frame-boxes

No single frame tells where a shape is going, so the actions show that time is read. Prints shares
of right actions and shapes and the mean IoU of boxes on clips that were not trained on, and the
actions again with the frames in reverse order: what went right must go left.
"""

import argparse
import json
from pathlib import Path

import torch
from tqdm import tqdm

from oneformer3d.engine.cli import run_tool
from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.stm.moving_shapes import (
    ClipNet,
    ClipSettings,
    make_clips,
    measure_clip_net,
    train_clip_net,
)
from oneformer3d.stm.tube_loss import Tubes

REVERSED = (1, 0, 3, 2, 4)  # right ↔ left, down ↔ up


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--steps', type=int, default=300, help='(%(default)s)')
    parser.add_argument('--batch-size', type=int, default=24, help='clips of a step (%(default)s)')
    parser.add_argument('--frames', type=int, default=4, help='of a clip (%(default)s)')
    parser.add_argument('--max-shapes', type=int, default=2, help='in a clip (%(default)s)')
    parser.add_argument('--per-frame-boxes', action='store_true', help='a box for every frame')
    parser.add_argument('--test-clips', type=int, default=128, help='(%(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='(%(default)s)')
    parser.add_argument('--out', help='write the numbers there as JSON')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    for name in ('steps', 'batch_size', 'frames', 'max_shapes', 'test_clips'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name.replace("_", "-")} must be at least 1')
    torch.manual_seed(args.seed)
    settings = ClipSettings(
        num_frames=args.frames,
        max_shapes=args.max_shapes,
        per_frame_boxes=args.per_frame_boxes,
    )
    net = ClipNet(settings)
    generator = torch.Generator().manual_seed(args.seed + 1_000_000)
    clips, tubes = make_clips(args.test_clips, generator, settings)
    numbers = {'before': measure_clip_net(net, clips, tubes)}
    with tqdm(total=args.steps, desc='moving shapes', unit='step') as bar:

        def progress(step: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(loss=f'{loss:.2f}', refresh=False)

        losses = train_clip_net(net, args.steps, args.batch_size, seed=args.seed, report=progress)
    numbers['after'] = measure_clip_net(net, clips, tubes)
    backwards = [Tubes(t.boxes.flip(1), t.labels, t.actions[:, list(REVERSED)]) for t in tubes]
    numbers['reversed'] = measure_clip_net(net, clips.flip(2), backwards)
    tenth = max(1, len(losses) // 10)
    numbers['loss'] = {
        'first': sum(losses[:tenth]) / tenth,
        'last': sum(losses[-tenth:]) / tenth,
    }
    print(f'{"":22}{"before":>9}{"after":>9}{"reversed":>10}')
    for name, label in (('action', 'right actions'), ('shape', 'right shapes'), ('iou', 'IoU')):
        row = ''.join(
            f'{numbers[when][name]:{width}.3f}'
            for when, width in (('before', 9), ('after', 9), ('reversed', 10))
        )
        print(f'{label:22}{row}')
    print(f'loss of the first and last tenth: {numbers["loss"]["first"]:.2f}, ', end='')
    print(f'{numbers["loss"]["last"]:.2f}')
    if args.out is not None:
        atomic_write_bytes(Path(args.out), json.dumps(numbers, indent=2).encode() + b'\n')


if __name__ == '__main__':
    run_tool(main)
