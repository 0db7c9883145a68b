"""Pickles that ask for more than their length is worth, and real ones, which cost little."""

import io
import pickle
import resource
import subprocess
import sys
import zipfile
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
import torch

from oneformer3d.files.checkpoints import load_checkpoint_file, read_checkpoint
from oneformer3d.files.restricted_pickle import load_plain_pickle

HUGE = 3 * 10**9


class Call:
    """Is pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.arguments = (function, arguments)

    def __reduce__(self):
        return self.arguments


def nested(make, depth=60):
    """Something of which each level holds the one below twice."""
    value = make(())
    for _ in range(depth):
        value = make((value, value))
    return value


def filled_from_the_top(depth=60):
    """The same of lists that are empty when they are put into each other."""
    lists = [[] for _ in range(depth)]
    whole = [lists]
    for above, below in pairwise(lists):
        above += [below, below]
    return pickle.dumps(whole)


def long_integer(bits):
    return b'\x8a' + bytes([bits // 8 + 1]) + (1 << bits).to_bytes(bits // 8 + 1, 'little')


# each asks for gigabytes, or for hours
BOMBS = {
    'memo index': b'Nr\xff\xff\xff\x7f.',
    'memo index as text': b'Np1999999999\n.',
    'bytes announced': b'\x80\x04\x8e' + HUGE.to_bytes(8, 'little') + b'x.',
    'bytearray announced': b'\x80\x05\x96' + HUGE.to_bytes(8, 'little') + b'x.',
    'text announced': b'\x80\x04\x8d' + HUGE.to_bytes(8, 'little') + b'x.',
    'frame announced': b'\x80\x04\x95' + HUGE.to_bytes(8, 'little') + b'N.',
    'bytearray of a number': pickle.dumps(Call(bytearray, HUGE)),
    'lists': pickle.dumps(nested(list)),
    'lists filled late': filled_from_the_top(),
    'tuples': pickle.dumps(nested(tuple)),
    'colliding integers': b''.join(
        [b'\x80\x02}(', *[long_integer(61 + k % 1900) + b'N' for k in range(3000)], b'u.']
    ),
    'one text, many copies': b'\x80\x02]q\x00(X' + (10**6).to_bytes(4, 'little') + b'a' * 10**6
    + b'q\x01c_codecs\nencode\nq\x02' + b'h\x02h\x01U\x06latin1\x86R' * 20000 + b'e.',
    'deep': b']' * 200_000 + b'a' * 199_999 + b'.',
    # made by hand: to pickle such a key would take its hash
    'hash of tuples': b'\x80\x02})q\x01' + b'\x86q\x01'.join([b'h\x01h\x01'] * 60) + b'\x86Ns.',
}  # fmt: skip


@pytest.mark.parametrize('name', BOMBS)
def test_bombs_are_one_error_at_once(tmp_path, name):
    """In a process with 1 GB to spare, within seconds."""
    path = tmp_path / 'infos.pkl'
    path.write_bytes(BOMBS[name])
    code = (
        'import resource, sys\n'
        'from oneformer3d.files.restricted_pickle import load_plain_pickle\n'
        'used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()\n'
        'resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)\n'
        'resource.setrlimit(resource.RLIMIT_CPU, (20, 20))\n'
        'try:\n'
        '    load_plain_pickle(sys.argv[1])\n'
        'except ValueError as error:\n'
        '    print(error)\n'
    )
    result = subprocess.run(
        [sys.executable, '-c', code, str(path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-500:]
    (line,) = result.stdout.splitlines()
    assert line.startswith(f'{path}: not a pickle of plain data: ')
    assert len(line) < 500
    assert 'MemoryError' not in line


@pytest.mark.parametrize('protocol', range(6))
def test_real_infos_cost_little(tmp_path, protocol):
    """They are read, shared parts and all."""
    shared = np.eye(4).tolist()
    images = [
        {'img_path': f'{i}.jpg', 'cam2img': shared, 'lidar2cam': np.eye(4)} for i in range(99)
    ]
    infos = {'metainfo': {1: (2.5, None, True)}, 'data_list': [{'images': images}] * 3}
    content = pickle.dumps(infos, protocol=protocol)
    (tmp_path / 'a.pkl').write_bytes(content)

    read = load_plain_pickle(tmp_path / 'a.pkl')
    assert read['metainfo'] == infos['metainfo']
    image = read['data_list'][2]['images'][98]
    assert image['cam2img'] == shared
    np.testing.assert_array_equal(image['lidar2cam'], np.eye(4))
    image['lidar2cam'][0, 0] = 7  # arrays are one's own


def test_mutations_end_well(tmp_path):
    """Any byte of real infos changed: read or refused in little memory."""
    content = pickle.dumps({'a': [np.eye(3), 'text', 2**70, (1, 2.5)], 'b': {frozenset({3}), b'x'}})
    rng, path = np.random.default_rng(0), tmp_path / 'a.pkl'
    for _ in range(2000):
        changed = bytearray(content)
        for place in rng.integers(len(content), size=rng.integers(1, 4)):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        with suppress(ValueError):
            load_plain_pickle(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20


def in_archive(program, compression=zipfile.ZIP_STORED, storage=bytes(4)):
    """A file as torch.save writes it, with another program."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as archive:
        archive.writestr('a/data.pkl', program)
        archive.writestr('a/byteorder', 'little')
        archive.writestr('a/data/0', storage)
        archive.writestr('a/version', '3\n')
    return buffer.getvalue()


def of_torch(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


PROGRAM = zipfile.ZipFile(io.BytesIO(of_torch({'w': torch.zeros(1)}))).read('archive/data.pkl')
CHECKPOINTS = {
    'bytearray of a number': in_archive(
        b'\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.'
    ),
    'tensor of a number': in_archive(b'\x80\x02ctorch\nTensor\n\x8a\x05\x00^\xd0\xb2\x00\x85R.'),
    'hash of tuples': in_archive(BOMBS['hash of tuples']),
    'hash of tuples, old format': BOMBS['hash of tuples'],
    'a number that fills the memory': of_torch({'w': torch.zeros(1).expand(10**10)}),
    'overlapping rows': of_torch({'w': torch.zeros(2 * 10**5).as_strided((10**5, 10**5), (1, 1))}),
    'compressed zeros': in_archive(PROGRAM, zipfile.ZIP_DEFLATED, bytes(10**7)),
    'deep': in_archive(BOMBS['deep']),
}


@pytest.mark.parametrize('name', CHECKPOINTS)
def test_checkpoints_that_are_bombs_are_one_error_at_once(tmp_path, name):
    path = tmp_path / 'a.pth'
    path.write_bytes(CHECKPOINTS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r'a\.pth: ') as caught:
        load_checkpoint_file(path)
    assert '\n' not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB


def test_tied_and_empty_weights_are_no_bombs(tmp_path):
    tied = torch.randn(100, 100)
    content = {f'{i}.weight': tied for i in range(50)} | {'empty': torch.ones(0)}
    for zipped in (True, False):
        torch.save(
            {'state_dict': content}, tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped
        )
        assert len(load_checkpoint_file(tmp_path / 'a.pth')) == 51
        assert set(read_checkpoint(tmp_path / 'a.pth')) == {'state_dict'}
