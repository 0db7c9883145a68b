"""The LMDB store when things break: killed writers, full disks, damaged files.

After each fault the same three things are asked: what was committed verifies, nothing is
silently wrong, and the next run ends with the same bytes as an undisturbed one.
"""

import ctypes
import os
import random
import re
import resource
import signal
import struct
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from oneformer3d.store import (
    BatchCommit,
    CorruptRecordError,
    FeatureStore,
    FeatureStoreWriter,
    StoreFullError,
    merge_stores,
    verify_store,
)
from tests.helpers.store_samples import (
    BIG_STAMP,
    arrays_of,
    assert_frame,
    fork_child,
    frame_names,
    in_child,
    put_all,
)

NAMES = frame_names(2, 30)
LIMITS = BatchCommit(records=7)
SHARD = 'features.r0000.lmdb'


def write_store(path, names=NAMES, limits=LIMITS, map_bytes=1 << 17) -> Path:
    """Write 8 KB records in batches of seven, growing the map twice."""
    with FeatureStoreWriter(path, BIG_STAMP, 0, limits, map_bytes) as writer:
        put_all(writer, names, BIG_STAMP)
    return path


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    return FeatureStore(write_store(tmp_path_factory.mktemp('clean') / 'store')).checksums()


def assert_next_run_completes(path, undisturbed) -> None:
    if (path / 'manifest.json').is_file():
        assert verify_store(path) == []
    write_store(path)
    assert verify_store(path) == []
    assert FeatureStore(path).checksums() == undisturbed


def test_kill_9_in_the_middle_of_writing(tmp_path, undisturbed):
    generator = random.Random(0)
    survived = []
    for run in range(8):
        path = tmp_path / f'run{run}'
        read_end, write_end = os.pipe()

        def write_and_tell(path=path, write_end=write_end):
            with FeatureStoreWriter(path, BIG_STAMP, 0, LIMITS, 1 << 17) as writer:
                for name in NAMES:
                    writer.put(*name, arrays_of(*name, BIG_STAMP))
                    os.write(write_end, b'.')
                time.sleep(10)

        child, answer_end = fork_child(write_and_tell)
        put, wanted = 0, 1 + run * (len(NAMES) - 1) // 8
        while put < wanted:  # another place in every run
            put += len(os.read(read_end, wanted - put))
        time.sleep(generator.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(write_end)
        while chunk := os.read(read_end, 4096):
            put += len(chunk)
        os.close(read_end)
        os.close(answer_end)
        kept = len(FeatureStore(path))
        # Every batch that was full before the kill is there, whole batches only, in order.
        assert put - put % LIMITS.records <= kept <= put + LIMITS.records
        assert kept % LIMITS.records == 0
        assert list(FeatureStore(path)) == [f'{scene}/{frame}' for scene, frame in NAMES[:kept]]
        survived.append(kept)
        assert_next_run_completes(path, undisturbed)
    assert len(set(survived)) > 1, 'every run was killed at the same place'


@contextmanager
def file_size_limit(num_bytes):
    """Writing beyond the limit fails as on a full disk: LMDB reports EIO."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_size_limit_is_an_error_and_the_batch_is_kept(tmp_path, undisturbed):
    path = tmp_path / 'store'
    with FeatureStoreWriter(path, BIG_STAMP, 0, LIMITS) as writer:
        with file_size_limit(300_000), pytest.raises(OSError, match='free') as caught:
            put_all(writer, NAMES, BIG_STAMP)
        assert 'limit of file size' in str(caught.value)
        assert SHARD in str(caught.value)
        committed = in_child(lambda: len(FeatureStore(path)))
        assert 0 < committed < len(NAMES)
        assert committed % LIMITS.records == 0
        writer.flush()  # the limit is gone, and no record either
        assert len(FeatureStore(path)) == committed + LIMITS.records
    assert_next_run_completes(path, undisturbed)


def test_nothing_free_is_told_as_no_space(tmp_path, monkeypatch, undisturbed):
    path = tmp_path / 'store'

    def statvfs_of_a_full_disk(folder):
        values = list(real(folder))
        values[4] = 0  # f_bavail
        return os.statvfs_result(values)

    real = os.statvfs
    writer = FeatureStoreWriter(path, BIG_STAMP, 0, LIMITS)
    with file_size_limit(300_000), monkeypatch.context() as patch:
        patch.setattr(os, 'statvfs', statvfs_of_a_full_disk)
        with pytest.raises(StoreFullError, match='no space left: 0 bytes free, 7 records'):
            put_all(writer, NAMES, BIG_STAMP)
        with pytest.raises(StoreFullError, match='what was committed is safe'):
            writer.close()
    assert_next_run_completes(path, undisturbed)


def test_really_full_disk(tmp_path, undisturbed):
    """A tmpfs of 400 KB in a mount namespace of the child's own; needs the rights for it."""
    folder = tmp_path / 'small'
    folder.mkdir()

    def fill():
        libc = ctypes.CDLL(None, use_errno=True)
        new_mount_namespace, recursive_private = 0x00020000, 0x4000 | 0x40000
        if (
            libc.unshare(new_mount_namespace)
            or libc.mount(b'none', b'/', None, recursive_private, None)
            or libc.mount(b'tmpfs', bytes(folder), b'tmpfs', 0, b'size=400k')
        ):
            return None
        try:
            write_store(folder / 'store')
        except StoreFullError as error:
            message = str(error)
        problems = verify_store(folder / 'store')
        kept = len(FeatureStore(folder / 'store'))
        assert libc.mount(b'tmpfs', bytes(folder), b'tmpfs', 0x20, b'size=4m') == 0  # remount
        write_store(folder / 'store')
        return message, problems, kept, FeatureStore(folder / 'store').checksums()

    answer = in_child(fill)
    if answer is None:
        pytest.skip('not allowed to mount a tmpfs')
    message, problems, kept, checksums = answer
    assert 'no space left' in message
    assert problems == []
    assert 0 < kept < len(NAMES)
    assert kept % LIMITS.records == 0
    assert checksums == undisturbed


def test_truncated_file_never_kills_the_reader(tmp_path):
    path = write_store(tmp_path / 'store', NAMES[:12])
    content = (path / SHARD).read_bytes()
    lengths = sorted({*range(0, len(content), 4096 * 3), 1, 4095, 8191, 8193, len(content) - 1})

    def read_everything():
        with FeatureStore(path) as store:
            for name in NAMES[:12]:
                assert_frame(store, *name, BIG_STAMP)

    def try_every_length():
        for length in lengths:
            (path / SHARD).write_bytes(content[:length])
            with pytest.raises(ValueError, match=SHARD):
                read_everything()
            with pytest.raises(ValueError, match=SHARD):
                FeatureStoreWriter(path, BIG_STAMP)
            assert verify_store(path), f'{length} bytes verified'

    in_child(try_every_length)  # which is not killed
    (path / SHARD).write_bytes(content)
    assert verify_store(path) == []


def test_truncated_while_open(tmp_path):
    path = write_store(tmp_path / 'store', NAMES[:12])

    def read_cut_read():
        store = FeatureStore(path)
        assert_frame(store, *NAMES[11], BIG_STAMP)
        os.truncate(path / SHARD, 4096 * 5)
        store.get(*NAMES[11])

    with pytest.raises(ValueError, match=r'truncated: 20480 bytes, \d+ needed'):
        in_child(read_cut_read)


def test_flipped_bytes_are_found(tmp_path):
    path = write_store(tmp_path / 'store', NAMES[:6])
    content = (path / SHARD).read_bytes()
    feat = arrays_of(*NAMES[3], BIG_STAMP)['feat'].tobytes()
    position = content.index(feat) + len(feat) // 2
    damaged = bytearray(content)
    damaged[position] ^= 0x10
    (path / SHARD).write_bytes(damaged)
    store = FeatureStore(path)
    with pytest.raises(CorruptRecordError, match=f'{SHARD}: scene0000_00/00003: the checksum'):
        store.get(*NAMES[3])
    assert_frame(store, *NAMES[2], BIG_STAMP)
    (problem,) = verify_store(path)
    assert 'scene0000_00/00003' in problem
    # A writer that would put the same frame again says what is wrong with the stored one.
    with (
        FeatureStoreWriter(path, BIG_STAMP) as writer,
        pytest.raises(CorruptRecordError, match='checksum'),
    ):
        writer.put(*NAMES[3], arrays_of(*NAMES[3], BIG_STAMP))
    # The way back: everything else into a new store, and the rest once more.
    with pytest.raises(CorruptRecordError):
        merge_stores([path], tmp_path / 'stopped')
    assert merge_stores([path], tmp_path / 'mended', skip_damaged=True) == 5
    write_store(tmp_path / 'mended', NAMES[:6])
    assert (
        FeatureStore(tmp_path / 'mended').checksums()
        == FeatureStore(write_store(tmp_path / 'clean', NAMES[:6])).checksums()
    )


def test_random_damage_is_an_error_or_changes_nothing(tmp_path):
    """Whatever passes verification can be read, and then every array is the right one."""
    path = write_store(tmp_path / 'store', NAMES[:10])
    content = (path / SHARD).read_bytes()

    def verify_then_read():
        if verify_store(path):
            return True
        with FeatureStore(path) as store:
            assert list(store) == [f'{scene}/{frame}' for scene, frame in NAMES[:10]]
            for name in NAMES[:10]:
                assert_frame(store, *name, BIG_STAMP)
        return False

    def damage_often():
        generator = random.Random(1)
        num_found = 0
        for _ in range(100):
            damaged = bytearray(content)
            for _ in range(generator.choice((1, 1, 8))):
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
            (path / SHARD).write_bytes(damaged)
            num_found += verify_then_read()
        return num_found

    assert in_child(damage_often) > 40


def tree_pages(content):
    """Numbers of the pages that hold the tree: meta, branch and leaf pages."""
    page_bytes = 4096
    for number in range(len(content) // page_bytes):
        own_number, _, flags = struct.unpack_from('<QHH', content, number * page_bytes)
        if own_number == number and flags in (1, 2, 8):
            yield number


def test_flips_in_the_tree_are_one_error_or_missing_frames_on_the_default_path(tmp_path):
    """Read as a training does, without ``verify`` before it: nobody dies, nothing is wrong."""
    path = write_store(tmp_path / 'store', NAMES[:10])
    content = (path / SHARD).read_bytes()
    used = [
        position
        for page in tree_pages(content)
        for position in range(page * 4096, (page + 1) * 4096)
        if content[position]
    ]

    def outcome():
        try:
            with FeatureStore(path) as store:
                for name in NAMES[:10]:
                    assert_frame(store, *name, BIG_STAMP)
        except KeyError:
            return 'missing'  # a key that was renamed: who reads compares with the infos
        except ValueError as error:
            return 'error' if SHARD in str(error) else str(error)
        return 'same'

    def flip_often():
        generator, found = random.Random(2), Counter()
        for _ in range(600):
            damaged = bytearray(content)
            damaged[generator.choice(used)] ^= 1 << generator.randrange(8)
            (path / SHARD).write_bytes(damaged)
            found[outcome()] += 1
        return found

    found = in_child(flip_often)  # which is not killed
    assert set(found) == {'same', 'error', 'missing'}
    assert found['error'] > 100
    assert found['missing'] < 60


def test_a_size_that_leads_out_of_the_file_is_one_error(tmp_path):
    """The flip that killed every reader: a value said to be larger than the file."""
    path = write_store(tmp_path / 'store', NAMES[:6])
    content = bytearray((path / SHARD).read_bytes())
    for key in re.finditer(b'scene0000_00/00003', content):
        if key.start() // 4096 in tree_pages(content):  # in pages of the past, too
            content[key.start() - 8 + 3] ^= 0x10  # the highest byte of the node's four for its size
    (path / SHARD).write_bytes(content)

    def read_and_join():
        store = FeatureStore(path)
        with pytest.raises(ValueError, match=f'{SHARD}: damaged: .*run the extraction again'):
            store.get(*NAMES[3])
        with pytest.raises(ValueError, match=f'{SHARD}: damaged: '):
            list(store)
        with pytest.raises(ValueError, match=f'{SHARD}: damaged: '):
            FeatureStoreWriter(path, BIG_STAMP)

    in_child(read_and_join)


def test_verify_names_every_fault_of_the_folder(tmp_path):
    path = write_store(tmp_path / 'store', NAMES[:3])
    with FeatureStoreWriter(path, BIG_STAMP, rank=1) as writer:
        put_all(writer, NAMES[3:5], BIG_STAMP)
    with FeatureStoreWriter(tmp_path / 'other', BIG_STAMP) as writer:
        writer.put(*NAMES[0], arrays_of(*NAMES[1], BIG_STAMP))
    (tmp_path / 'other' / SHARD).replace(path / 'features.r0001.lmdb')
    assert 'scene0000_00/00000 is in features.r0000.lmdb too' in verify_store(path)[0]
    (path / 'features.r0001.lmdb').replace(path / 'features.r0002.lmdb')
    problems = verify_store(path)
    assert any('features.r0002.lmdb: not in the manifest' in problem for problem in problems)
    assert any('features.r0001.lmdb: no such shard' in problem for problem in problems)
    with pytest.raises(FileNotFoundError, match='no such shard'):
        FeatureStore(path).get(*NAMES[0])
    with FeatureStoreWriter(path, BIG_STAMP, rank=1) as writer:  # made anew by its own writer
        put_all(writer, NAMES[3:5], BIG_STAMP)
    assert len(FeatureStore(path)) == 5


def test_not_an_lmdb_file(tmp_path):
    path = write_store(tmp_path / 'store', NAMES[:3])
    (path / SHARD).write_bytes(b'not a database, though long enough to be one' * 1000)
    with pytest.raises(ValueError, match=f'{SHARD}.*not an LMDB file'):
        FeatureStore(path).get(*NAMES[0])
    with pytest.raises(ValueError, match=f'{SHARD}.*not an LMDB file'):
        FeatureStoreWriter(path, BIG_STAMP)
    assert SHARD in verify_store(path)[0]


def test_error_inside_the_block_still_commits_what_was_put(tmp_path):
    def interrupted():
        with FeatureStoreWriter(tmp_path / 's', BIG_STAMP) as writer:
            put_all(writer, NAMES[:3], BIG_STAMP)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(FeatureStore(tmp_path / 's')) == 3
