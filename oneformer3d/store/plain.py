"""Two plainer stores with the LMDB store's interface: one npz per frame, or HDF5.

Enters: named arrays per scene and frame. Leaves: ``scene/frame.npz``, or groups ``scene/frame`` in
one ``features.rNNNN.h5`` per writer; either beside a stamped ``manifest.json``. For looking at
features with other tools; the LMDB store is the one made for training.
"""

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from oneformer3d.files.atomic import atomic_path

from .format import StoreStamp, check_feature, check_stamp, encode_record, record_key, split_key
from .lock import WriterLock
from .manifest import MANIFEST_NAME, check_joinable, join_manifest, read_manifest, shard_name


class _FrameStore:
    """What reading npz and HDF5 stores has in common."""

    format: str

    def __init__(
        self,
        path: str | os.PathLike,
        expected_stamp: StoreStamp | Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        manifest = read_manifest(path)
        if manifest.format != self.format:
            raise ValueError(f'{path}: is a store of format {manifest.format}, not {self.format}')
        check_stamp(manifest.stamp, expected_stamp, source=str(path))
        self.stamp = manifest.stamp

    def get(self, scene: str, frame: str) -> dict[str, np.ndarray]:
        """Arrays of a frame; raises KeyError if there is none, ValueError if it is damaged."""
        raise NotImplementedError

    def has(self, scene: str, frame: str) -> bool:
        """Whether the frame is there."""
        raise NotImplementedError

    def keys(self) -> Iterator[str]:
        """Every ``scene/frame``, in order."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what is open; it opens again when needed."""

    def __contains__(self, key: str) -> bool:
        return self.has(*split_key(key))

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def __len__(self) -> int:
        return sum(1 for _ in self.keys())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class NpzStore(_FrameStore):
    """One ``scene/frame.npz`` per frame.

    Args:
        path: the store's folder.
        expected_stamp: whole stamp, or the fields that matter.
    """

    format = 'npz'

    def get(self, scene: str, frame: str) -> dict[str, np.ndarray]:
        """Arrays of a frame; raises KeyError if there is none, ValueError if it is damaged."""
        path = _npz_path(self.path, scene, frame)
        if not path.is_file():
            raise KeyError(f'{self.path}: no features of {scene}/{frame}')
        try:
            with np.load(path, allow_pickle=False) as content:
                arrays = {name: content[name] for name in content.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f'{path}: damaged: {error}') from error
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError(f'{path}: damaged: not all of its members are arrays')
        return arrays

    def has(self, scene: str, frame: str) -> bool:
        """Whether the frame is there."""
        return _npz_path(self.path, scene, frame).is_file()

    def keys(self) -> Iterator[str]:
        """Every ``scene/frame``, in order."""
        for path in sorted(self.path.glob('[!.]*/[!.]*.npz')):
            yield f'{path.parent.name}/{path.stem}'


class H5Store(_FrameStore):
    """Groups ``scene/frame`` in one HDF5 file per writer; files open lazily in each process.

    Args:
        path: the store's folder.
        expected_stamp: whole stamp, or the fields that matter.
    """

    format = 'h5'

    def __init__(
        self,
        path: str | os.PathLike,
        expected_stamp: StoreStamp | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(path, expected_stamp)
        self._files: list[h5py.File] = []
        self._pid = 0

    def get(self, scene: str, frame: str) -> dict[str, np.ndarray]:
        """Arrays of a frame; raises KeyError if there is none, ValueError if it is damaged."""
        key = record_key(scene, frame).decode('ascii')
        for file in self._opened():
            if key in file:
                return _read_group(file, key)
        raise KeyError(f'{self.path}: no features of {key}')

    def has(self, scene: str, frame: str) -> bool:
        """Whether the frame is there."""
        key = record_key(scene, frame).decode('ascii')
        return any(key in file for file in self._opened())

    def keys(self) -> Iterator[str]:
        """Every ``scene/frame``, in order."""
        yield from sorted({key for file in self._opened() for key in _group_keys(file)})

    def close(self) -> None:
        """Close the files; they open again when needed."""
        if self._pid == os.getpid():
            for file in self._files:
                file.close()
        self._files = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_files': [], '_pid': 0}

    def _opened(self) -> list[h5py.File]:
        if not self._files or self._pid != os.getpid():
            names = read_manifest(self.path).shards
            self._files = [_open_h5(self.path / name, 'r') for name in names]
            self._pid = os.getpid()
        return self._files


class _FrameWriter:
    """What writing npz and HDF5 stores has in common."""

    path: Path
    stamp: StoreStamp

    def has(self, scene: str, frame: str) -> bool:
        """Whether the frame is there."""
        raise NotImplementedError

    def get(self, scene: str, frame: str) -> dict[str, np.ndarray]:
        """Read a frame back; raises KeyError if there is none."""
        raise NotImplementedError

    def put(self, scene: str, frame: str, arrays: Mapping[str, np.ndarray]) -> bool:
        """Store one frame; as ``FeatureStoreWriter.put``."""
        key = record_key(scene, frame)
        check_feature(arrays, self.stamp, f'{scene}/{frame}')
        record = encode_record(key, arrays)  # the same names, types and values are refused
        if self.has(scene, frame):
            if encode_record(key, self.get(scene, frame)) != record:
                raise ValueError(f'{self.path}: {scene}/{frame} is there with other content')
            return False
        self._write(scene, frame, arrays)
        return True

    def _write(self, scene: str, frame: str, arrays: Mapping[str, np.ndarray]) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        """Make durable what was put."""

    def close(self) -> None:
        """Flush and give the store back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class NpzStoreWriter(_FrameWriter):
    """Writes one file per frame, each at once and durable; any number of writers.

    Args:
        path: the store's folder.
        stamp: the encoder and its settings; must equal the store's.
        rank: not needed, files have no writer of their own.
    """

    def __init__(self, path: str | os.PathLike, stamp: StoreStamp, rank: int = 0) -> None:
        self.path = Path(path)
        self.stamp = stamp
        self.rank = rank
        check_joinable(path, stamp, 'npz')
        self.path.mkdir(parents=True, exist_ok=True)
        join_manifest(path, stamp, format='npz')
        self._store = NpzStore(path)

    def has(self, scene: str, frame: str) -> bool:
        """Whether the frame is there."""
        return self._store.has(scene, frame)

    def get(self, scene: str, frame: str) -> dict[str, np.ndarray]:
        """Read a frame back."""
        return self._store.get(scene, frame)

    def _write(self, scene: str, frame: str, arrays: Mapping[str, np.ndarray]) -> None:
        with atomic_path(_npz_path(self.path, scene, frame)) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)


class H5StoreWriter(_FrameWriter):
    """Writes one HDF5 file per rank; a killed writer can leave a file that HDF5 refuses.

    Args:
        path: the store's folder.
        stamp: the encoder and its settings; must equal the store's.
        rank: which file is written.
        flush_every: records between two flushes.

    Raises:
        StoreLockedError: the file has a writer, named with its process id.
    """

    def __init__(
        self, path: str | os.PathLike, stamp: StoreStamp, rank: int = 0, flush_every: int = 64
    ) -> None:
        self.path = Path(path)
        self.stamp = stamp
        self._flush_every = flush_every
        self._unflushed = 0
        name = shard_name(rank, 'h5')
        check_joinable(path, stamp, 'h5')
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = WriterLock(self.path / name)
        self._lock.acquire()
        try:
            self._others = self._read_others(name)
            self._file = _open_h5(self.path / name, 'a')
            join_manifest(path, stamp, name, format='h5')
        except BaseException:
            self._lock.release()
            raise

    def has(self, scene: str, frame: str) -> bool:
        """Whether this file, or another that was complete at opening, holds the frame."""
        key = record_key(scene, frame).decode('ascii')
        return key in self._file or key in self._others

    def get(self, scene: str, frame: str) -> dict[str, np.ndarray]:
        """Read a frame back."""
        key = record_key(scene, frame).decode('ascii')
        if key in self._file:
            return _read_group(self._file, key)
        if key in self._others:
            with _open_h5(self._others[key], 'r') as file:
                return _read_group(file, key)
        raise KeyError(f'{self.path}: no features of {key}')

    def flush(self) -> None:
        """Hand everything to the system and the disk."""
        self._file.flush()
        descriptor = self._file.id.get_vfd_handle()
        os.fsync(descriptor)
        self._unflushed = 0

    def close(self) -> None:
        """Flush, close the file and give it back."""
        if not self._file:
            return
        try:
            self.flush()
        finally:
            self._file.close()
            self._lock.release()

    def _write(self, scene: str, frame: str, arrays: Mapping[str, np.ndarray]) -> None:
        group = self._file.create_group(record_key(scene, frame).decode('ascii'))
        for name, array in arrays.items():
            array = np.asarray(array)
            # Fletcher's checksum works on chunks, and only arrays of some size have those.
            chunks = array.shape if array.ndim and array.size else None
            group.create_dataset(name, data=array, chunks=chunks, fletcher32=bool(chunks))
        self._unflushed += 1
        if self._unflushed >= self._flush_every:
            self.flush()

    def _read_others(self, own: str) -> dict[str, Path]:
        """Key → file for the files of earlier writers; a file in the writing is left alone."""
        if not (self.path / MANIFEST_NAME).is_file():
            return {}
        keys = {}
        for name in read_manifest(self.path).shards:
            path = self.path / name
            if name != own and WriterLock(path).holder() is None:
                with _open_h5(path, 'r') as file:
                    keys.update(dict.fromkeys(_group_keys(file), path))
        return keys


def _npz_path(folder: Path, scene: str, frame: str) -> Path:
    record_key(scene, frame)
    return folder / scene / f'{frame}.npz'


def _open_h5(path: Path, mode: str) -> h5py.File:
    if mode == 'r' and not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    try:
        return h5py.File(path, mode)
    except OSError as error:
        raise ValueError(f'{path}: HDF5 cannot open it: {error}') from error


def _read_group(file: h5py.File, key: str) -> dict[str, np.ndarray]:
    try:
        return {name: dataset[()] for name, dataset in file[key].items()}
    except OSError as error:
        raise ValueError(f'{file.filename}: {key}: damaged: {error}') from error


def _group_keys(file: h5py.File) -> Iterator[str]:
    for scene, frames in file.items():
        for frame in frames:
            yield f'{scene}/{frame}'
