"""The LMDB store among forked, spawned and killed processes, and among threads."""

import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor

import lmdb
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from oneformer3d.store import (
    BatchCommit,
    FeatureStore,
    FeatureStoreWriter,
    StoreLockedError,
    verify_store,
)
from oneformer3d.store.manifest import join_manifest, read_manifest, shard_name
from oneformer3d.store.shard import shard_file
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


def write_store(path, names=NAMES, rank=0, stamp=STAMP, **options):
    with FeatureStoreWriter(path, stamp, rank, **options) as writer:
        put_all(writer, names, stamp)
    return path


def test_double_of_two_writers_at_once_counts_once(tmp_path):
    path = tmp_path / 'store'
    with FeatureStoreWriter(path, STAMP) as one, FeatureStoreWriter(path, STAMP, 1) as other:
        put_all(one, NAMES[:12])
        put_all(other, NAMES[8:])  # neither sees what waits in the other
    store = FeatureStore(path)
    assert sum(shard['records'] for shard in store.stats()['shards']) == len(NAMES) + 4
    assert list(store) == [key for key, _ in store.items()] == list(store.checksums()) == KEYS
    assert len(store) == store.stats()['records'] == len(KEYS)
    assert verify_store(path) == []


def test_reader_follows_a_map_that_another_process_grows(tmp_path):
    path = write_store(tmp_path / 'store', NAMES[:1], stamp=BIG_STAMP, map_bytes=1 << 16)
    go_read, go_write = os.pipe()

    def write_when_told():
        os.read(go_read, 1)
        write_store(path, frame_names(1, 100), stamp=BIG_STAMP)

    child = fork_child(write_when_told)  # before the reader opens: a fork closes its handle
    reader = FeatureStore(path)
    assert len(reader) == 1
    os.write(go_write, b'.')
    answer_of(*child)
    os.close(go_read)
    os.close(go_write)
    assert len(reader) == 100
    assert_frame(reader, 'scene0000_00', '00099', BIG_STAMP)


def test_two_writers_on_one_shard(tmp_path):
    path = write_store(tmp_path / 'store', NAMES[:3])
    with FeatureStoreWriter(path, STAMP) as writer:
        with pytest.raises(StoreLockedError, match=f'process {os.getpid()}'):
            FeatureStoreWriter(path, STAMP)
        with pytest.raises(StoreLockedError, match=f'process {os.getpid()} on '):
            in_child(lambda: FeatureStoreWriter(path, STAMP) and None)
        assert 'being written by' in verify_store(path)[0]
        assert f'process {os.getpid()}' in in_child(lambda: verify_store(path))[0]
        put_all(writer, NAMES)
    # The failed attempts must not have loosened the first one's lock, nor kept one of theirs.
    assert len(FeatureStore(write_store(path))) == len(NAMES)


def test_lock_of_a_dead_writer_is_gone(tmp_path):
    def die():
        writer = FeatureStoreWriter(tmp_path / 'store', STAMP)
        put_all(writer, NAMES[:2])
        writer.flush()
        os.kill(os.getpid(), 9)

    with pytest.raises(ChildProcessError, match='SIGKILL'):
        in_child(die)
    assert len(FeatureStore(write_store(tmp_path / 'store'))) == len(NAMES)


def _reads_without_a_lock(path):
    num_records = len(FeatureStore(path))
    flags = shard_file(path / 'features.r0000.lmdb')._env.flags()
    return num_records, flags['readonly'] and not flags['lock']


def test_closed_writer_and_writer_in_a_child_are_refused(tmp_path):
    writer = FeatureStoreWriter(tmp_path / 'store', STAMP)
    put_all(writer, NAMES[:2])
    with pytest.raises(RuntimeError, match=f'process {os.getpid()}'):
        in_child(lambda: writer.put(*NAMES[2], arrays_of(*NAMES[2])))
    assert in_child(lambda: _reads_without_a_lock(writer.path)) == (0, True)
    in_child(writer.close)  # as at the end of a child; the parent's batch stays its own
    put_all(writer, NAMES[2:4])
    writer.close()
    writer.close()
    assert len(FeatureStore(tmp_path / 'store')) == 4
    with pytest.raises(RuntimeError, match='closed'):
        writer.put(*NAMES[2], arrays_of(*NAMES[2]))


class StoredFrames(Dataset):
    def __init__(self, path):
        self.store = FeatureStore(path)

    def __len__(self):
        return len(NAMES)

    def __getitem__(self, index):
        assert_frame(self.store, *NAMES[index])
        return os.getpid(), self.store.get(*NAMES[index])['feat'].astype(np.float32)


def test_forked_data_loader_workers(tmp_path):
    dataset = StoredFrames(write_store(tmp_path / 'store', NAMES))
    second = FeatureStore(tmp_path / 'store')  # as a validation set beside a training set
    assert_frame(second, *NAMES[0])
    dataset[0]
    with FeatureStoreWriter(tmp_path / 'store', STAMP) as writer:
        put_all(writer, frame_names(4, 1)[3:])  # and a batch waiting
        loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context='fork')
        for _ in range(2):
            batches = list(loader)
            workers = {int(process) for processes, _ in batches for process in processes}
            assert len(workers) == 2
            assert os.getpid() not in workers
            features = np.concatenate([features.numpy() for _, features in batches])
            expected = np.stack([arrays_of(*name)['feat'] for name in NAMES])
            np.testing.assert_array_equal(features, expected)
            dataset[0]
    assert len(second) == len(NAMES) + 1


def test_handles_are_not_pickled(tmp_path):
    store = FeatureStore(write_store(tmp_path / 'store'))
    store.get(*NAMES[0])
    assert_frame(pickle.loads(pickle.dumps(store)), *NAMES[1])


def _read_one(store):
    assert_frame(store, *NAMES[2])
    return len(store)


@pytest.mark.slow
def test_spawned_process(tmp_path):
    store = FeatureStore(write_store(tmp_path / 'store'))
    store.get(*NAMES[0])
    spawn = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:  # tells if its process dies
        assert pool.submit(_read_one, store).result() == len(NAMES)


def test_threads_read_while_one_writes(tmp_path):
    path = write_store(tmp_path / 'store')
    store, faults = FeatureStore(path), []

    def read(seed):
        generator = np.random.default_rng(seed)
        try:
            for index in generator.integers(0, len(NAMES), 100):
                assert_frame(store, *NAMES[index])
        except Exception as error:  # noqa: BLE001 (the main thread must know)
            faults.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    limits = BatchCommit(records=2)
    with FeatureStoreWriter(path, STAMP, batch_commit=limits, map_bytes=1 << 16) as writer:
        for thread in threads:
            thread.start()
        put_all(writer, frame_names(10, 20))
        for thread in threads:
            thread.join()
    assert faults == []
    assert len(store) == 200


def test_forks_while_threads_read_and_write(tmp_path):
    path, names = tmp_path / 'store', frame_names(6, 20)
    write_store(path, [], rank=1)
    done, faults = threading.Event(), []

    def read():
        try:
            while not done.is_set():
                for name in names[::7]:
                    if FeatureStore(path).has(*name):
                        assert_frame(FeatureStore(path), *name)
        except Exception as error:  # noqa: BLE001 (the main thread must know)
            faults.append(error)

    def read_once():
        found = [name for name in names[::7] if FeatureStore(path).has(*name)]
        for name in found:
            assert_frame(FeatureStore(path), *name)
        return len(found)

    limits = BatchCommit(records=3)
    writer = threading.Thread(target=lambda: write_store(path, names, batch_commit=limits))
    reader = threading.Thread(target=read)
    reader.start()
    writer.start()
    counts = []
    while writer.is_alive():
        counts.append(in_child(read_once))
    done.set()
    reader.join()
    writer.join()
    assert faults == []
    assert counts == sorted(counts)
    assert in_child(read_once) == len(names[::7])
    assert len(FeatureStore(path)) == len(names)
    assert verify_store(path) == []


def test_writer_spares_the_pages_of_older_readers(tmp_path):
    """Readers take no locks, so without the writer's own pin these pages would be reused."""
    path = write_store(tmp_path / 'store', frame_names(2, 20))
    limits = BatchCommit(records=1)
    with FeatureStoreWriter(path, STAMP, batch_commit=limits) as writer:
        put_all(writer, [('a', '0')])
        go_read, go_write = os.pipe()
        seen_read, seen_write = os.pipe()

        def look_twice():
            env = lmdb.open(
                str(path / 'features.r0000.lmdb'), subdir=False, readonly=True, lock=False
            )
            with env.begin() as transaction:
                first = len(list(transaction.cursor()))
                os.write(seen_write, b'1')
                os.read(go_read, 1)
                values = [(bytes(k), bytes(v)) for k, v in transaction.cursor()]
            env.close()
            return first, values

        child = fork_child(look_twice)
        os.read(seen_read, 1)
        put_all(writer, frame_names(3, 40))
        os.write(go_write, b'1')
        first, values = answer_of(*child)
        for end in (go_read, go_write, seen_read, seen_write):
            os.close(end)
    assert first == 42
    assert [key for key, _ in values] == sorted(
        [b'!stamp', b'a/0', *(f'{s}/{f}'.encode() for s, f in frame_names(2, 20))]
    )


def test_file_replaced_under_an_open_handle(tmp_path):
    path = write_store(tmp_path / 'store', NAMES[:3])
    store = FeatureStore(path)
    assert len(store) == 3
    write_store(tmp_path / 'other', NAMES)
    (tmp_path / 'other' / 'features.r0000.lmdb').replace(path / 'features.r0000.lmdb')
    assert len(store) == len(NAMES)
    (path / 'features.r0000.lmdb').unlink()
    with pytest.raises(FileNotFoundError, match='no such shard'):
        store.get(*NAMES[0])


def test_many_writers_join_at_once(tmp_path):
    def join_some(first):
        for rank in range(first, first + 6):
            join_manifest(tmp_path, STAMP, shard_name(rank))

    children = [fork_child(lambda first=first: join_some(first)) for first in range(0, 36, 6)]
    for child in children:
        answer_of(*child)
    assert sorted(read_manifest(tmp_path).shards) == [shard_name(rank) for rank in range(36)]
