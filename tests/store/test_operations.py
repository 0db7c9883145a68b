"""Every operation of the LMDB store fails once: nothing is lost that was committed."""

import errno
import os
from pathlib import Path

import lmdb
import pytest

from oneformer3d.store import BatchCommit, FeatureStore, FeatureStoreWriter, verify_store
from oneformer3d.store import shard as store_shard
from tests.helpers.store_samples import BIG_STAMP, frame_names, put_all

NAMES = frame_names(1, 10)
LIMITS = BatchCommit(records=7)
SHARD = 'features.r0000.lmdb'


def write_store(path, names=NAMES, limits=LIMITS, map_bytes=1 << 16) -> Path:
    """Write 8 KB records in batches of seven, which the map must grow for."""
    with FeatureStoreWriter(path, BIG_STAMP, 0, limits, map_bytes) as writer:
        put_all(writer, names, BIG_STAMP)
    return path


def lmdb_error(what: str, code: int) -> lmdb.Error:
    error = lmdb.Error(f'injected into {what}')
    error.code = code  # as LMDB's own errors have it
    return error


class Faults:
    """Counts operations and lets one of them fail, before or after it was done."""

    def __init__(self, nth: int, after: bool) -> None:
        self.nth, self.after, self.count, self.what = nth, after, 0, ''

    def call(self, what, function, error, *args, **kwargs):
        self.count += 1
        if self.count != self.nth:
            return function(*args, **kwargs)
        if self.after:
            try:
                function(*args, **kwargs)
            except lmdb.MapFullError:
                self.nth += 1  # it failed by itself: the next one then
                raise
        self.what = what
        raise error

    def wrap_os(self, patch, name):
        real = getattr(os, name)
        error = OSError(errno.EIO, f'injected into os.{name}')
        patch.setattr(os, name, lambda *a, **k: self.call(f'os.{name}', real, error, *a, **k))


class FaultyTransaction:
    def __init__(self, faults, transaction, environment):
        self.faults, self.transaction, self.environment = faults, transaction, environment

    def put(self, *args):
        error = lmdb_error('put', errno.EIO)
        return self.faults.call('put', self.transaction.put, error, *args)

    def __enter__(self):
        return self

    def __exit__(self, exc_type, *_):
        if exc_type is not None:
            self.transaction.abort()
            return
        error = lmdb_error('commit', errno.EIO)
        try:
            self.faults.call('commit', self.transaction.commit, error)
        except lmdb.Error:
            self.environment.panicked = True
            raise
        finally:
            self.transaction.abort()  # nothing after a commit


class FaultyEnvironment:
    def __init__(self, faults, environment):
        self.faults, self.environment, self.panicked = faults, environment, False

    def begin(self, write=False, **options):
        if not write:
            return self.environment.begin(**options)
        if self.panicked:
            # As LMDB does when it could not write its first pages: only reopening helps.
            raise lmdb_error('panic', -30795)
        error = lmdb_error('begin', errno.EIO)
        begun = self.faults.call('begin', self.environment.begin, error, write=True, **options)
        return FaultyTransaction(self.faults, begun, self)

    def set_mapsize(self, num_bytes):
        error = lmdb_error('set_mapsize', errno.ENOMEM)
        self.faults.call('set_mapsize', self.environment.set_mapsize, error, num_bytes)

    def __getattr__(self, name):
        return getattr(self.environment, name)


def faulty_open(faults):
    open_really = lmdb.open

    def open_faulty(*args, **options):
        error = lmdb_error('open', errno.EIO)
        opened = []
        try:
            faults.call('open', lambda: opened.append(open_really(*args, **options)), error)
        except lmdb.Error:
            for environment in opened:
                environment.close()
            raise
        return FaultyEnvironment(faults, opened[0])

    return open_faulty


def write_with_fault(path, nth, after, monkeypatch) -> Faults:
    faults = Faults(nth, after)
    with monkeypatch.context() as patch:
        patch.setattr(store_shard.lmdb, 'open', faulty_open(faults))
        for name in ('open', 'fsync', 'replace', 'pwrite', 'ftruncate'):
            faults.wrap_os(patch, name)
        try:
            write_store(path)
            said = None
        except OSError as error:
            said = str(error)
    assert (said is not None) == bool(faults.what), f'{faults.what} failed, told: {said}'
    assert said is None or 'injected' in said
    store_shard.shard_file(path / SHARD).reset()
    return faults


@pytest.mark.parametrize('after', [False, True], ids=['undone', 'done'])
def test_each_operation_in_turn_fails(tmp_path, monkeypatch, after):
    """As SQLite tests itself: the Nth operation fails, for every N until a run succeeds."""
    undisturbed = FeatureStore(write_store(tmp_path / 'clean')).checksums()
    failed = set()
    for nth in range(1, 200):
        path = tmp_path / str(nth)
        faults = write_with_fault(path, nth, after, monkeypatch)
        if not faults.what:
            break
        failed.add(faults.what)
        if (path / 'manifest.json').is_file():
            assert verify_store(path) == []
            assert len(FeatureStore(path)) % LIMITS.records in (0, len(NAMES) % LIMITS.records)
        write_store(path)
        assert verify_store(path) == []
        assert FeatureStore(path).checksums() == undisturbed
    else:
        pytest.fail('no run succeeded')
    assert failed >= {
        'open', 'begin', 'put', 'commit', 'set_mapsize', 'os.open', 'os.fsync', 'os.replace',
    }  # fmt: skip


@pytest.mark.parametrize('after', [False, True], ids=['undone', 'done'])
def test_writer_goes_on_after_a_failed_commit(tmp_path, monkeypatch, after):
    path = tmp_path / 'store'
    faults = Faults(nth=-1, after=after)
    monkeypatch.setattr(store_shard.lmdb, 'open', faulty_open(faults))
    with FeatureStoreWriter(path, BIG_STAMP, 0, LIMITS) as writer:
        put_all(writer, NAMES[:6], BIG_STAMP)
        faults.nth = faults.count + 1 + 6 + 1  # begin, six records, commit
        with pytest.raises(OSError, match='injected into commit'):
            writer.flush()
        writer.flush()
        put_all(writer, NAMES[6:9], BIG_STAMP)
    assert len(FeatureStore(path)) == 9
    assert verify_store(path) == []
