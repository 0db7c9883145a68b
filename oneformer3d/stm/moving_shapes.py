"""Clips of moving shapes: a data set that only a reader of time understands, as files.

Bright squares and crosses go right, left, down or up, or stand still, over a noisy background.
Positions, sizes and colours are drawn alike for all of them, so no single frame tells an action.

Enters: a seed. Leaves: ``frames/<video>/*.png`` and CSV files as ``clips.py`` reads them. A shape
has two actions: how it moves (1–5) and what it is (6, 7). ``reversed.csv`` names the videos of
``val.csv`` with their frames in reverse order: what went right goes left there.

Letters: T frames, H × W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.images import write_png

MOVES = ('right', 'left', 'down', 'up', 'still')
SHAPES = ('square', 'cross')
FPS = 4.0
NUM_FRAMES = 4
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (0, 0))
_REVERSED = (1, 0, 3, 2, 4)  # right ↔ left, down ↔ up
_SIZE = (64, 64)  # H, W
_SIDES = (12, 20)  # least and most, pixels
_STEP = 4  # pixels from frame to frame
_KEY = NUM_FRAMES // 2  # the frame that is annotated
_BACKGROUND, _NOISE = 0.3, 0.05


@dataclass(frozen=True)
class Shape:
    """One shape of a clip.

    Attributes:
        shape, move: indices into ``SHAPES`` and ``MOVES``.
        boxes: (T, 4) left, top, right, bottom in pixels.
        color: (3,) in 0…1.
    """

    shape: int
    move: int
    boxes: np.ndarray
    color: np.ndarray


def write_moving_shapes(
    root: str | Path,
    num_train: int = 400,
    num_val: int = 64,
    seed: int = 0,
    on_clip: Callable[[], None] | None = None,
) -> None:
    """Write ``frames/``, ``train.csv``, ``val.csv`` and ``reversed.csv``; the files of a seed are
    the same every time.

    Args:
        root: folder.
        num_train, num_val: clips.
        seed: of all of them.
        on_clip: called after each.
    """
    root, rows = Path(root), {'train': [], 'val': [], 'reversed': []}
    for number in range(num_train + num_val):
        split = 'train' if number < num_train else 'val'
        rng = np.random.default_rng((seed, number))
        shapes = draw_shapes(rng)
        clip, video = paint_clip(rng, shapes), f'{split}{number:05d}'
        _write_frames(root / 'frames' / video, clip)
        rows[split] += annotation_rows(video, shapes)

        if split == 'val':
            backwards = [Shape(s.shape, _REVERSED[s.move], s.boxes[::-1], s.color) for s in shapes]
            _write_frames(root / 'frames' / f'reversed{number:05d}', clip[::-1])
            rows['reversed'] += annotation_rows(f'reversed{number:05d}', backwards)
        if on_clip is not None:
            on_clip()
    for split, lines in rows.items():
        atomic_write_bytes(root / f'{split}.csv', ''.join(f'{x}\n' for x in lines).encode())


def draw_shapes(rng: np.random.Generator) -> list[Shape]:
    """One or two shapes that stay inside the image, each in its own slot of the width."""
    height, width = _SIZE
    num_shapes = int(rng.integers(1, 3))
    times = np.arange(NUM_FRAMES) - (NUM_FRAMES - 1) / 2

    shapes = []
    for slot in range(num_shapes):
        move, side = int(rng.integers(len(MOVES))), float(rng.integers(_SIDES[0], _SIDES[1] + 1))
        direction = np.array(_DIRECTIONS[move], dtype=float)

        # how far from the slot's border the middle of the way has to be
        reach = side / 2 + np.abs(direction) * _STEP * times.max()
        low = np.array([width * slot / num_shapes, 0.0]) + reach
        high = np.array([width * (slot + 1) / num_shapes, float(height)]) - reach
        middle = low + rng.random(2) * np.maximum(high - low, 0)

        centres = middle + direction * _STEP * times[:, None]  # (T, 2)
        boxes = np.concatenate((centres - side / 2, centres + side / 2), axis=1)
        color = 0.7 + 0.3 * rng.random(3)
        shapes.append(Shape(int(rng.integers(len(SHAPES))), move, boxes, color))
    return shapes


def paint_clip(rng: np.random.Generator, shapes: Sequence[Shape]) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 of shapes over noise."""
    height, width = _SIZE
    clip = _BACKGROUND + _NOISE * rng.standard_normal((NUM_FRAMES, height, width, 3))
    y, x = np.mgrid[:height, :width] + 0.5
    for shape in shapes:
        for frame, (left, top, right, bottom) in zip(clip, shape.boxes, strict=True):
            across, down = np.abs(x - (left + right) / 2), np.abs(y - (top + bottom) / 2)
            side = right - left
            inside = np.maximum(across, down) <= side / 2
            if SHAPES[shape.shape] == 'cross':
                inside &= np.minimum(across, down) <= side / 6
            frame[inside] = shape.color
    return (clip.clip(0, 1) * 255).round().astype(np.uint8)


def annotation_rows(video: str, shapes: Sequence[Shape]) -> list[str]:
    """Lines of the key frame, two of each shape, as AVA writes them."""
    height, width = _SIZE
    rows = []
    for number, shape in enumerate(shapes):
        box = shape.boxes[_KEY] / (width, height, width, height)
        place = ','.join(f'{value:.6f}' for value in box.clip(0, 1))
        for action in (shape.move, len(MOVES) + shape.shape):
            rows.append(f'{video},{_KEY / FPS:g},{place},{action + 1},{number}')
    return rows


def _write_frames(folder: Path, clip: np.ndarray) -> None:
    for number, frame in enumerate(clip):
        write_png(folder / f'{number:05d}.png', frame)
