"""The LMDB feature store against npz, h5py and raw files: random writes and reads.

All four keep the same frames: a float16 map and a float32 vector each. Every side makes what
it writes durable in batches of the same size, and every side reads in the same random order,
once from a cold page cache and once from a warm one. The store checks a checksum at each
reading, npz its zip CRC, the other two nothing. Sides take turns, the median of the rounds
counts, and ratios are of numbers from one run.
"""

import argparse
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from oneformer3d.store import BatchCommit, FeatureStore, FeatureStoreWriter, StoreStamp
from oneformer3d.store.shard import structural_problems
from tools.benchmarks._measure import add_integers, clocked, print_table, read_integers, take_turns

GLOBAL_DIM = 512
NAMES = ('write_ms', 'cold_ms', 'warm_ms', 'megabytes')
OPTIONS = {
    'records': (400, 'frames that are stored'),
    'channels': (192, 'width of the map'),
    'batch': (64, 'frames made durable together'),
    'rounds': (3, 'times that each side is measured'),
    'seed': (0, 'of the frames and the order'),
}
Frame = dict[str, np.ndarray]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Number and size of the frames."""
    add_integers(parser, OPTIONS)
    parser.add_argument('--grid', type=int, nargs=2, default=(28, 28), help='its height and width')
    parser.add_argument('--folder', type=Path, help='where to write (default: the temporary one)')


def run(args: argparse.Namespace) -> dict:
    """Measure all sides, print a table and return the numbers.

    Returns:
        Per side ``write_ms``, ``cold_ms``, ``warm_ms`` (per frame), ``megabytes`` and ``spread``;
        ``ratios`` of each peer's milliseconds over the store's; ``checksum_ms``, which is part of
        the store's reading; ``arguments``.

    Raises:
        ValueError: sizes below 1, or a side gives back other numbers than it was given.
    """
    sizes = read_integers(args, tuple(OPTIONS))
    if min(args.grid) < 1:
        raise ValueError(f'--grid must be at least 1 × 1, got {args.grid}')

    frames = make_frames(args)

    with tqdm(total=args.rounds * len(SIDES), desc='store', delay=1) as bar:

        def turn(side: str) -> dict[str, float]:
            with tempfile.TemporaryDirectory(dir=args.folder, prefix='store_bench_') as folder:
                numbers = measure(SIDES[side](Path(folder), frames, args.batch), args.seed)
            bar.update()
            return numbers

        sides = {side: lambda side=side: turn(side) for side in SIDES}
        result: dict = take_turns(sides, args.rounds)

    result['ratios'] = {
        side: {name: result[side][name] / result['lmdb'][name] for name in NAMES}
        for side in SIDES
        if side != 'lmdb'
    }

    result['checksum_ms'] = checksum_ms(frames)
    folder = str(args.folder or tempfile.gettempdir())
    result['arguments'] = {**sizes, 'grid': list(args.grid), 'folder': folder}
    show(result)
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
        'check_ms': milliseconds(lambda: check_structure(side.folder), len(names)),
    }


def check_structure(folder: Path) -> None:
    """What the first opening of a store's shards adds; nothing for the other sides."""
    for shard in folder.glob('*.lmdb'):
        if structural_problems(shard):
            raise ValueError(f'{shard}: damaged just after it was written')


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
    return clocked(function)[1]['seconds'] * 1e3 / count


def show(result: dict) -> None:
    """One line per side: milliseconds per frame, and how many times the store's they are."""
    arguments = result['arguments']
    shape = (arguments['channels'], *arguments['grid'])
    print(
        f'{arguments["records"]} frames of float16 {shape} + float32 ({GLOBAL_DIM},), '
        f'durable every {arguments["batch"]}, median of {arguments["rounds"]}'
    )
    columns = {}
    for title in ('write ms', 'read cold ms', 'read warm ms'):
        columns |= {title: '.3f', f'{title.split()[-2]} ×': '.1f'}
    rows = {}
    for side in SIDES:
        ratios = result['ratios'].get(side, dict.fromkeys(NAMES, 1.0))
        cells = [x for name in NAMES[:3] for x in (result[side][name], ratios[name])]
        rows[side] = [*cells, result[side]['megabytes'], result[side]['spread']]
    print_table({**columns, 'MB': '.1f', 'spread': '.0%'}, rows)
    share = result['lmdb']['check_ms'] / result['lmdb']['warm_ms']
    print(f'its structure is checked once, in {share:.1%} of the time of reading it once, warm')
    print(f"of the store's reading, {result['checksum_ms']:.3f} ms is its checksum")
