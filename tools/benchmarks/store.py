"""The LMDB feature store against npz, h5py and raw files: random writes and reads.

All four keep the same frames: a float16 map and a float32 vector each. Every side makes what
it writes durable in batches of the same size, and every side reads in the same random order,
once from a cold page cache and once from a warm one. The store checks a checksum at each
reading, npz its zip CRC, the other two nothing. Sides take turns, the median of the rounds
counts, and ratios are of numbers from one run.
"""

import argparse
import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from oneformer3d.store import BatchCommit, FeatureStore, FeatureStoreWriter, StoreStamp

GLOBAL_DIM = 512
Frame = dict[str, np.ndarray]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Number and size of the frames."""
    parser.add_argument('--records', type=int, default=400, help='frames that are stored')
    parser.add_argument('--channels', type=int, default=192, help='width of the map')
    parser.add_argument('--grid', type=int, nargs=2, default=(28, 28), help='its height and width')
    parser.add_argument('--batch', type=int, default=64, help='frames made durable together')
    parser.add_argument('--rounds', type=int, default=3, help='times that each side is measured')
    parser.add_argument('--folder', type=Path, help='where to write (default: the temporary one)')
    parser.add_argument('--seed', type=int, default=0, help='of the frames and the order')


def run(args: argparse.Namespace) -> dict:
    """Measure all sides, print a table and return the numbers.

    Returns:
        Per side ``write_ms``, ``cold_ms``, ``warm_ms`` (per frame) and ``megabytes``; ``ratios`` of
        each peer's milliseconds over the store's; ``checksum_ms``, which is part of the store's
        reading; ``arguments``.

    Raises:
        ValueError: sizes below 1, or a side gives back other numbers than it was given.
    """
    for name in ('records', 'channels', 'batch', 'rounds'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name} must be at least 1, got {getattr(args, name)}')
    if min(args.grid) < 1:
        raise ValueError(f'--grid must be at least 1 × 1, got {args.grid}')

    # sides take turns, so that what else the machine does falls on all
    frames = make_frames(args)
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    turns = [side for _ in range(args.rounds) for side in SIDES]
    for side in tqdm(turns, desc='store', delay=1):
        with tempfile.TemporaryDirectory(dir=args.folder, prefix='store_bench_') as folder:
            taken[side].append(measure(SIDES[side](Path(folder), frames, args.batch), args.seed))

    result: dict = {
        side: {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
        for side, rounds in taken.items()
    }
    result['ratios'] = {
        side: {name: result[side][name] / value for name, value in result['lmdb'].items()}
        for side in SIDES
        if side != 'lmdb'
    }

    result['checksum_ms'] = checksum_ms(frames)
    result['arguments'] = {**vars(args), 'folder': str(args.folder or tempfile.gettempdir())}
    result['arguments'].pop('out', None)
    print_table(result)
    return result


def make_frames(args: argparse.Namespace) -> dict[str, Frame]:
    """Name → arrays. A few different ones stand for all: making them is not the point."""
    generator = np.random.default_rng(args.seed)
    shape = (args.channels, *args.grid)
    made = [
        {
            'feat': generator.standard_normal(shape).astype(np.float16),
            'clip_global': generator.standard_normal(GLOBAL_DIM).astype(np.float32),
        }
        for _ in range(16)
    ]
    return {f'{index:06d}': made[index % len(made)] for index in range(args.records)}


def measure(side: 'Side', seed: int) -> dict[str, float]:
    """Write in random order, read in another: cold, then warm."""
    generator = np.random.default_rng(seed)
    names = list(side.frames)
    generator.shuffle(names)
    write_ms = milliseconds(lambda: side.write(names), len(names))

    generator.shuffle(names)
    num_bytes = forget_pages(side.folder)
    side.open()
    cold_ms = milliseconds(lambda: [side.read(name) for name in names], len(names))
    warm_ms = milliseconds(lambda: [side.read(name) for name in names], len(names))

    found, expected = side.read(names[0]), side.frames[names[0]]
    if not all(np.array_equal(found[name], array) for name, array in expected.items()):
        raise ValueError(f'{type(side).__name__} gave back other numbers than it was given')
    side.close()

    return {
        'write_ms': write_ms,
        'cold_ms': cold_ms,
        'warm_ms': warm_ms,
        'megabytes': num_bytes / 1e6,
    }


class Side:
    """One way to keep frames."""

    def __init__(self, folder: Path, frames: dict[str, Frame], batch: int) -> None:
        self.folder, self.frames, self.batch = folder, frames, batch

    def write(self, names: list[str]) -> None:
        """Store the frames in this order, durable in batches; closed afterwards."""
        raise NotImplementedError

    def open(self) -> None:
        """Get ready for reading."""

    def read(self, name: str) -> Frame:
        """The arrays of a frame in memory of their own."""
        raise NotImplementedError

    def close(self) -> None:
        """Done with reading."""

    def batches(self, names: list[str]) -> list[list[str]]:
        """The names, cut into batches."""
        return [names[at : at + self.batch] for at in range(0, len(names), self.batch)]


class LmdbSide(Side):
    """This package's store."""

    def write(self, names: list[str]) -> None:
        feat = self.frames[names[0]]['feat']
        stamp = StoreStamp(
            encoder='benchmark',
            weights_digest='none',
            layer='none',
            mode='tokens',
            attn_mode='none',
            input_size=None,
            dtype=feat.dtype.name,
            preprocessing='none',
            channels=feat.shape[0],
            grid=feat.shape[1:],
        )

        limits = BatchCommit(records=self.batch, num_bytes=1 << 40, seconds=3600)
        with FeatureStoreWriter(self.folder, stamp, batch_commit=limits) as writer:
            for name in names:
                writer.put('scene', name, self.frames[name])

    def open(self) -> None:
        self.store = FeatureStore(self.folder)

    def read(self, name: str) -> Frame:
        return self.store.get('scene', name)

    def close(self) -> None:
        self.store.close()


class NpzSide(Side):
    """One npz file per frame."""

    def write(self, names: list[str]) -> None:
        for batch in self.batches(names):
            for name in batch:
                np.savez(self.folder / f'{name}.npz', **self.frames[name])
            for name in batch:
                sync(self.folder / f'{name}.npz')
            sync(self.folder)

    def read(self, name: str) -> Frame:
        with np.load(self.folder / f'{name}.npz') as content:
            return {key: content[key] for key in content.files}


class H5Side(Side):
    """One HDF5 file with contiguous datasets, its fastest layout for whole arrays."""

    def write(self, names: list[str]) -> None:
        path = self.folder / 'features.h5'
        with h5py.File(path, 'w') as file:
            for batch in self.batches(names):
                for name in batch:
                    for key, array in self.frames[name].items():
                        file.create_dataset(f'scene/{name}/{key}', data=array)
                file.flush()
                sync(path)

    def open(self) -> None:
        self.file = h5py.File(self.folder / 'features.h5', 'r')

    def read(self, name: str) -> Frame:
        return {key: dataset[()] for key, dataset in self.file[f'scene/{name}'].items()}

    def close(self) -> None:
        self.file.close()


class RawSide(Side):
    """One file of bare numbers per frame; the reader must know types and shapes."""

    def write(self, names: list[str]) -> None:
        for batch in self.batches(names):
            for name in batch:
                frame = self.frames[name]
                with (self.folder / name).open('wb') as file:
                    for array in frame.values():
                        file.write(array.data)
            for name in batch:
                sync(self.folder / name)
            sync(self.folder)

    def read(self, name: str) -> Frame:
        content, found, at = np.fromfile(self.folder / name, np.uint8), {}, 0
        for key, array in self.frames[name].items():
            end = at + array.nbytes
            found[key] = content[at:end].view(array.dtype).reshape(array.shape)
            at = end
        return found


SIDES: dict[str, type[Side]] = {'lmdb': LmdbSide, 'npz': NpzSide, 'h5py': H5Side, 'raw': RawSide}


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget_pages(folder: Path) -> int:
    """Drop the folder's files from the page cache (Linux); returns their size in bytes."""
    num_bytes = 0
    for path in folder.iterdir():
        sync(path)
        num_bytes += path.stat().st_size
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return num_bytes


def checksum_ms(frames: dict[str, Frame]) -> float:
    """What one checksum costs."""
    content = [frame['feat'].tobytes() for frame in list(frames.values())[:16]]
    return milliseconds(lambda: [zlib.crc32(one) for one in content * 8], 8 * len(content))


def milliseconds(function: Callable[[], object], count: int) -> float:
    """Time per item."""
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3 / count


def print_table(result: dict) -> None:
    """One line per side: milliseconds per frame, and how many times the store's they are."""
    arguments = result['arguments']
    shape = (arguments['channels'], *arguments['grid'])
    print(
        f'{arguments["records"]} frames of float16 {shape} + float32 ({GLOBAL_DIM},), '
        f'durable every {arguments["batch"]}, median of {arguments["rounds"]}'
    )

    print(f'{"":6}{"write":>18}{"read, cold":>18}{"read, warm":>18}{"MB":>9}')
    for side in SIDES:
        line = f'{side:6}'
        for name in ('write_ms', 'cold_ms', 'warm_ms'):
            ratio = result['ratios'].get(side, {}).get(name, 1.0)
            line += f'{result[side][name]:>9.3f} ms {ratio:>4.1f}×'
        print(f'{line}{result[side]["megabytes"]:>9.1f}')
    print(f"of the store's reading, {result['checksum_ms']:.3f} ms is its checksum")
