"""A store as files for other programs, and a store of such files.

Enters: a store's folder, or an export's. Leaves: ``scene/frame.npz`` per frame, or one HDF5 file
with a group ``scene/frame`` per frame; beside them ``manifest.json`` with the stamp. Every record's
checksum is tested on the way, and files appear when they are complete.
"""

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from oneformer3d.files.atomic import atomic_path

from .manifest import folder_lock, join_manifest, read_manifest, shard_name, stamp_to_join
from .reader import FeatureStore
from .record import SCHEMA_VERSION, encode_record, record_key, split_key
from .upkeep import require_sound
from .writer import FeatureStoreWriter

H5_NAME = shard_name(0, 'h5')
OnRecord = Callable[[], None] | None
Arrays = dict[str, np.ndarray]


def export_npz(path: str | os.PathLike, out: str | os.PathLike, on_record: OnRecord = None) -> int:
    """Write one ``scene/frame.npz`` per frame; can be run again.

    Args:
        path: the store's folder.
        out: where the files go; may be the store's folder itself.
        on_record: called after each record.

    Returns:
        Number of files that were not there before.

    Raises:
        StampMismatchError: ``out`` has files of another encoder.
        StoreLockedError: the store is being written.
        ValueError: damage on either side, or a file with other content.

    Example:
        >>> import tempfile
        >>> from oneformer3d.store.examples import example_store
        >>> folder, out = example_store(), tempfile.mkdtemp()
        >>> export_npz(folder, out), export_npz(folder, out)
        (2, 0)
        >>> np.load(f'{out}/room/00000.npz')['feat'].shape
        (4, 3, 5)
    """
    store = _open_for_export(path, out, 'npz')
    num_new = 0

    with folder_lock(Path(out), 'export.lock'):
        for key, arrays in store.items():
            scene, frame = split_key(key)
            file = Path(out) / scene / f'{frame}.npz'
            if file.is_file():
                _require_same(key, arrays, read_npz(file), str(file))
            else:
                with atomic_path(file) as temporary:
                    np.savez(temporary, allow_pickle=False, **arrays)
                num_new += 1
            if on_record is not None:
                on_record()
    return num_new


def export_h5(path: str | os.PathLike, out: str | os.PathLike, on_record: OnRecord = None) -> int:
    """Write one HDF5 file with everything; each time anew, in place of the one before.

    Args, Raises: as ``export_npz``.

    Returns:
        Number of frames that the file did not have before.

    Example:
        >>> import tempfile
        >>> from oneformer3d.store.examples import example_store
        >>> folder, out = example_store(), tempfile.mkdtemp()
        >>> export_h5(folder, out)
        2
        >>> h5py.File(f'{out}/features.r0000.h5')['room/00000/feat'].shape
        (4, 3, 5)
    """
    store = _open_for_export(path, out, 'h5')
    target = Path(out) / H5_NAME
    num_new = 0

    # the file of before stays readable until the new one takes its name
    with folder_lock(Path(out), 'export.lock'), ExitStack() as stack:
        before = stack.enter_context(_open_h5(target)) if target.is_file() else None
        temporary = stack.enter_context(atomic_path(target))
        with h5py.File(temporary, 'w') as file:
            for key, arrays in store.items():
                if before is not None and key in before:
                    _require_same(key, arrays, _read_group(before, key), str(target))
                else:
                    num_new += 1
                _write_group(file.create_group(key), arrays)
                if on_record is not None:
                    on_record()
    return num_new


def import_store(
    path: str | os.PathLike, out: str | os.PathLike, on_record: OnRecord = None
) -> int:
    """Make a store of an export to npz or HDF5, also of one of version 1; can be run again.

    Args:
        path: the export's folder, with its ``manifest.json``.
        out: the store to make or to add to.
        on_record: called after each record.

    Returns:
        Number of records that were new in ``out``.

    Raises:
        StampMismatchError: ``out`` is a store of another encoder.
        ValueError: not an export, or a damaged one.

    Example:
        >>> import tempfile
        >>> from oneformer3d.store.examples import example_store
        >>> files, out = tempfile.mkdtemp(), tempfile.mkdtemp()
        >>> export_npz(example_store(), files), import_store(files, out), len(FeatureStore(out))
        (2, 2, 2)
    """
    manifest = read_manifest(path)
    if manifest.format not in ('npz', 'h5'):
        raise ValueError(f'{path}: is a store, not an export')

    if manifest.format == 'npz':
        frames = _npz_frames(Path(path))
    else:
        frames = (one for name in manifest.shards for one in _h5_frames(Path(path) / name))

    num_new = 0
    stamp = replace(manifest.stamp, schema_version=SCHEMA_VERSION)
    with FeatureStoreWriter(out, stamp) as writer:
        for key, arrays in frames:
            num_new += writer.put(*split_key(key), arrays)
            if on_record is not None:
                on_record()
    return num_new


def read_npz(path: str | os.PathLike) -> Arrays:
    """The arrays of one exported frame.

    Raises:
        ValueError: damaged, or holds something else than arrays.

    Example:
        >>> import tempfile
        >>> file = f'{tempfile.mkdtemp()}/00000.npz'
        >>> np.savez(file, level=np.array(7))
        >>> read_npz(file)
        {'level': array(7)}
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path}: damaged: {error}') from error

    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError(f'{path}: damaged: not all of its members are arrays')
    return arrays


def _open_for_export(path: str | os.PathLike, out: str | os.PathLike, format: str) -> FeatureStore:
    store = FeatureStore(path)
    require_sound(path)

    # files beside the store they come from share its manifest
    if Path(out).resolve() != Path(path).resolve():
        stamp_to_join(out, store.stamp, format)
        Path(out).mkdir(parents=True, exist_ok=True)
        join_manifest(out, store.stamp, H5_NAME if format == 'h5' else None, format)
    return store


def _require_same(key: str, arrays: Arrays, found: Arrays, source: str) -> None:
    name = record_key(*split_key(key))
    if encode_record(name, found) != encode_record(name, arrays):
        raise ValueError(f'{source}: {key} is there with other content')


def _npz_frames(folder: Path) -> Iterator[tuple[str, Arrays]]:
    for file in sorted(folder.glob('[!.]*/[!.]*.npz')):
        yield f'{file.parent.name}/{file.stem}', read_npz(file)


def _h5_frames(path: Path) -> Iterator[tuple[str, Arrays]]:
    with _open_h5(path) as file:
        for scene, frames in file.items():
            for frame in frames:
                yield f'{scene}/{frame}', _read_group(file, f'{scene}/{frame}')


def _open_h5(path: Path) -> h5py.File:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    try:
        return h5py.File(path, 'r')
    except OSError as error:
        raise ValueError(f'{path}: HDF5 cannot open it: {error}') from error


def _read_group(file: h5py.File, key: str) -> Arrays:
    group = file[key]
    if not isinstance(group, h5py.Group):
        raise ValueError(f'{file.filename}: {key}: expected a group of arrays')
    try:
        return {name: dataset[()] for name, dataset in group.items()}
    except OSError as error:
        raise ValueError(f'{file.filename}: {key}: damaged: {error}') from error


def _write_group(group: h5py.Group, arrays: Arrays) -> None:
    for name, array in arrays.items():
        # Fletcher's checksum works on chunks, and only arrays of some size have those
        chunks = array.shape if array.ndim and array.size else None
        group.create_dataset(name, data=array, chunks=chunks, fletcher32=bool(chunks))
