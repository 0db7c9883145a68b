"""Writing in one go: each operation fails once, disks are full, processes are killed."""

import errno
import os
import signal
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch

from oneformer3d.data.infos import read_infos, write_infos
from oneformer3d.files import atomic
from oneformer3d.files.checkpoints import load_checkpoint_file, write_checkpoint
from oneformer3d.files.images import read_image, write_png


def infos(version):
    scene = {'scene_id': f'room{version}', 'lidar_points': {'lidar_path': 'a.bin'}}
    return {'data_list': [scene]}


# how a version of a file is written, and how it is told which version is there
WRITERS = {
    'infos.json': (
        lambda path, version: write_infos(path, infos(version)),
        lambda path: int(read_infos(path)['data_list'][0]['scene_id'][4:]),
    ),
    'weights.pth': (
        lambda path, version: write_checkpoint(path, {'a': torch.full((1000,), float(version))}),
        lambda path: int(load_checkpoint_file(path)['a'].unique().item()),
    ),
    'picture.png': (
        lambda path, version: write_png(path, np.full((40, 50, 3), version, np.uint8)),
        lambda path: int(np.unique(read_image(path, (40, 50))).item()),
    ),
    'result.bytes': (
        lambda path, version: atomic.atomic_write_bytes(path, bytes([version]) * 9000),
        lambda path: int(np.unique(np.frombuffer(path.read_bytes(), np.uint8)).item()),
    ),
}
OPERATIONS = ('open', 'fsync', 'replace')


class Nth:
    """Lets the n-th call of the operations fail, before or after it did its work."""

    def __init__(self, patch, nth, after):
        self.count, self.failed = 0, None
        for name in OPERATIONS:
            patch.setattr(atomic.os, name, self.wrap(name, getattr(os, name), nth, after))

    def wrap(self, name, real, nth, after):
        def call(*args, **kwargs):
            self.count += 1
            if self.count != nth:
                return real(*args, **kwargs)
            self.failed = name
            if after and name != 'open':
                real(*args, **kwargs)
            raise OSError(errno.EIO, 'injected')

        return call


@pytest.mark.parametrize('after', [False, True])
@pytest.mark.parametrize('name', WRITERS)
def test_each_operation_in_turn_fails(tmp_path, monkeypatch, name, after):
    """Old or new, never half; nothing else is left; the next try succeeds."""
    write, version_of = WRITERS[name]
    path, failed = tmp_path / name, []
    for nth in range(1, 50):
        write(path, 1)
        with monkeypatch.context() as patch:
            faults = Nth(patch, nth, after)
            with suppress(OSError):
                write(path, 2)
        assert version_of(path) in (1, 2)
        assert [entry.name for entry in tmp_path.iterdir()] == [name]
        if faults.failed is None:
            break
        failed.append(faults.failed)
        write(path, 3)
        assert version_of(path) == 3
    assert version_of(path) == 2
    assert set(failed) == set(OPERATIONS)


@pytest.mark.parametrize('name', WRITERS)
def test_a_full_disk_is_told_with_the_path(tmp_path, name):
    """``/dev/full`` behind the temporary file: every byte written is ENOSPC."""
    write, version_of = WRITERS[name]
    path = tmp_path / name
    write(path, 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, '_owned_name', lambda: 'full')
        (tmp_path / f'.{path.stem}.full.tmp{path.suffix}').symlink_to('/dev/full')
        with pytest.raises(OSError, match=r'No space left on device') as caught:
            write(path, 2)
    assert str(path) in str(caught.value)
    assert version_of(path) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_what_a_killed_process_left_is_swept_by_the_next_and_nothing_else(tmp_path):
    code = (
        'import os, signal, sys\n'
        'from oneformer3d.files.atomic import atomic_path, temporary_folder\n'
        'with atomic_path(sys.argv[1] + "/a.json") as one, '
        'temporary_folder(sys.argv[1], "room") as two:\n'
        '    one.write_text("half"), (two / "image.png").write_text("half")\n'
        '    os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    result = subprocess.run([sys.executable, '-c', code, str(tmp_path)], check=False)
    assert result.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2

    # a live process', another machine's, and a user's own hidden file
    dead = next(tmp_path.glob('.a.*')).name
    realm = dead.split('.')[2].split('-')[0]
    kept = [f'.b.{realm}-{os.getpid()}-00000000.tmp.json', dead.replace(realm, '0' * 8), '.hidden']
    for name in kept:
        (tmp_path / name).write_text('')
    atomic.atomic_write_bytes(tmp_path / 'b.json', b'whole')
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, 'b.json'])
