"""Exports to npz and HDF5 keep every bit, and a store can be made of them again."""

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from oneformer3d.store import (
    CorruptRecordError,
    FeatureStore,
    FeatureStoreWriter,
    StampMismatchError,
    StoreLockedError,
    verify_store,
)
from oneformer3d.store.export import export_h5, export_npz, import_store
from tests.helpers.store_samples import (
    STAMP,
    answer_of,
    arrays_of,
    assert_frame,
    fork_child,
    frame_names,
    put_all,
)
from tests.helpers.store_v1 import STAMP_FIELDS_V1, STORE_V1, frames_v1

NAMES = frame_names(2, 5)
KEYS = sorted(f'{scene}/{frame}' for scene, frame in NAMES)
EXPORTS = {'npz': export_npz, 'h5': export_h5}
each_format = pytest.mark.parametrize('format', EXPORTS)


def write_store(path, names=NAMES, rank=0, stamp=STAMP):
    with FeatureStoreWriter(path, stamp, rank) as writer:
        put_all(writer, names, stamp)
    return path


def export_of(tmp_path, format, names=NAMES) -> Path:
    EXPORTS[format](write_store(tmp_path / 'store', names), tmp_path / 'out')
    return tmp_path / 'out'


def file_of(export: Path) -> Path:
    (file,) = [*export.glob('*/*.npz'), *export.glob('*.h5')]
    return file


@each_format
def test_export_keeps_every_bit(tmp_path, format):
    write_store(tmp_path / 'store', NAMES[:4])
    source = write_store(tmp_path / 'store', NAMES[3:], rank=1)
    calls = []
    assert EXPORTS[format](source, tmp_path / 'out', lambda: calls.append(1)) == len(NAMES)
    assert len(calls) == len(NAMES)
    assert EXPORTS[format](source, tmp_path / 'out') == 0

    assert import_store(tmp_path / 'out', tmp_path / 'back') == len(NAMES)
    assert import_store(tmp_path / 'out', tmp_path / 'back', lambda: calls.append(1)) == 0
    assert len(calls) == 2 * len(NAMES)
    store = FeatureStore(tmp_path / 'back', STAMP)
    assert store.stamp == STAMP
    assert list(store) == KEYS
    assert store.checksums() == FeatureStore(source).checksums()
    for scene, frame in NAMES:
        assert_frame(store, scene, frame)


@each_format
def test_export_goes_on_and_may_lie_beside_its_store(tmp_path, format):
    path = write_store(tmp_path / 'store', NAMES[:4])
    assert EXPORTS[format](path, path) == 4
    write_store(path)
    assert EXPORTS[format](path, path) == len(NAMES) - 4
    assert list(FeatureStore(path)) == KEYS
    assert verify_store(path) == []
    assert EXPORTS[format](path, tmp_path / 'out') == len(NAMES)


def test_files_are_what_other_programs_expect(tmp_path):
    expected = arrays_of(*NAMES[0])
    store = write_store(tmp_path / 'store', NAMES[:1])
    export_npz(store, tmp_path / 'npz')
    with np.load(tmp_path / 'npz' / 'scene0000_00' / '00000.npz') as content:
        np.testing.assert_array_equal(content['feat'], expected['feat'])
    export_h5(store, tmp_path / 'h5')
    with h5py.File(tmp_path / 'h5' / 'features.r0000.h5') as file:
        np.testing.assert_array_equal(file['scene0000_00/00000/feat'][:], expected['feat'])


@each_format
def test_exports_of_version_1_become_a_store(tmp_path, format):
    """Stores could be of npz or HDF5 files then, with one HDF5 file per rank."""
    assert import_store(f'{STORE_V1}_{format}', tmp_path / 'out') == 4
    store = FeatureStore(tmp_path / 'out', STAMP_FIELDS_V1)
    assert store.stamp.schema_version == 2
    for key, arrays in frames_v1().items():
        found = store.get(*key.split('/'))
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


@each_format
def test_an_export_is_no_store_and_says_the_way_back(tmp_path, format):
    out = export_of(tmp_path, format, NAMES[:1])
    for attempt in (FeatureStore, verify_store):
        with pytest.raises(ValueError, match=f'export to {format}, .*store.py import STORE {out}'):
            attempt(out)
    with pytest.raises(ValueError, match=f'export to {format}, not a store; .* STORE {out}'):
        FeatureStoreWriter(out, STAMP)
    with pytest.raises(ValueError, match='is a store, not an export'):
        import_store(tmp_path / 'store', tmp_path / 'x')
    assert not (tmp_path / 'x').exists()


@each_format
def test_other_content_and_other_stamps_are_refused(tmp_path, format):
    out = export_of(tmp_path, format, NAMES[:2])
    other = write_store(tmp_path / 'other', NAMES[:1], stamp=replace(STAMP, mode='clip'))
    with pytest.raises(StampMismatchError, match="mode is 'tokens', expected 'clip'"):
        EXPORTS[format](other, out)
    with pytest.raises(StampMismatchError, match="mode is 'clip', expected 'tokens'"):
        import_store(out, other)
    with FeatureStoreWriter(tmp_path / 'changed', STAMP) as writer:
        writer.put(*NAMES[0], arrays_of(*NAMES[1]))
    with pytest.raises(ValueError, match='scene0000_00/00000 is there with other content'):
        EXPORTS[format](tmp_path / 'changed', out)
    wrong = {'npz': 'h5', 'h5': 'npz'}[format]
    with pytest.raises(ValueError, match=f'is an export to {format}, not {wrong}'):
        EXPORTS[wrong](tmp_path / 'store', out)


@each_format
def test_checksums_are_tested_on_the_way(tmp_path, format):
    path = write_store(tmp_path / 'store', NAMES[:3])
    shard = path / 'features.r0000.lmdb'
    content = bytearray(shard.read_bytes())
    content[content.index(arrays_of(*NAMES[1])['feat'].tobytes()) + 50] ^= 4
    shard.write_bytes(content)
    with pytest.raises(CorruptRecordError, match='scene0000_00/00001'):
        EXPORTS[format](path, tmp_path / 'out')
    assert not (tmp_path / 'out' / 'features.r0000.h5').exists()  # complete or not there


@each_format
def test_a_store_in_the_writing_is_not_exported(tmp_path, format):
    path = write_store(tmp_path / 'store', NAMES[:3])
    with (
        FeatureStoreWriter(path, STAMP, rank=1),
        pytest.raises(StoreLockedError, match='being written by'),
    ):
        EXPORTS[format](path, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@each_format
def test_exports_at_the_same_time_end_with_everything(tmp_path, format):
    path = write_store(tmp_path / 'store')
    children = [fork_child(lambda: EXPORTS[format](path, path)) for _ in range(3)]
    assert sorted(answer_of(*child) for child in children) == [0, 0, len(NAMES)]
    assert EXPORTS[format](path, path) == 0


@each_format
def test_flipped_byte_is_found(tmp_path, format):
    file = file_of(export_of(tmp_path, format, NAMES[:1]))
    content = bytearray(file.read_bytes())
    content[content.index(arrays_of(*NAMES[0])['feat'].tobytes()) + 50] ^= 4
    file.write_bytes(content)
    with pytest.raises(ValueError, match='damaged'):
        import_store(tmp_path / 'out', tmp_path / 'back')


@each_format
def test_truncated_file_is_named(tmp_path, format):
    file = file_of(export_of(tmp_path, format, NAMES[:1]))
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(ValueError, match=file.name):
        import_store(tmp_path / 'out', tmp_path / 'back')


def test_npz_with_pickled_objects_is_refused(tmp_path):
    file = file_of(export_of(tmp_path, 'npz', NAMES[:1]))
    np.savez(file, feat=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match='damaged'):
        import_store(tmp_path / 'out', tmp_path / 'back')
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('x.npy', b'not an array')
    with pytest.raises(ValueError, match='damaged'):
        import_store(tmp_path / 'out', tmp_path / 'back')


def test_missing_h5_file_is_named(tmp_path):
    file_of(export_of(tmp_path, 'h5', NAMES[:1])).unlink()
    with pytest.raises(FileNotFoundError, match='no such file'):
        import_store(tmp_path / 'out', tmp_path / 'back')
