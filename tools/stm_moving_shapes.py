"""Train the tube decoder on clips of moving shapes: boxes, shapes and actions from a few frames.

    python tools/stm_moving_shapes.py
    python tools/stm_moving_shapes.py --per-frame-boxes

Clips (B, 3, T, H, W) in 0…1 show bright squares and crosses that go right, left, down or up, or
stand still, over a noisy background. No single frame tells an action, since positions, sizes and
colours are drawn alike for all of them, so the actions show that time is read. Prints shares of
right actions and shapes and the mean IoU of boxes on clips that were not trained on, and the
actions again with the frames in reverse order: what went right must go left.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oneformer3d.engine.cli import ToolParser, run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('--steps', type=int, default=300, help='(%(default)s)')
    parser.add_argument('--batch-size', type=int, default=24, help='clips of a step (%(default)s)')
    parser.add_argument('--frames', type=int, default=4, help='of a clip (%(default)s)')
    parser.add_argument('--max-shapes', type=int, default=2, help='in a clip (%(default)s)')
    parser.add_argument('--per-frame-boxes', action='store_true', help='a box for every frame')
    parser.add_argument('--test-clips', type=int, default=128, help='(%(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='(%(default)s)')
    parser.add_argument('--out', help='write the numbers there as JSON')
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou
from tqdm import tqdm

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.stm.boxes import xyxy_from_xyzr
from oneformer3d.stm.decoder import STMDecoder
from oneformer3d.stm.stage import StageOutput
from oneformer3d.stm.tube_loss import TubeLossWeights, Tubes, match_tubes, tube_losses

SHAPES = ('square', 'cross')
ACTIONS = ('right', 'left', 'down', 'up', 'still')
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (0, 0))
REVERSED = (1, 0, 3, 2, 4)  # right ↔ left, down ↔ up
STRIDES = (4, 8, 16)
BACKGROUND = 0.3
NOISE = 0.05
# Few actions: their mean weighs more than that of eighty.
LOSS_WEIGHTS = TubeLossWeights(l1=5.0, action=10.0)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    for name in ('steps', 'batch_size', 'frames', 'max_shapes', 'test_clips'):
        if vars(args)[name] < 1:
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
    losses = train_with_bar(net, args.steps, args.batch_size, args.seed)
    numbers['after'] = measure_clip_net(net, clips, tubes)
    backwards = [Tubes(t.boxes.flip(1), t.labels, t.actions[:, list(REVERSED)]) for t in tubes]
    numbers['reversed'] = measure_clip_net(net, clips.flip(2), backwards)
    tenth = max(1, len(losses) // 10)
    numbers['loss'] = {
        'first': sum(losses[:tenth]) / tenth,
        'last': sum(losses[-tenth:]) / tenth,
    }

    print_numbers(numbers)
    if args.out is not None:
        atomic_write_bytes(Path(args.out), json.dumps(numbers, indent=2).encode() + b'\n')


def train_with_bar(net: 'ClipNet', num_steps: int, batch_size: int, seed: int) -> list[float]:
    """Train with a progress bar; the loss of each step."""
    with tqdm(total=num_steps, desc='moving shapes', unit='step') as bar:

        def progress(step: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(loss=f'{loss:.2f}', refresh=False)

        return train_clip_net(net, num_steps, batch_size, seed=seed, report=progress)


def print_numbers(numbers: dict[str, dict[str, float]]) -> None:
    """One line for each number, a column for each measurement."""
    print(f'{"":22}{"before":>9}{"after":>9}{"reversed":>10}')
    for name, label in (('action', 'right actions'), ('shape', 'right shapes'), ('iou', 'IoU')):
        row = ''.join(
            f'{numbers[when][name]:{width}.3f}'
            for when, width in (('before', 9), ('after', 9), ('reversed', 10))
        )
        print(f'{label:22}{row}')
    loss = numbers['loss']
    print(f'loss of the first and last tenth: {loss["first"]:.2f}, {loss["last"]:.2f}')


@dataclass(frozen=True)
class ClipSettings:
    """How the clips are drawn.

    Attributes:
        num_frames: T.
        image_size: (H, W).
        max_shapes: one to so many shapes in a clip.
        side: least and most side of a shape in pixels.
        step: pixels that a shape moves from frame to frame.
        per_frame_boxes: a box for every frame; else that of the middle frame.
    """

    num_frames: int = 4
    image_size: tuple[int, int] = (64, 64)
    max_shapes: int = 2
    side: tuple[int, int] = (12, 20)
    step: float = 4.0
    per_frame_boxes: bool = False


def make_clips(
    num_clips: int, generator: torch.Generator, settings: ClipSettings | None = None
) -> tuple[Tensor, list[Tubes]]:
    """Clips (B, 3, T, H, W) and the tubes of each."""
    settings = settings or ClipSettings()
    drawn = [_make_clip(generator, settings) for _ in range(num_clips)]
    return torch.stack([clip for clip, _ in drawn]), [tubes for _, tubes in drawn]


class ClipNet(nn.Module):
    """Convolutions on every frame by itself, then ``STMDecoder``: only that knows of time.

    Args:
        settings: of the clips.
        channels: of the maps and queries.
        num_stages: of the decoder.
        num_queries: of the decoder.
        spatial_points: of the decoder.
        out_multiplier: of the decoder.
    """

    def __init__(
        self,
        settings: ClipSettings | None = None,
        channels: int = 32,
        num_stages: int = 2,
        num_queries: int = 6,
        spatial_points: int = 16,
        out_multiplier: int = 2,
    ) -> None:
        super().__init__()
        self.settings = settings or ClipSettings()
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 4, stride=4),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.coarser = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 2, stride=2))
            for _ in STRIDES[1:]
        )
        self.decoder = STMDecoder(
            num_stages=num_stages,
            num_queries=num_queries,
            query_dim=channels,
            featmap_strides=STRIDES,
            num_heads=4,
            feedforward_channels=2 * channels,
            spatial_points=spatial_points,
            temporal_points=self.settings.num_frames,
            out_multiplier=out_multiplier,
            num_classes_object=len(SHAPES) + 1,
            num_classes_action=len(ACTIONS),
            per_frame_boxes=self.settings.per_frame_boxes,
        )

    def forward(self, clips: Tensor) -> list[StageOutput]:
        """Outputs of all stages for clips (B, 3, T, H, W)."""
        batch_size, _, num_frames = clips.shape[:3]
        frames = (clips.transpose(1, 2).flatten(0, 1) - BACKGROUND) * 2  # (B·T, 3, H, W)

        maps = [self.stem(frames)]
        for layer in self.coarser:
            maps.append(layer(maps[-1]))

        # (B·T, C, h, w) → (B, C, T, h, w)
        maps = [x.unflatten(0, (batch_size, num_frames)).transpose(1, 2) for x in maps]
        return self.decoder(maps, tuple(clips.shape[-2:]))


def train_clip_net(
    net: ClipNet,
    num_steps: int,
    batch_size: int = 24,
    learning_rate: float = 6e-3,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train on clips drawn anew for every step; returns the loss of each.

    Args:
        net: trained in place.
        num_steps: of AdamW under one cycle.
        batch_size: clips of a step.
        learning_rate: highest.
        seed: of the clips.
        report: called with step and loss.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=max(2, num_steps), pct_start=0.1
    )

    losses = []
    for step in range(num_steps):
        clips, tubes = make_clips(batch_size, generator, net.settings)
        terms = tube_losses(net(clips), tubes, net.settings.image_size, LOSS_WEIGHTS)
        loss = torch.stack(list(terms.values())).sum()

        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        schedule.step()

        losses.append(float(loss.detach()))
        if report is not None:
            report(step, losses[-1])
    return losses


@torch.no_grad()
def measure_clip_net(net: ClipNet, clips: Tensor, tubes: Sequence[Tubes]) -> dict[str, float]:
    """Shares of tubes whose matched query has the right action and shape, and their mean IoU."""
    was_training = net.training
    output = net.eval()(clips)[-1]
    net.train(was_training)

    matches = match_tubes(output, tubes, net.settings.image_size, LOSS_WEIGHTS)
    actions, shapes, overlaps = [], [], []
    for i, ((rows, columns), target) in enumerate(zip(matches, tubes)):
        right = output.action_logits[i, rows].argmax(-1) == target.actions[columns].argmax(-1)
        actions.append(right)
        shapes.append(output.cls_logits[i, rows].argmax(-1) == target.labels[columns])
        boxes = xyxy_from_xyzr(output.xyzr[i, rows])
        for box, true_box in zip(boxes.flatten(0, 1), target.boxes[columns].flatten(0, 1)):
            overlaps.append(box_iou(box[None], true_box[None])[0, 0])

    return {
        'action': float(torch.cat(actions).float().mean()),
        'shape': float(torch.cat(shapes).float().mean()),
        'iou': float(torch.stack(overlaps).mean()),
    }


def _make_clip(generator: torch.Generator, settings: ClipSettings) -> tuple[Tensor, Tubes]:
    height, width = settings.image_size
    noise = torch.randn(3, settings.num_frames, height, width, generator=generator)
    clip = BACKGROUND + NOISE * noise  # (3, T, H, W)
    num_shapes = _integer(generator, 1, settings.max_shapes)

    boxes, labels, actions = [], [], []
    for slot in range(num_shapes):
        label = _integer(generator, 0, len(SHAPES) - 1)
        action = _integer(generator, 0, len(ACTIONS) - 1)
        side = float(_integer(generator, *settings.side))
        centres = _path(generator, settings, action, side, slot, num_shapes)
        colour = 0.7 + 0.3 * torch.rand(3, generator=generator)

        _draw(clip, SHAPES[label], centres, side, colour)
        tube = torch.cat((centres - side / 2, centres + side / 2), dim=1)  # (T, 4)
        boxes.append(tube if settings.per_frame_boxes else _middle(tube))
        labels.append(label)
        actions.append(action)

    one_hot = F.one_hot(torch.tensor(actions), len(ACTIONS)).float()
    return clip.clamp(0, 1), Tubes(torch.stack(boxes), torch.tensor(labels), one_hot)


def _path(
    generator: torch.Generator,
    settings: ClipSettings,
    action: int,
    side: float,
    slot: int,
    num_shapes: int,
) -> Tensor:
    """Centres (T, 2) of a shape that stays in the image, and in its own slot of the width."""
    height, width = settings.image_size
    times = torch.arange(settings.num_frames) - (settings.num_frames - 1) / 2
    travel = settings.step * times.abs().max() + side / 2

    # Each shape of a clip has its slot of the width, so that none occludes another.
    low = torch.tensor([width * slot / num_shapes, 0.0]) + travel
    high = torch.tensor([width * (slot + 1) / num_shapes, float(height)]) - travel
    if num_shapes > 1:
        low[0], high[0] = low[0] - travel / 2, high[0] + travel / 2
    span = (high - low).clamp(min=0)
    middle = (low + high) / 2 + (torch.rand(2, generator=generator) - 0.5) * span

    direction = torch.tensor(DIRECTIONS[action], dtype=torch.float32)
    return middle + direction * settings.step * times[:, None]  # (T, 2)


def _draw(clip: Tensor, shape: str, centres: Tensor, side: float, colour: Tensor) -> None:
    """Paint a shape into a clip that is being made."""
    height, width = clip.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing='ij')
    for t, centre in enumerate(centres):
        inside = _inside(shape, x - centre[0], y - centre[1], side)  # (H, W)
        clip[:, t] = torch.where(inside, colour[:, None, None], clip[:, t])


def _middle(tube: Tensor) -> Tensor:
    """(1, 4) box half way through the clip."""
    return ((tube[(len(tube) - 1) // 2] + tube[len(tube) // 2]) / 2)[None]


def _inside(shape: str, x: Tensor, y: Tensor, side: float) -> Tensor:
    x, y = x.abs(), y.abs()
    inside = torch.maximum(x, y) <= side / 2
    return inside if shape == 'square' else inside & (torch.minimum(x, y) <= side / 6)


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (1,), generator=generator))


if __name__ == '__main__':
    run_tool(main)
