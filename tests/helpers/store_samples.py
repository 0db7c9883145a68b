"""A small stamp, frames made from their names, and functions that run in a child process."""

import os
import pickle
import signal
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import default_rng  # numpy imports these two when first asked, and a process
from numpy.testing import assert_array_equal  # forked while another thread imports would hang

from oneformer3d.store import StoreStamp
from oneformer3d.store.examples import STAMP

BIG_STAMP = replace(STAMP, channels=64, grid=(8, 8))  # records of 8 KB: pages of their own


def frame_names(num_scenes: int, num_frames: int) -> list[tuple[str, str]]:
    return [
        (f'scene{scene:04d}_00', f'{frame:05d}')
        for scene in range(num_scenes)
        for frame in range(num_frames)
    ]


def arrays_of(scene: str, frame: str, stamp: StoreStamp = STAMP) -> dict[str, np.ndarray]:
    """Arrays that depend on the frame's name alone, in every process."""
    generator = default_rng(zlib.crc32(f'{scene}/{frame}'.encode()))
    shape = (stamp.channels, *(stamp.grid or (2, 7)))
    return {
        'feat': generator.standard_normal(shape).astype(stamp.dtype),
        'clip_global': generator.standard_normal(8).astype(np.float32),
    }


def put_all(writer, names, stamp: StoreStamp = STAMP) -> None:
    for scene, frame in names:
        writer.put(scene, frame, arrays_of(scene, frame, stamp))


def assert_frame(store, scene: str, frame: str, stamp: StoreStamp = STAMP) -> None:
    expected = arrays_of(scene, frame, stamp)
    found = store.get(scene, frame)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert_array_equal(found[name], array)


def fork_child(function: Callable[[], Any]) -> tuple[int, int]:
    """Run a function in a forked process; its id, and where its answer can be read."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child:
        os.close(write_end)
        return child, read_end
    status = 1
    try:
        os.close(read_end)
        try:
            answer = function()
        except Exception as error:  # noqa: BLE001 (the parent raises it)
            answer = error
        os.write(write_end, pickle.dumps(answer))
        status = 0
    finally:
        os._exit(status)


def answer_of(child: int, read_end: int) -> Any:
    """Wait for a forked process; its answer, or what it raised."""
    content = b''
    while chunk := os.read(read_end, 1 << 16):
        content += chunk
    os.close(read_end)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise ChildProcessError(f'killed by {signal.Signals(os.WTERMSIG(status)).name}')
    answer = pickle.loads(content)
    if isinstance(answer, Exception):
        raise answer
    return answer


def in_child(function: Callable[[], Any]) -> Any:
    """The answer of a function run in a forked process."""
    return answer_of(*fork_child(function))
