"""Where frames come from: a folder, a folder that grows, a clock that does not wait.

Enters: a folder of posed RGB-D frames in any layout. Leaves: ``StreamFrame`` records.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from oneformer3d.data.layouts import PosedFrame
from oneformer3d.data.layouts.records import Matrix
from oneformer3d.data.posed_rgbd import load_posed_rgbd, read_images
from oneformer3d.data.upright import up_of_frames
from oneformer3d.files.left_out import LossRules

from .frames import StreamFrame, lift_frame

Item = TypeVar('Item')
List = Callable[[], Sequence[PosedFrame]]


class FolderOptions(TypedDict, total=False):
    """What ``follow`` hands on to ``load_posed_rgbd``."""

    frame_step: int
    convention: str | None
    depth_scale: float | None
    intrinsics: str | Path | Matrix | None
    rules: LossRules


def read_frame(frame: PosedFrame) -> StreamFrame | None:
    """Pixels of a listed frame; None and a warning if they are broken or there is no depth."""
    color, depth = read_images(frame) or (None, None)
    if color is None or depth is None or frame.depth_intrinsics is None:
        return None
    matrices = (frame.depth_intrinsics, frame.K, frame.world_from_cam)
    return StreamFrame(number_of_name(frame.name), depth, color, *matrices, frame.name)


def up_of_recording(frames: Sequence[PosedFrame], num_read: int = 10) -> NDArray[np.float64]:
    """Which way is up (3,), by the poses of all frames and the surfaces that a few of them show.

    Args:
        frames: at least one.
        num_read: at most so many are read, evenly spread.
    """
    rows = np.unique(np.linspace(0, len(frames) - 1, num_read).astype(np.int64))
    read = [frame for row in rows if (frame := read_frame(frames[row])) is not None]
    seen = [frame.in_world(lift_frame(frame).points) for frame in read if frame.has_pose]
    poses = np.stack([frame.world_from_cam for frame in frames])
    return up_of_frames(np.concatenate([np.zeros((0, 3)), *seen]), poses)


def number_of_name(name: str) -> int:
    """The same number for a frame in every run, however many others lie beside it.

    Example:
        >>> number_of_name('000020') == number_of_name('000020') != number_of_name('000040')
        True
    """
    digest = hashlib.blake2b(name.encode('utf-8'), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


def follow(
    folder: str | Path,
    *,
    idle: float = 10.0,
    pause: float = 0.5,
    **options: Unpack[FolderOptions],
) -> Iterator[PosedFrame]:
    """Frames of a folder, and those that come while it is watched.

    Args:
        folder: see ``load_posed_rgbd``; it must hold a frame at the beginning.
        idle: seconds without a new frame after which it counts as finished.
        pause: seconds between two looks.
        options: of ``load_posed_rgbd``.
    """
    done: set[str] = set()
    since = time.monotonic()
    while time.monotonic() - since < idle:
        new = [f for f in load_posed_rgbd(folder, **options).frames if f.name not in done]
        for frame in new:
            done.add(frame.name)
            yield frame
        if new:
            since = time.monotonic()
        else:
            time.sleep(pause)


def newest_first(
    items: Sequence[Item],
    rate: float,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[Item, int]]:
    """Items as a sensor gives them, to someone who may be slow: the newest wins.

    Args:
        items: in order.
        rate: items per second; item i is there from second i / rate on.
        clock, wait: of the time.

    Yields:
        The newest item there is, and how many before it were dropped.
    """
    began, following = clock(), 0
    while following < len(items):
        arrived = int((clock() - began) * rate) + 1
        if arrived <= following:
            wait(following / rate - (clock() - began))
            continue
        newest = min(arrived, len(items)) - 1
        yield items[newest], newest - following
        following = newest + 1
