"""A long stream through the merging rule: bytes and seconds a frame at its begin and its end.

Stored instances of one room come over and over, as from a camera that never leaves; the surface is
known after the first round, so what still grows is what a frame leaves behind.
"""

import argparse
import resource
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from oneformer3d.streaming.online_merge import OnlineMerge
from oneformer3d.streaming.records import FrameInstances
from tools.benchmarks._measure import add_integers, print_table, read_integers

VOXEL_SIZE = 0.04
OPTIONS = {
    'frames': (10_000, 'of the stream'),
    'stored': (200, 'of different frames'),
    'objects': (20, 'in the room'),
    'seed': (0, 'of the room'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Length of the stream and size of the room."""
    add_integers(parser, OPTIONS)


def run(args: argparse.Namespace) -> dict:
    """Stream, print a table and return the numbers.

    Returns:
        ``bytes_per_frame``, the slope of resident memory over the second half; ``seconds_first``
        and ``seconds_last``, medians of a frame in the second and in the last fifth; ``time_ratio``
        of these; ``num_tracks``, ``num_voxels``, ``num_ledger_bytes``.

    Raises:
        ValueError: sizes below 1, or a stream shorter than five rounds.
    """
    sizes = read_integers(args, (*OPTIONS,))
    if args.frames < 5 * args.stored:
        raise ValueError(f'--frames: expected at least five rounds of {args.stored} frames')
    stored = list(stored_frames(args.stored, args.objects, args.seed))
    merge = OnlineMerge(VOXEL_SIZE)
    seconds, resident = np.zeros(args.frames), np.zeros(args.frames)
    for number in range(args.frames):
        frame = replace(stored[number % args.stored], index=number)
        began = time.perf_counter()
        merge.update(frame)
        seconds[number] = time.perf_counter() - began
        resident[number] = resident_bytes()

    half, fifth = args.frames // 2, args.frames // 5
    slope = np.polyfit(np.arange(half, args.frames), resident[half:], 1)[0]
    first, last = np.median(seconds[fifth : 2 * fifth]), np.median(seconds[-fifth:])
    report = {
        'bytes_per_frame': float(slope),
        'seconds_first': float(first),
        'seconds_last': float(last),
        'time_ratio': float(last / first),
        'num_tracks': len(merge.tracks()),
        'num_voxels': merge.num_voxels,
        'num_ledger_bytes': merge.num_ledger_bytes,
        'arguments': sizes,
    }
    columns = {'bytes a frame': '.0f', 'first ms': '.2f', 'last ms': '.2f', 'ratio': '.3f'}
    numbers = [report['bytes_per_frame'], 1000 * first, 1000 * last, report['time_ratio']]
    print_table(columns, {f'{args.frames} frames': numbers})
    print(f'{report["num_tracks"]} tracks of {args.objects} objects, {merge.num_voxels} voxels')
    return report


def stored_frames(num_frames: int, num_objects: int, seed: int) -> Iterator[FrameInstances]:
    """Boxes of 8 × 8 × 12 voxels on a floor; a frame sees some six of them and the floor around."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(num_objects)))
    shape = np.argwhere(np.ones((8, 8, 12)))  # (768, 3)
    corners = np.array([[20 * (k % side), 20 * (k // side), 0] for k in range(num_objects)])
    floor = np.argwhere(np.ones((20 * side, 20 * side, 1))) - (4, 4, 1)
    looks = rng.normal(size=(num_objects, 16))

    for _ in range(num_frames):
        middle = rng.uniform(0, 20 * side, 2)
        near = np.argsort(np.linalg.norm(corners[:, :2] - middle, axis=1))[:6]
        # a camera sees a part of each
        voxels = tuple(shape[rng.random(len(shape)) < 0.6] + corners[k] for k in near)
        around = floor[(np.abs(floor[:, :2] - middle) < 30).all(axis=1)]
        features = looks[near] + 0.2 * rng.normal(size=(len(near), 16))
        yield FrameInstances(
            voxels,
            rng.uniform(0.5, 1, len(near)).astype(np.float32),
            rng.normal(size=(len(near), 5)).astype(np.float32),
            features.astype(np.float32),
            np.concatenate([*voxels, around]),
        )


def resident_bytes() -> int:
    """Memory of this process; the peak where the system does not tell the present."""
    statm = Path('/proc/self/statm')
    if statm.is_file():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
