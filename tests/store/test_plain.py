"""The npz and HDF5 stores speak the LMDB store's language, and exporting keeps every bit."""

import os
import pickle
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest

from oneformer3d.store.reader import (
    FeatureStore,
    H5Store,
    NpzStore,
    StampMismatchError,
    StoreLockedError,
    create_writer,
    export_store,
    open_store,
    verify_store,
)
from tests.helpers.store_samples import (
    STAMP,
    arrays_of,
    assert_frame,
    frame_names,
    in_child,
    put_all,
)

NAMES = frame_names(2, 5)
KEYS = sorted(f'{scene}/{frame}' for scene, frame in NAMES)
FORMATS = {'npz': NpzStore, 'h5': H5Store, 'lmdb': FeatureStore}


def write_store(path, format, names=NAMES, rank=0):
    with create_writer(path, STAMP, format, rank) as writer:
        put_all(writer, names)
    return path


@pytest.mark.parametrize('format', FORMATS)
def test_one_interface(tmp_path, format):
    path = tmp_path / 'store'
    with create_writer(path, STAMP, format) as writer:
        assert writer.put(*NAMES[0], arrays_of(*NAMES[0]))
        assert not writer.put(*NAMES[0], arrays_of(*NAMES[0]))
        assert writer.has(*NAMES[0])
        assert not writer.has(*NAMES[1])
        assert_frame(writer, *NAMES[0])
        with pytest.raises(KeyError, match=f'{NAMES[1][0]}/{NAMES[1][1]}'):
            writer.get(*NAMES[1])
        with pytest.raises(ValueError, match='other content'):
            writer.put(*NAMES[0], arrays_of(*NAMES[1]))
        with pytest.raises(ValueError, match='feat should be'):
            writer.put(*NAMES[1], {'feat': np.zeros((1, 1, 1), np.float16)})
        with pytest.raises(ValueError, match='inf or nan'):
            writer.put(*NAMES[1], {'clip_global': np.full(2, np.inf, np.float32)})
        with pytest.raises(ValueError, match='not a scene name'):
            writer.put('..', 'x', arrays_of(*NAMES[1]))
        put_all(writer, NAMES)
        writer.flush()
    store = open_store(path, STAMP)
    assert type(store) is FORMATS[format]
    assert store.stamp == STAMP
    assert list(store) == list(store.keys()) == KEYS
    assert len(store) == len(KEYS)
    with store:
        for scene, frame in NAMES:
            assert f'{scene}/{frame}' in store
            assert_frame(store, scene, frame)
    assert_frame(pickle.loads(pickle.dumps(store)), *NAMES[3])
    in_child(lambda: assert_frame(store, *NAMES[2]))
    with pytest.raises(KeyError, match='scene0009_00/00000'):
        store.get('scene0009_00', '00000')


@pytest.mark.parametrize('format', FORMATS)
def test_writers_of_several_ranks_make_one_store(tmp_path, format):
    path = tmp_path / 'store'
    write_store(path, format, NAMES[:4], rank=0)
    with create_writer(path, STAMP, format, rank=1) as writer:
        assert writer.has(*NAMES[0])
        assert_frame(writer, *NAMES[0])
        assert not writer.put(*NAMES[0], arrays_of(*NAMES[0]))
        put_all(writer, NAMES[4:])
    write_store(path, format)
    assert list(open_store(path)) == KEYS


@pytest.mark.parametrize('format', ['npz', 'h5'])
def test_stamp_and_format_are_kept_apart(tmp_path, format):
    path = write_store(tmp_path / 'store', format, NAMES[:1])
    other = replace(STAMP, mode='clip')
    for attempt in (
        lambda: open_store(path, other),
        lambda: create_writer(path, other, format),
    ):
        with pytest.raises(StampMismatchError, match="mode is 'tokens', expected 'clip'"):
            attempt()
    with pytest.raises(ValueError, match=f'format {format}, not lmdb'):
        create_writer(path, STAMP, 'lmdb')
    with pytest.raises(ValueError, match='use open_store'):
        FeatureStore(path)
    with pytest.raises(ValueError, match='only lmdb is verified'):
        verify_store(path)
    with pytest.raises(ValueError, match='not '):
        (NpzStore if format == 'h5' else H5Store)(path)


@pytest.mark.parametrize('format', ['npz', 'h5'])
def test_export_keeps_every_bit(tmp_path, format):
    source = write_store(tmp_path / 'store', 'lmdb')
    calls = []
    assert export_store(source, tmp_path / 'out', format, lambda: calls.append(1)) == len(NAMES)
    assert len(calls) == len(NAMES)
    assert export_store(source, tmp_path / 'out', format) == 0
    exported = open_store(tmp_path / 'out', STAMP)
    assert list(exported) == KEYS
    for scene, frame in NAMES:
        assert_frame(exported, scene, frame)
    with pytest.raises(ValueError, match="format 'csv': expected one of npz, h5"):
        export_store(source, tmp_path / 'csv', 'csv')


def test_files_are_what_other_programs_expect(tmp_path):
    expected = arrays_of(*NAMES[0])
    npz = write_store(tmp_path / 'npz', 'npz', NAMES[:1])
    with np.load(npz / 'scene0000_00' / '00000.npz') as content:
        np.testing.assert_array_equal(content['feat'], expected['feat'])
    h5 = write_store(tmp_path / 'h5', 'h5', NAMES[:1])
    with h5py.File(h5 / 'features.r0000.h5') as file:
        np.testing.assert_array_equal(file['scene0000_00/00000/feat'][:], expected['feat'])


@pytest.mark.parametrize('format', ['npz', 'h5'])
def test_flipped_byte_is_found(tmp_path, format):
    path = write_store(tmp_path / 'store', format, NAMES[:1])
    (file,) = [*path.glob('*/*.npz'), *path.glob('*.h5')]
    content = bytearray(file.read_bytes())
    content[content.index(arrays_of(*NAMES[0])['feat'].tobytes()) + 50] ^= 4
    file.write_bytes(content)
    with pytest.raises(ValueError, match='damaged'):
        open_store(path).get(*NAMES[0])


@pytest.mark.parametrize('format', ['npz', 'h5'])
def test_truncated_file_is_named(tmp_path, format):
    path = write_store(tmp_path / 'store', format, NAMES[:1])
    (file,) = [*path.glob('*/*.npz'), *path.glob('*.h5')]
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(ValueError, match=file.name):
        open_store(path).get(*NAMES[0])


def test_npz_with_pickled_objects_is_refused(tmp_path):
    path = write_store(tmp_path / 'store', 'npz', NAMES[:1])
    np.savez(path / 'scene0000_00' / '00000.npz', feat=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match='damaged'):
        open_store(path).get(*NAMES[0])
    with zipfile.ZipFile(path / 'scene0000_00' / '00000.npz', 'w') as archive:
        archive.writestr('x.npy', b'not an array')
    with pytest.raises(ValueError, match='damaged'):
        open_store(path).get(*NAMES[0])


def test_missing_h5_file_is_named(tmp_path):
    path = write_store(tmp_path / 'store', 'h5', NAMES[:1])
    (path / 'features.r0000.h5').unlink()
    with pytest.raises(FileNotFoundError, match='no such file'):
        open_store(path).get(*NAMES[0])


def test_h5_has_one_writer_per_file(tmp_path):
    path = tmp_path / 'store'
    with create_writer(path, STAMP, 'h5') as writer:
        with pytest.raises(StoreLockedError, match=f'process {os.getpid()}'):
            create_writer(path, STAMP, 'h5')
        with create_writer(path, STAMP, 'h5', rank=1) as second:  # the first file is left alone
            second.put(*NAMES[1], arrays_of(*NAMES[1]))
        writer.put(*NAMES[0], arrays_of(*NAMES[0]))
    assert len(open_store(path)) == 2
