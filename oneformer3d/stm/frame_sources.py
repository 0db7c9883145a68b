"""Where a video's frames come from: a folder of images, or a video file.

Enters: a folder and the name of a video in it. Leaves: frames (H, W, 3) uint8 by their numbers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.images import read_image

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
VIDEO_SUFFIXES = ('.mp4', '.mkv', '.avi', '.mov', '.webm')


class FrameSource(Protocol):
    """Frames of one video.

    Attributes:
        fps: frames of a second, None where the source does not say.
    """

    fps: float | None

    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Frames (T, H, W, 3) with ascending numbers, squashed to a size (H, W)."""
        ...


def open_frames(root: Path, video: str) -> FrameSource:
    """The folder ``root/<video>``, or the file of that name with an ending of a video.

    Raises:
        FileNotFoundError: neither is there.
        ValueError: a folder without images, or a file that is no video; names it.
    """
    if (root / video).is_dir():
        return ImageFolder(root / video)
    for suffix in VIDEO_SUFFIXES:
        if (root / f'{video}{suffix}').is_file():
            return VideoFile(root / f'{video}{suffix}')
    raise FileNotFoundError(
        f'{root / video}: no folder of frames, nor a file of that name with {VIDEO_SUFFIXES}'
    )


class ImageFolder:
    """Images of a folder in the order of their names."""

    fps: float | None = None

    def __init__(self, folder: Path) -> None:
        self.files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self.files:
            raise ValueError(f'{folder}: holds no frames ({", ".join(IMAGE_SUFFIXES)})')

    def __len__(self) -> int:
        return len(self.files)

    def read(self, numbers: Sequence[int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Frames (T, H, W, 3), squashed to a size (H, W)."""
        return np.stack([read_image(self.files[number], size) for number in numbers])


class VideoFile:
    """A video file; it is opened for every clip, so that copies for other processes are free.

    Attributes:
        path: of it.
        fps: frames of a second as it says itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        video = self._open()
        self._num_frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        self.fps: float | None = float(video.get(cv2.CAP_PROP_FPS)) or None
        if self._num_frames < 1:
            raise ValueError(f'{path}: a video without frames')

    def __len__(self) -> int:
        return self._num_frames

    def read(self, numbers: Sequence[int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Frames (T, H, W, 3) with ascending numbers, squashed to a size (H, W).

        Raises:
            ValueError: a frame that cannot be read.
        """
        video, frames = self._open(), {}
        video.set(cv2.CAP_PROP_POS_FRAMES, numbers[0])
        for number in range(numbers[0], numbers[-1] + 1):
            if not video.grab():
                raise ValueError(f'{self.path}: frame {number} of {len(self)} cannot be read')
            if number in numbers:
                _, image = video.retrieve()
                image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
                frames[number] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return np.stack([frames[number] for number in numbers])

    def _open(self) -> cv2.VideoCapture:
        video = cv2.VideoCapture(str(self.path))
        if not video.isOpened():
            raise ValueError(f'{self.path}: not readable as a video')
        return video
