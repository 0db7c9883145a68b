"""Clips around key frames, from frames or videos and annotations as AVA writes them.

Enters: ``<frames>/<video>/*.jpg`` in the order of their names or ``<frames>/<video>.mp4``, and a
CSV of rows ``video, second, left, top, right, bottom, action, person`` with boxes in shares of the
image and actions from 1; rows without an action name a key frame that shows nobody. Leaves: clips
of T frames, and tubes.

Letters: T frames, H × W pixels, I boxes of a key frame, A actions.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .frame_sources import open_frames
from .tube_loss import Tubes


@dataclass(frozen=True)
class ClipSettings:
    """How clips are cut out of videos.

    Attributes:
        num_frames: T.
        frame_step: frames of the video between two of a clip.
        image_size: (H, W) that frames are squashed to.
        fps: frames of a second of a folder of frames; video files say theirs.
        start_second: time of the first frame; AVA's folders begin at 900.
        num_actions: A.
    """

    num_frames: int = 4
    frame_step: int = 16
    image_size: tuple[int, int] = (256, 320)
    fps: float = 30.0
    start_second: float = 0.0
    num_actions: int = 80

    def __post_init__(self) -> None:
        for name in ('num_frames', 'frame_step', 'num_actions'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}: expected 1 or more, got {getattr(self, name)}')
        if not self.fps > 0:
            raise ValueError(f'fps: expected more than 0, got {self.fps}')
        if min(self.image_size) < 32 or any(side % 32 for side in self.image_size):
            raise ValueError(f'image_size: expected multiples of 32, got {self.image_size}')


@dataclass(frozen=True, eq=False)
class KeyFrame:
    """What one second of a video shows.

    Attributes:
        video, second: which.
        boxes: (I, 4) in shares of the image.
        actions: (I, A) 0 or 1.
    """

    video: str
    second: float
    boxes: np.ndarray
    actions: np.ndarray


class ClipFolder:
    """Key frames of a CSV with the clips around them, read when asked for.

    Args:
        frames: folder with a folder of frames, or a file, for each video.
        annotations: the CSV.
        settings: of the clips.

    Raises:
        FileNotFoundError: no CSV, or neither folder nor file of a video.
        ValueError: rows that cannot be read, or a video without frames; names file and line.
    """

    def __init__(self, frames: str | Path, annotations: str | Path, settings: ClipSettings) -> None:
        self.settings = settings
        self.key_frames = read_key_frames(annotations, settings.num_actions)
        self.sources = {
            video: open_frames(Path(frames), video)
            for video in sorted({key.video for key in self.key_frames})
        }

    def __len__(self) -> int:
        return len(self.key_frames)

    def read(self, index: int) -> tuple[Tensor, Tubes]:
        """The clip (3, T, H, W) in 0…1 around a key frame, and its boxes in pixels."""
        key, settings = self.key_frames[index], self.settings
        source = self.sources[key.video]
        timed = replace(settings, fps=source.fps or settings.fps)
        numbers = frame_numbers(key.second, len(source), timed)
        images = torch.from_numpy(source.read(numbers, settings.image_size))
        clip = images.float() / 255  # (T, H, W, 3)

        height, width = settings.image_size
        boxes = torch.from_numpy(key.boxes).float() * torch.tensor([width, height] * 2)
        tubes = Tubes(
            boxes[:, None],
            torch.zeros(len(boxes), dtype=torch.int64),  # one class: a person
            torch.from_numpy(key.actions).float(),
        )
        return clip.permute(3, 0, 1, 2), tubes

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, list[Tubes]]:
        """Clips (B, 3, T, H, W) and the tubes of each."""
        clips, tubes = zip(*(self.read(index) for index in indices), strict=True)
        return torch.stack(clips), list(tubes)


def frame_numbers(second: float, num_frames: int, settings: ClipSettings) -> list[int]:
    """Numbers of a clip's T frames around its key frame, held at the ends of the video.

    Example:
        >>> frame_numbers(1.0, 40, ClipSettings(num_frames=4, frame_step=4, fps=10))
        [2, 6, 10, 14]
    """
    middle = round((second - settings.start_second) * settings.fps)
    steps = [k - settings.num_frames // 2 for k in range(settings.num_frames)]
    last = num_frames - 1
    return [min(max(middle + step * settings.frame_step, 0), last) for step in steps]


def read_key_frames(path: str | Path, num_actions: int) -> list[KeyFrame]:
    """All key frames of a CSV, by video and time; rows of one person become one box.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a row that is not one; names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file of annotations')

    people: dict[tuple[str, float], dict[tuple, set[int]]] = defaultdict(dict)
    with path.open(newline='', encoding='utf-8') as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row:
                continue
            try:
                video, second, box, action = _parse(row, num_actions)
            except ValueError as error:
                raise ValueError(f'{path}, line {number}: {error}') from error
            of_frame = people[video, second]
            if action is not None:
                of_frame.setdefault(box, set()).add(action)

    key_frames = []
    for (video, second), of_frame in sorted(people.items()):
        actions = np.zeros((len(of_frame), num_actions))
        for person, found in enumerate(of_frame.values()):
            actions[person, sorted(found)] = 1
        boxes = np.array(list(of_frame), dtype=np.float64).reshape(-1, 4)
        key_frames.append(KeyFrame(video, second, boxes, actions))
    return key_frames


def _parse(row: list[str], num_actions: int) -> tuple[str, float, tuple | None, int | None]:
    """Video, second, box and action from 0 of a row; neither where it shows nobody."""
    if len(row) < 2 or not row[0] or '/' in row[0] or '\\' in row[0] or row[0].startswith('.'):
        raise ValueError(f'expected video, second, box, action, person, got {row}')
    second = float(row[1])
    if not math.isfinite(second):
        raise ValueError(f'second {row[1]!r} is not finite')
    if len(row) < 7 or not row[6].strip():
        return row[0], second, None, None

    box, action = tuple(float(value) for value in row[2:6]), int(row[6])
    if not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise ValueError(f'box {box} is not left, top, right, bottom in shares of the image')
    if not 1 <= action <= num_actions:
        raise ValueError(f'action {action} is not one of 1 … {num_actions}')
    return row[0], second, box, action - 1
