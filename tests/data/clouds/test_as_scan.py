"""Point-cloud files: values known by construction, files written by other libraries or by hand."""

import logging
import struct
from pathlib import Path

import numpy as np
import plyfile
import pytest
import trimesh
from mmengine.logging import MMLogger

from oneformer3d.data.clouds.as_scan import as_point_cloud, read_point_cloud
from oneformer3d.data.fuse_rgbd import fuse_posed_rgbd
from oneformer3d.data.posed_rgbd import load_posed_rgbd
from oneformer3d.files.pcd import lzf_decompress

XYZ = np.array([[0.5, 1.0, -2.0], [3.0, 4.25, 5.0], [-1.0, 0.0, 0.125]], dtype=np.float32)
RGB = np.array([[255, 0, 7], [1, 2, 3], [128, 64, 200]], dtype=np.uint8)
CLOUD = np.concatenate([XYZ, RGB], axis=1).astype(np.float32)


@pytest.fixture
def warnings_seen(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Messages of the package's logger, which does not propagate by itself."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.WARNING)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize('encoding', ['ascii', 'binary'])
def test_ply_mesh_written_by_trimesh(tmp_path: Path, encoding: str) -> None:
    mesh = trimesh.Trimesh(XYZ, [[0, 1, 2]], process=False)
    mesh.visual.vertex_colors = np.concatenate([RGB, np.full((3, 1), 255, np.uint8)], axis=1)
    mesh.export(tmp_path / 'mesh.ply', encoding=encoding)
    np.testing.assert_array_equal(read_point_cloud(tmp_path / 'mesh.ply'), CLOUD)


def test_ply_with_quads_and_big_endian(tmp_path: Path) -> None:
    header = (
        'ply\nformat binary_big_endian 1.0\nelement face 1\nproperty list uchar int vertex_indices'
        '\nelement vertex 3\nproperty double x\nproperty double y\nproperty double z\nend_header\n'
    )
    body = struct.pack('>B4i', 4, 0, 1, 2, 0) + XYZ.astype('>f8').tobytes()
    (tmp_path / 'q.ply').write_bytes(header.encode() + body)
    points = read_point_cloud(tmp_path / 'q.ply')
    np.testing.assert_array_equal(points[:, :3], XYZ)


@pytest.mark.parametrize(
    ('dtype', 'stored'),
    [('u1', RGB), ('u2', RGB.astype(np.uint16) * 257), ('f4', RGB / 255.0), ('f4', RGB)],
)
def test_ply_color_scales(tmp_path: Path, dtype: str, stored: np.ndarray) -> None:
    _write_ply(tmp_path / 'c.ply', stored.astype(dtype))
    points = read_point_cloud(tmp_path / 'c.ply')
    np.testing.assert_allclose(points, CLOUD, atol=1e-4)


def test_dark_bytes_are_not_taken_for_fractions(tmp_path: Path) -> None:
    _write_ply(tmp_path / 'c.ply', np.ones((3, 3), np.uint8))
    assert read_point_cloud(tmp_path / 'c.ply')[:, 3:].max() == 1


def test_no_colors_become_grey(tmp_path: Path, warnings_seen) -> None:
    _write_ply(tmp_path / 'c.ply', None)
    points = read_point_cloud(tmp_path / 'c.ply')
    assert (points[:, 3:] == 127).all()
    assert 'no colours' in warnings_seen.text


def test_bin_and_npy(tmp_path: Path) -> None:
    CLOUD.tofile(tmp_path / 'a.bin')
    np.save(tmp_path / 'a.npy', CLOUD.astype(np.float64))
    np.save(tmp_path / 'xyz.npy', XYZ)
    np.testing.assert_array_equal(read_point_cloud(tmp_path / 'a.bin'), CLOUD)
    np.testing.assert_array_equal(read_point_cloud(tmp_path / 'a.npy'), CLOUD)
    assert (read_point_cloud(tmp_path / 'xyz.npy')[:, 3:] == 127).all()


def test_points_that_are_not_finite_are_dropped_and_counted(tmp_path: Path, warnings_seen) -> None:
    broken = np.concatenate([CLOUD, CLOUD, CLOUD])
    broken[1, 0], broken[4, 2], broken[7, 5] = np.nan, -np.inf, np.nan
    broken.tofile(tmp_path / 'a.bin')
    points = read_point_cloud(tmp_path / 'a.bin')
    np.testing.assert_array_equal(points, broken[[0, 2, 3, 5, 6, 8]])
    assert 'dropped 3 of 9 points' in warnings_seen.text


@pytest.mark.parametrize('rgb_type', ['F', 'U'])
@pytest.mark.parametrize('data', ['ascii', 'binary', 'binary_compressed'])
def test_pcd(tmp_path: Path, data: str, rgb_type: str) -> None:
    path = tmp_path / 'c.pcd'
    path.write_bytes(_pcd(data, rgb_type))
    np.testing.assert_array_equal(read_point_cloud(path), CLOUD)


def test_pcd_without_color(tmp_path: Path) -> None:
    lines = '\n'.join(' '.join(map(str, row)) for row in XYZ.tolist())
    header = 'FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 3\nHEIGHT 1\nDATA ascii\n'
    (tmp_path / 'c.pcd').write_text('# .PCD v0.7\n' + header + lines)
    np.testing.assert_array_equal(read_point_cloud(tmp_path / 'c.pcd')[:, :3], XYZ)


@pytest.mark.parametrize(
    ('packed', 'plain'),
    [
        (b'\x02abc', b'abc'),  # three literal bytes
        (b'\x02abc\x20\x02', b'abcabc'),  # then three bytes from three back
        (b'\x00a\xe0\x03\x00', b'a' * 13),  # a run: 7 + 3 + 2 bytes from one back
        (b'\x01xy\x60\x01', b'xyxyxyx'),  # a copy that overlaps itself
    ],
)
def test_lzf_by_hand(packed: bytes, plain: bytes) -> None:
    assert lzf_decompress(packed, len(plain)) == plain


@pytest.mark.parametrize('packed', [b'\x05abc', b'\x20\x02', b'\xe0', b'\x02abc\x20'])
def test_lzf_broken(packed: bytes) -> None:
    with pytest.raises(ValueError, match='compressed data'):
        lzf_decompress(packed, 100)


BAD_FILES = {
    'empty.bin': b'',
    'odd.bin': b'\0' * 25,
    'text.ply': b'not a ply file at all',
    'short.ply': b'ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\n'
    b'property float y\nproperty float z\nend_header\n\0\0',
    'huge.ply': b'ply\nformat ascii 1.0\nelement vertex 99999999999999\nproperty float x\n'
    b'property float y\nproperty float z\nend_header\n1 2 3\n',
    'novertex.ply': b'ply\nformat ascii 1.0\nelement dot 1\nproperty float x\nend_header\n1\n',
    'noxyz.ply': b'ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n',
    'text.npy': b'hello',
    'short.npy': b'\x93NUMPY\x01\x00v\x00',
    'none.pcd': b'hello\n',
    'noxyz.pcd': b'FIELDS a\nSIZE 4\nTYPE F\nPOINTS 1\nDATA ascii\n1\n',
    'short.pcd': b'FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 2\nDATA ascii\n1 2 3\n',
    'words.pcd': b'FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 1\nDATA ascii\n1 2 mice\n',
    'shortb.pcd': b'FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 2\nDATA binary\n12345678',
    'kind.pcd': b'FIELDS x y z\nSIZE 3 4 4\nTYPE F F F\nPOINTS 2\nDATA binary\n12345678',
    'count.pcd': b'FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS many\nDATA ascii\n1 2 3\n',
    'lzf.pcd': b'FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 1\nDATA binary_compressed\n'
    + struct.pack('<II', 3, 12)
    + b'\x20\x02\x00',
    'cloud.abc': b'1 2 3\n',
    'words.xyz': b'one two three\n',
    'two.csv': b'1,2\n3,4\n',
}


@pytest.mark.parametrize('name', BAD_FILES)
def test_bad_files_give_one_line_with_their_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BAD_FILES[name])
    with pytest.raises(ValueError) as caught:
        read_point_cloud(path)
    message = str(caught.value)
    assert name in message
    assert '\n' not in message


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'none\.ply'):
        read_point_cloud(tmp_path / 'none.ply')


def test_pickled_npy_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / 'o.npy', np.array([{'a': 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r'o\.npy'):
        read_point_cloud(tmp_path / 'o.npy')


@pytest.mark.parametrize(
    ('array', 'fault'),
    [
        (np.zeros((0, 6)), 'no points'),
        (np.full((4, 6), np.nan), 'none of the 4 points'),
        (np.zeros((4, 5)), r'\(N, 3\) or \(N, 6\)'),
        (np.zeros(6), r'\(N, 3\) or \(N, 6\)'),
        (np.array([['a', 'b', 'c']]), 'real numbers'),
        (np.full((2, 3), 1e5), 'coordinates reach'),
        (np.array([[0.0, 0, 0, 300, 0, 0]]), 'colours reach'),
        (np.array([[0.0, 0, 0, -1, 0, 0]]), 'colours reach'),
    ],
)
def test_bad_arrays(array: np.ndarray, fault: str) -> None:
    with pytest.raises(ValueError, match=f'my scan: .*{fault}'):
        as_point_cloud(array, name='my scan')


def test_argument_is_left_alone() -> None:
    fractions = np.concatenate([XYZ, RGB / 255], axis=1).astype(np.float32)
    before = fractions.copy()
    np.testing.assert_allclose(as_point_cloud(fractions), CLOUD, atol=1e-4)
    np.testing.assert_array_equal(fractions, before)


def test_real_scan(real_frames: Path, tmp_path: Path) -> None:
    path = tmp_path / 'scan.bin'
    fuse_posed_rgbd(load_posed_rgbd(real_frames), 0.05).points.tofile(path)
    points = read_point_cloud(path)
    np.testing.assert_array_equal(points, np.fromfile(path, np.float32).reshape(-1, 6))


def _write_ply(path: Path, rgb: np.ndarray | None) -> None:
    dtype = [(name, 'f4') for name in 'xyz']
    if rgb is not None:
        dtype += [(name, rgb.dtype) for name in ('red', 'green', 'blue')]
    table = np.empty(len(XYZ), dtype=dtype)
    for axis, name in enumerate('xyz'):
        table[name] = XYZ[:, axis]
    for channel, name in enumerate(('red', 'green', 'blue') if rgb is not None else ()):
        table[name] = rgb[:, channel]
    plyfile.PlyData([plyfile.PlyElement.describe(table, 'vertex')]).write(str(path))


def _pcd(data: str, rgb_type: str) -> bytes:
    """A file as PCL writes it, with a padding field in the binary ones."""
    words = [int(r) << 16 | int(g) << 8 | int(b) for r, g, b in RGB]
    pad = data != 'ascii'
    fields = 'x y z rgb' + (' _' if pad else '')
    header = (
        f'# .PCD v.7 - Point Cloud Data file format\nVERSION .7\nFIELDS {fields}\n'
        f'SIZE 4 4 4 4{" 1" if pad else ""}\nTYPE F F F {rgb_type}{" U" if pad else ""}\n'
        f'COUNT 1 1 1 1{" 4" if pad else ""}\nWIDTH 3\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n'
        f'POINTS 3\nDATA {data}\n'
    ).encode()
    if data == 'ascii':
        # Nine digits carry a float32 there and back.
        shown = [
            f'{struct.unpack("<f", struct.pack("<I", w))[0]:.9g}' if rgb_type == 'F' else str(w)
            for w in words
        ]
        rows = [' '.join([*(f'{c:.9g}' for c in row), w]) for row, w in zip(XYZ, shown)]
        return header + '\n'.join(rows).encode() + b'\n'
    rows = [struct.pack('<3fI4x', *row, word) for row, word in zip(XYZ, words)]
    if data == 'binary':
        return header + b''.join(rows)
    columns = b''.join(struct.pack('<3f', *XYZ[:, axis]) for axis in range(3))
    columns += struct.pack('<3I', *words) + b'\0' * 12
    # Literals only, and the zeros of the padding as one run.
    packed = b''
    for start in range(0, 48, 32):
        literal = columns[start : min(start + 32, 48)]
        packed += bytes([len(literal) - 1]) + literal
    packed += b'\x00\x00' + b'\xe0\x02\x00'
    return header + struct.pack('<II', len(packed), len(columns)) + packed
