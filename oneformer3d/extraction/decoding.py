"""Frames decoded in threads, a few batches ahead.

Enters: batches of frames. Leaves: (H, W, 3) images at the encoder's size, depth, or the fault.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from oneformer3d.clip.encoder import prepare_images
from oneformer3d.data.scenes import Frame
from oneformer3d.files.images import UNREADABLE, image_size, read_depth, read_image

_T = TypeVar('_T')


@dataclass(frozen=True)
class DecodedFrame:
    """A frame with its image, or the reason why there is none.

    Attributes:
        frame: what was read.
        image: (H, W, 3) at the encoder's size, uint8 or float32 0–1, None where it cannot be
            read.
        depth: (h, w) float32 metres where asked for and there.
        fault: why the image is None.
        depth_fault: why the depth is, where the frame should have one.
        seconds: of decoding.
    """

    frame: Frame
    image: NDArray[np.uint8] | NDArray[np.float32] | None = None
    depth: NDArray[np.float32] | None = None
    fault: str | None = None
    depth_fault: str | None = None
    seconds: float = 0.0


def decoded_batches(
    batches: Sequence[Sequence[Frame]],
    decode: Callable[[Frame], DecodedFrame],
    workers: int,
    prefetch: int = 2,
) -> Iterator[list[DecodedFrame]]:
    """Decode batches in threads, in order, at most ``prefetch`` of them ahead of the caller."""
    with ThreadPoolExecutor(workers, thread_name_prefix='decode') as pool:
        waiting: deque[list[Future[DecodedFrame]]] = deque()
        remaining = iter(batches)
        try:
            while True:
                while len(waiting) <= prefetch and (batch := next(remaining, None)) is not None:
                    waiting.append([pool.submit(decode, frame) for frame in batch])
                if not waiting:
                    return
                yield [future.result() for future in waiting.popleft()]
        finally:
            pool.shutdown(cancel_futures=True)


def decode_frame(
    frame: Frame, size: tuple[int, int], with_depth: bool, exact: bool = False
) -> DecodedFrame:
    """Image at the encoder's size and, if asked for, depth; faults are returned, not raised."""
    start = time.perf_counter()
    if frame.fault is not None:
        return DecodedFrame(frame, fault=frame.fault)
    reader = read_image_exactly if exact else read_image
    image, fault = _attempt(reader, frame.image_path, size, frame.scene.image_size)
    depth, depth_fault = None, None
    if with_depth and frame.depth_path is not None and fault is None:
        depth, depth_fault = _attempt(read_depth, frame.depth_path, frame.scene.depth_size)
    seconds = time.perf_counter() - start
    return DecodedFrame(frame, image, depth, fault, depth_fault, seconds)


def read_image_exactly(
    path: str | Path, size: tuple[int, int], expected_size: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """As ``read_image``, but (H, W, 3) float32 0–1, resized as the encoder resizes whole images."""
    whole = read_image(path, expected_size or image_size(path), expected_size).copy()
    pixels = torch.from_numpy(whole).permute(2, 0, 1)[None]
    resized = prepare_images(pixels, size, mean=torch.zeros(3, 1, 1), std=torch.ones(3, 1, 1))
    return resized[0].permute(1, 2, 0).contiguous().numpy()


def _attempt(read: Callable[..., _T], *args: object) -> tuple[_T | None, str | None]:
    """What a reader returns, or None with the reason in one line."""
    try:
        return read(*args), None
    except UNREADABLE as error:
        return None, ' '.join(str(error).split())
