"""The LMDB store in ordinary use: what was put comes back, through every way of reading."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from oneformer3d.store import (
    BatchCommit,
    FeatureStore,
    FeatureStoreWriter,
    StampMismatchError,
    merge_stores,
    read_manifest,
    verify_store,
)
from oneformer3d.store import writer as store_writer
from tests.helpers.store_samples import (
    BIG_STAMP,
    STAMP,
    answer_of,
    arrays_of,
    assert_frame,
    fork_child,
    frame_names,
    in_child,
    put_all,
)

NAMES = frame_names(3, 7)
KEYS = sorted(f'{scene}/{frame}' for scene, frame in NAMES)
RECORD_BYTES = 300  # head, safetensors header, two small arrays


def write_store(path, names=NAMES, rank=0, stamp=STAMP, **options):
    with FeatureStoreWriter(path, stamp, rank, **options) as writer:
        put_all(writer, names, stamp)
    return path


def test_frames_come_back(tmp_path):
    store = FeatureStore(write_store(tmp_path / 'store'), expected_stamp=STAMP)
    assert store.stamp == STAMP
    assert len(store) == len(NAMES)
    assert list(store.keys()) == list(store) == KEYS
    for scene, frame in NAMES:
        assert_frame(store, scene, frame)
        assert f'{scene}/{frame}' in store
    assert [key for key, _ in store.items()] == KEYS
    store.close()
    assert_frame(store, *NAMES[0])


def test_arrays_are_copies(tmp_path):
    store = FeatureStore(write_store(tmp_path / 'store'))
    store.get(*NAMES[0])['feat'][...] = 0
    assert_frame(store, *NAMES[0])


def test_missing_frame_is_a_key_error_that_names_it(tmp_path):
    store = FeatureStore(write_store(tmp_path / 'store'))
    with pytest.raises(KeyError, match='scene0000_00/99999'):
        store.get('scene0000_00', '99999')
    assert not store.has('scene0000_00', '99999')
    with pytest.raises(ValueError, match='not a scene name'):
        store.get('../scene', '0')


def test_map_of_varying_grid(tmp_path):
    stamp = replace(STAMP, grid=None, input_size=None)
    with FeatureStoreWriter(tmp_path / 'store', stamp) as writer:
        for width in range(1, 4):
            writer.put('s', str(width), {'feat': np.ones((4, 2, width), np.float16)})
    store = FeatureStore(tmp_path / 'store')
    assert [store.get('s', str(width))['feat'].shape[2] for width in range(1, 4)] == [1, 2, 3]


def test_no_store_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='not a feature store'):
        FeatureStore(tmp_path)
    with pytest.raises(ValueError, match='rank 10000'):
        FeatureStoreWriter(tmp_path / 'new', STAMP, rank=10000)
    assert not (tmp_path / 'new').exists()


def test_another_stamp_is_refused_by_reader_and_writer(tmp_path):
    path = write_store(tmp_path / 'store')
    before = sorted(os.listdir(path))
    other = replace(STAMP, encoder='RN50', channels=9)
    for attempt in (
        lambda: FeatureStore(path, other),
        lambda: FeatureStore(path, {'encoder': 'RN50', 'channels': 9}),
        lambda: FeatureStoreWriter(path, other, rank=1),
    ):
        with pytest.raises(StampMismatchError) as caught:
            attempt()
        assert "encoder is 'ViT-B-16', expected 'RN50'" in str(caught.value)
        assert 'channels is 4, expected 9' in str(caught.value)
        assert 'layer' not in str(caught.value)
    assert sorted(os.listdir(path)) == before


def test_a_shard_of_another_store_is_refused(tmp_path):
    path = write_store(tmp_path / 'store')
    other = write_store(tmp_path / 'other', stamp=replace(STAMP, layer='9'))
    (other / 'features.r0000.lmdb').replace(path / 'features.r0000.lmdb')
    with pytest.raises(StampMismatchError, match='another store'):
        FeatureStore(path).get(*NAMES[0])
    with pytest.raises(ValueError, match='another store'):
        FeatureStoreWriter(path, STAMP)
    assert 'another store' in verify_store(path)[0]


@pytest.mark.parametrize('num_writers', [1, 2, 3])
def test_number_of_writers_does_not_matter(tmp_path, num_writers):
    expected = FeatureStore(write_store(tmp_path / 'one')).checksums()
    path = tmp_path / 'store'
    children = [
        fork_child(lambda rank=rank: write_store(path, NAMES[rank::num_writers], rank))
        for rank in range(num_writers)
    ]
    for child in children:
        answer_of(*child)
    store = FeatureStore(path, STAMP)
    assert store.checksums() == expected
    assert list(store) == KEYS
    assert len(store) == len(KEYS)
    assert len(read_manifest(path).shards) == num_writers
    assert verify_store(path) == []
    for scene, frame in NAMES:
        assert_frame(store, scene, frame)


def test_writers_of_another_number_go_on(tmp_path):
    path = tmp_path / 'store'
    for rank in range(3):
        write_store(path, NAMES[rank:12:3], rank)
    with FeatureStoreWriter(path, STAMP, rank=0) as writer:
        todo = [name for name in NAMES if not writer.has(*name)]
        assert todo == NAMES[12:]
        put_all(writer, todo)
    assert FeatureStore(path).checksums() == FeatureStore(write_store(tmp_path / 'one')).checksums()


def test_identical_double_is_kept_and_another_refused(tmp_path):
    path = write_store(tmp_path / 'store', NAMES[:4], batch_commit=BatchCommit(records=2))
    with FeatureStoreWriter(path, STAMP, rank=1, batch_commit=BatchCommit(records=3)) as writer:
        assert writer.put(*NAMES[5], arrays_of(*NAMES[5]))  # waits
        for name in (NAMES[0], NAMES[5]):  # in the other shard, in the batch
            assert not writer.put(*name, arrays_of(*name))
            with pytest.raises(ValueError, match='with other content'):
                writer.put(*name, arrays_of(*NAMES[1]))
        writer.flush()
        assert not writer.put(*NAMES[5], arrays_of(*NAMES[5]))  # in its own shard
        with pytest.raises(ValueError, match=f'{NAMES[5][0]}/{NAMES[5][1]}.*other content'):
            writer.put(*NAMES[5], {'feat': arrays_of(*NAMES[5])['feat']})
    store = FeatureStore(path)
    assert len(store) == 5
    assert_frame(store, *NAMES[0])
    assert_frame(store, *NAMES[5])


def test_bad_arrays_are_refused_and_leave_nothing(tmp_path):
    with FeatureStoreWriter(tmp_path / 'store', STAMP) as writer:
        with pytest.raises(ValueError, match='s/f: feat: expected'):
            writer.put('s', 'f', {'feat': np.zeros((4, 3, 6), np.float16)})
        with pytest.raises(ValueError, match='inf or nan'):
            writer.put('s', 'f', {'clip_global': np.full(3, np.nan, np.float32)})
        assert not writer.has('s', 'f')
    assert len(FeatureStore(tmp_path / 'store')) == 0


@pytest.mark.parametrize(
    ('limits', 'committed'),
    [
        (BatchCommit(records=4), 8),
        (BatchCommit(records=100, num_bytes=3 * RECORD_BYTES), 9),
        (BatchCommit(records=100, seconds=4), 8),
        (BatchCommit(), 0),
    ],
)
def test_batches_end_by_count_size_and_age(tmp_path, monkeypatch, limits, committed):
    clock = iter(range(1000))
    monkeypatch.setattr(store_writer.time, 'monotonic', lambda: float(next(clock)))
    with FeatureStoreWriter(tmp_path / 'store', STAMP, batch_commit=limits) as writer:
        for name in NAMES[:10]:
            writer.put(*name, arrays_of(*name))
        assert in_child(lambda: len(FeatureStore(tmp_path / 'store'))) == committed
        assert all(writer.has(*name) for name in NAMES[:10])
        for name in NAMES[:10]:
            assert_frame(writer, *name)
    stats = FeatureStore(tmp_path / 'store').stats()
    assert (stats['records'], stats['record_bytes']) == (10, 10 * RECORD_BYTES)


def test_batch_limits_are_positive():
    with pytest.raises(ValueError, match='positive'):
        BatchCommit(records=0)


def test_map_grows_without_losing_anything(tmp_path):
    path = tmp_path / 'store'
    names = frame_names(2, 40)
    limits = BatchCommit(records=16)
    with FeatureStoreWriter(path, BIG_STAMP, batch_commit=limits, map_bytes=1 << 16) as writer:
        reader = FeatureStore(path)
        for count, name in enumerate(names):
            writer.put(*name, arrays_of(*name, BIG_STAMP))
            assert len(reader) == count + 1 - (count + 1) % 16
    assert (path / 'features.r0000.lmdb').stat().st_size > 10 << 16
    assert verify_store(path) == []
    for name in names:
        assert_frame(FeatureStore(path), *name, BIG_STAMP)


def test_reader_sees_writers_that_join_later(tmp_path):
    path = write_store(tmp_path / 'store', NAMES[:2])
    reader = FeatureStore(path)
    assert not reader.has(*NAMES[3])
    write_store(path, NAMES[3:4], rank=7)
    assert_frame(reader, *NAMES[3])
    assert len(reader) == 3


def test_readable_without_write_permission(tmp_path):
    path = write_store(tmp_path / 'store')
    for name in os.listdir(path):
        if name != 'manifest.json' and not name.endswith('.lmdb'):
            (path / name).unlink()
    before = sorted(os.listdir(path))
    assert len(FeatureStore(path).checksums()) == len(NAMES)
    assert verify_store(path) == []
    assert sorted(os.listdir(path)) == before


def test_stats_count_what_is_there(tmp_path):
    path = tmp_path / 'store'
    write_store(path, NAMES[:7])
    write_store(path, NAMES[6:], rank=1)  # the first of these is there
    stats = FeatureStore(path).stats()
    assert stats['records'] == len(NAMES)
    assert stats['scenes'] == {'scene0000_00': 7, 'scene0001_00': 7, 'scene0002_00': 7}
    assert stats['shapes'] == {
        'feat': {'float16 (4, 3, 5)': len(NAMES)},
        'clip_global': {'float32 (8,)': len(NAMES)},
    }
    assert [(shard['name'], shard['records']) for shard in stats['shards']] == [
        ('features.r0000.lmdb', 7),
        ('features.r0001.lmdb', 14),
    ]
    sizes = [os.path.getsize(path / shard['name']) for shard in stats['shards']]
    assert stats['file_bytes'] == sum(sizes)
    assert stats['record_bytes'] >= len(NAMES) * (4 * 3 * 5 * 2 + 8 * 4)


def test_merge_makes_one_shard(tmp_path):
    write_store(tmp_path / 'a', NAMES[:9], 0)
    write_store(tmp_path / 'a', NAMES[9:12], 3)
    write_store(tmp_path / 'b', NAMES[8:])
    sources = [tmp_path / 'a', tmp_path / 'b']
    assert merge_stores(sources, tmp_path / 'out') == len(NAMES)
    assert merge_stores(sources, tmp_path / 'out') == 0
    merged = FeatureStore(tmp_path / 'out', STAMP)
    assert merged.checksums() == FeatureStore(write_store(tmp_path / 'one')).checksums()
    assert read_manifest(tmp_path / 'out').shards == ('features.r0000.lmdb',)


def test_merge_refuses_other_stamps_other_content_and_itself(tmp_path):
    a = write_store(tmp_path / 'a', NAMES[:3])
    b = write_store(tmp_path / 'b', NAMES[:3], stamp=replace(STAMP, weights_digest='ffff'))
    with pytest.raises(StampMismatchError, match="weights_digest is 'ffff', expected '0123abcd'"):
        merge_stores([a, b], tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    with pytest.raises(ValueError, match='one of the stores'):
        merge_stores([a, b], b)
    with pytest.raises(ValueError, match='nothing to merge'):
        merge_stores([], tmp_path / 'out')
    with FeatureStoreWriter(tmp_path / 'c', STAMP) as writer:
        writer.put(*NAMES[1], arrays_of(*NAMES[2]))
    with pytest.raises(ValueError, match='scene0000_00/00001 is there with other content'):
        merge_stores([a, tmp_path / 'c'], tmp_path / 'out')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('{', 'not valid JSON'),
        ('[]', 'not the manifest'),
        ({'kind': 'x'}, 'not the manifest'),
        ({'format': 'zarr'}, "format 'zarr'"),
        ({'shards': ['../../etc/passwd']}, 'shards should be names'),
        ({'shards': ['features.r0000.lmdb'] * 2}, 'named twice'),
        ({'shards': 'features.r0000.lmdb'}, 'shards should be names'),
        ({'stamp': {}}, 'schema version None'),
    ],
)
def test_foreign_manifests_are_checked(tmp_path, change, message):
    path = write_store(tmp_path / 'store', NAMES[:1])
    text = (path / 'manifest.json').read_text()
    changed = change if isinstance(change, str) else json.dumps({**json.loads(text), **change})
    (path / 'manifest.json').write_text(changed)
    for attempt in (FeatureStore, verify_store):
        with pytest.raises(ValueError, match=f'manifest.json: .*{message}'):
            attempt(path)
