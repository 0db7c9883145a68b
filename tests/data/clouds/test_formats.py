"""Formats beside PLY and PCD, written by hand or by other libraries; and damage to all of them."""

import json
import struct
import subprocess
import sys

import numpy as np
import plyfile
import pytest
import trimesh

from oneformer3d.data.clouds.read import CLOUD_SUFFIXES, read_cloud_file
from oneformer3d.data.scan import read_scan

COUNT = 400
SEED = 0


@pytest.fixture(scope='module')
def room():
    """xyz (N, 3) in millimetre steps and rgb (N, 3) of a floor and a wall of 4 × 3 m."""
    generator = np.random.default_rng(0)
    xyz = generator.uniform(0, 1, (COUNT, 3)) * (4, 3, 2.5)
    xyz[: COUNT // 2, 2] = 0
    xyz[COUNT // 2 :, 0] = 0
    return xyz.round(3), generator.integers(0, 256, (COUNT, 3))


def rows(*columns):
    return ['{} {} {}'.format(*(f'{v:g}' for v in row[:3])) + ''.join(f' {v:g}' for v in row[3:])
            for row in np.column_stack(columns)]  # fmt: skip


def assert_is(scan, room, with_colors=True):
    xyz, rgb = room
    np.testing.assert_allclose(scan.points[:, :3], xyz, atol=1e-3)
    np.testing.assert_allclose(scan.points[:, 3:], rgb if with_colors else 127, atol=1e-3)


@pytest.mark.parametrize('separator', [' ', '\t', ',', ';', ', '])
@pytest.mark.parametrize('suffix', ['.txt', '.xyz', '.csv', '.asc'])
def test_text_with_any_separator(tmp_path, room, separator, suffix):
    path = tmp_path / f'room{suffix}'
    path.write_text('\n'.join(row.replace(' ', separator) for row in rows(*room)))
    assert_is(read_scan(path), room)


@pytest.mark.parametrize(
    ('head', 'order'),
    [
        ('x,y,z,r,g,b', 'xyzrgb'),
        ('//X Y Z Red Green Blue', 'xyzrgb'),
        ('# made by hand\n"x";"y";"z";"R";"G";"B"', 'xyzrgb'),
        ('Blue Green Red x z y', 'bgrxzy'),
        ('\ufeffx y z r g b', 'xyzrgb'),
        ('größe der Wolke\n%x y z red green blue', 'xyzrgb'),
    ],
)
def test_a_header_names_the_columns(tmp_path, room, head, order):
    table = dict(zip('xyzrgb', np.column_stack(room).T))
    lines = rows(*(table[name] for name in order))
    (tmp_path / 'a.txt').write_text('\n'.join([head, *lines]), encoding='utf-8')
    assert_is(read_scan(tmp_path / 'a.txt'), room)


def test_pts_with_a_count_and_intensities(tmp_path, room):
    intensity = np.linspace(-2000, 2000, COUNT).round()
    lines = rows(room[0], intensity, room[1])
    (tmp_path / 'a.pts').write_text('\n'.join([str(COUNT), *lines]) + '\n\n')
    assert_is(read_scan(tmp_path / 'a.pts'), room)


def test_normals_after_the_coordinates_are_no_colours(tmp_path, room):
    normals = np.random.default_rng(1).standard_normal((COUNT, 3))
    (tmp_path / 'a.xyz').write_text('\n'.join(rows(room[0], normals)))
    scan = read_scan(tmp_path / 'a.xyz')
    assert_is(scan, room, with_colors=False)
    assert any('3 columns after x y z' in warning for warning in scan.warnings)


@pytest.mark.parametrize('suffix', ['.bin', '.npy'])
def test_rows_of_four_are_refused_until_their_columns_are_named(tmp_path, room, suffix):
    path = tmp_path / f'kitti{suffix}'
    table = np.column_stack([room[0], np.linspace(0, 1, COUNT)])[: COUNT // 3 * 3].astype('<f4')
    table.tofile(path) if suffix == '.bin' else np.save(path, table)
    with pytest.raises(ValueError, match=rf'kitti{suffix}: .*--columns'):
        read_scan(path)
    scan = read_scan(path, columns=('x', 'y', 'z', 'intensity'))
    np.testing.assert_allclose(scan.points[:, :3], table[:, :3], atol=1e-6)


@pytest.mark.parametrize('suffix', ['.glb', '.obj', '.stl', '.off'])
def test_meshes_are_sampled_on_their_surface(tmp_path, suffix):
    box = trimesh.creation.box((2, 3, 1))
    box.export(tmp_path / f'box{suffix}')
    scan = read_scan(tmp_path / f'box{suffix}')
    again = read_scan(tmp_path / f'box{suffix}')
    np.testing.assert_array_equal(scan.points, again.points)

    # on one of the six faces, and evenly: the two large faces have 6 of 22 square metres each
    distance = np.abs(np.abs(scan.points[:, :3]) - (1, 1.5, 0.5)).min(1)
    assert distance.max() < 1e-5
    on_top = np.abs(scan.points[:, 2] - 0.5) < 1e-5
    assert on_top.mean() == pytest.approx(6 / 22, abs=0.02)
    assert scan.up.tolist() == ([0, 1, 0] if suffix == '.glb' else [0, 0, 1])


def test_colours_of_a_mesh_are_blended_between_its_corners(tmp_path):
    mesh = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    mesh.visual.vertex_colors = [[0, 0, 0, 255], [200, 0, 0, 255], [0, 100, 0, 255]]
    mesh.export(tmp_path / 'a.glb')
    points = read_scan(tmp_path / 'a.glb').points
    np.testing.assert_allclose(points[:, 3], 200 * points[:, 0], atol=1)
    np.testing.assert_allclose(points[:, 4], 100 * points[:, 1], atol=1)


@pytest.mark.parametrize('suffix', ['.las', '.laz'])
def test_las(tmp_path, room, suffix):
    laspy = pytest.importorskip('laspy')
    header = laspy.LasHeader(point_format=3, version='1.2')
    header.offsets, header.scales = [4e5, 5.8e6, 0], [0.001] * 3
    table = laspy.LasData(header)
    table.x, table.y, table.z = (room[0] + (4e5, 5.8e6, 30)).T
    table.red, table.green, table.blue = (room[1] * 257).T
    table.write(str(tmp_path / f'a{suffix}'))

    scan = read_scan(tmp_path / f'a{suffix}')
    np.testing.assert_allclose(
        scan.points[:, :3] + scan.origin, room[0] + (4e5, 5.8e6, 30), atol=2e-3
    )
    np.testing.assert_allclose(scan.points[:, 3:], room[1], atol=1e-3)


def test_gaussian_splats_have_the_colours_of_their_constant_term(tmp_path, room):
    names = ('x', 'y', 'z', 'f_dc_0', 'f_dc_1', 'f_dc_2', 'opacity')
    values = np.column_stack([room[0], (room[1] / 255 - 0.5) / 0.28209479177387814, np.ones(COUNT)])
    table = np.array([tuple(row) for row in values], dtype=[(name, 'f4') for name in names])
    plyfile.PlyData([plyfile.PlyElement.describe(table, 'vertex')]).write(str(tmp_path / 'a.ply'))
    scan = read_scan(tmp_path / 'a.ply')
    assert_is(scan, room)
    assert 'Gaussian splats' in scan.source


PLY_HEADS = {
    'latin1': 'ply\nformat {}\ncomment B\xfcro\n'.encode('latin-1'),
    'utf8': 'ply\nformat {}\ncomment Büro 房间\n'.encode(),
    'crlf': b'ply\r\nformat {}\r\ncomment a\r\n',
    'bom': b'\xef\xbb\xbfply\nformat {}\n',
    'upper': b'ply\nformat {}\ncomment upper\n',
}


@pytest.mark.parametrize('kind', ['ascii 1.0', 'binary_little_endian 1.0'])
@pytest.mark.parametrize('name', PLY_HEADS)
def test_ply_headers_of_any_origin(tmp_path, room, name, kind):
    end = b'\r\n' if name == 'crlf' else b'\n'
    properties = ['X', 'Y', 'Z'] if name == 'upper' else ['x', 'y', 'z']
    head = PLY_HEADS[name].replace(b'{}', kind.encode())
    lines = [f'element vertex {COUNT}', *(f'property float {p}' for p in properties)]
    lines += [f'property uchar {c}' for c in ('red', 'green', 'blue')] + ['end_header']
    if kind.startswith('ascii'):
        body = b'\n'.join(row.encode() for row in rows(*room)) + b'\n'
    else:
        body = b''.join(struct.pack('<3f3B', *xyz, *rgb) for xyz, rgb in zip(*room))
    (tmp_path / 'a.ply').write_bytes(head + end.join(x.encode() for x in lines) + end + body)
    assert_is(read_scan(tmp_path / 'a.ply'), room)


@pytest.mark.parametrize('fields', ['red green blue', 'r g b', 'R G B'])
@pytest.mark.parametrize('kind', ['F', 'U'])
def test_pcd_with_a_field_for_each_colour(tmp_path, room, fields, kind):
    size = 4 if kind == 'F' else 1
    header = (
        f'# .PCD v0.7\nFIELDS x y z intensity {fields}\nSIZE 4 4 4 4 {size} {size} {size}\n'
        f'TYPE F F F F {kind} {kind} {kind}\nWIDTH {COUNT}\nHEIGHT 1\nPOINTS {COUNT}\nDATA binary\n'
    )
    form = '<4f3f' if kind == 'F' else '<4f3B'
    body = b''.join(struct.pack(form, *xyz, 0.5, *rgb) for xyz, rgb in zip(*room))
    (tmp_path / 'a.pcd').write_bytes(header.encode() + body)
    assert_is(read_scan(tmp_path / 'a.pcd'), room)


def written(folder, room):
    """One small file of every format that can be damaged, by suffix."""
    xyz, rgb = room
    table = np.column_stack(room)
    folder.joinpath('a.txt').write_text('\n'.join(rows(*room)))
    folder.joinpath('a.pts').write_text('\n'.join([str(COUNT), *rows(xyz, rgb[:, 0], rgb)]))
    table.astype('<f4').tofile(folder / 'a.bin')
    np.save(folder / 'a.npy', table)
    trimesh.PointCloud(xyz, np.column_stack([rgb, np.full(COUNT, 255)])).export(folder / 'a.ply')
    header = (
        f'FIELDS x y z r g b\nSIZE 4 4 4 4 4 4\nTYPE F F F F F F\nPOINTS {COUNT}\nDATA binary\n'
    )
    (folder / 'a.pcd').write_bytes(header.encode() + table.astype('<f4').tobytes())
    laspy = pytest.importorskip('laspy')
    las = laspy.LasData(laspy.LasHeader(point_format=3, version='1.2'))
    las.x, las.y, las.z = xyz.T
    las.write(str(folder / 'a.las'))
    las.write(str(folder / 'a.laz'))
    for suffix in ('glb', 'obj', 'stl', 'off'):
        trimesh.creation.box((2, 3, 1)).export(folder / f'a.{suffix}')
    return sorted(folder.iterdir())


def test_damaged_files_give_a_scan_or_one_line_with_their_name(tmp_path, room):
    generator = np.random.default_rng(SEED)
    for path in written(tmp_path, room):
        whole = path.read_bytes()
        for _ in range(30):
            content = bytearray(whole)
            # the header matters most
            reach = len(whole) if generator.random() < 0.4 else min(len(whole), 200)
            for position in generator.integers(0, reach, generator.integers(1, 4)):
                content[position] = generator.integers(256)
            if generator.random() < 0.2:
                del content[generator.integers(len(content)) :]
            path.write_bytes(content)

            try:
                points, fault = read_scan(path).points, None
            except ValueError as error:
                fault = str(error)
            if fault is None:
                assert np.isfinite(points).all()
            else:
                assert str(path) in fault
                assert '\n' not in fault


def test_a_header_that_promises_too_much_takes_no_memory(tmp_path):
    """In a process of its own, whose peak is measured."""
    huge = 10**12
    header = (
        b'\x93NUMPY\x01\x00v\x00'
        + (
            f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({huge}, 6)}}".ljust(117) + '\n'
        ).encode()
    )
    (tmp_path / 'a.npy').write_bytes(header)
    ply = (
        f'ply\nformat binary_little_endian 1.0\nelement vertex {huge}\nproperty float x\n'
        'end_header\n'
    )
    (tmp_path / 'a.ply').write_bytes(ply.encode())
    pcd = f'FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS {huge}\nDATA binary\n'
    (tmp_path / 'a.pcd').write_bytes(pcd.encode())
    program = (
        'import json, resource, sys\n'
        'from oneformer3d.data.clouds.read import read_cloud_file\n'
        'before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
        'faults = []\n'
        'for path in sys.argv[1:]:\n'
        '    try:\n        read_cloud_file(path)\n'
        '    except ValueError as error:\n        faults.append(str(error))\n'
        'after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
        'print(json.dumps([len(faults), after - before]))\n'
    )
    paths = [str(tmp_path / f'a.{suffix}') for suffix in ('npy', 'ply', 'pcd')]
    done = subprocess.run(
        [sys.executable, '-c', program, *paths], capture_output=True, text=True, check=True
    )
    num_faults, grown = json.loads(done.stdout.splitlines()[-1])
    assert num_faults == 3
    assert grown < 200_000  # kilobytes


def test_the_suffixes_are_named_for_a_file_of_none_of_them(tmp_path):
    (tmp_path / 'a.abc').write_bytes(b'1 2 3')
    with pytest.raises(ValueError, match='unknown point-cloud format') as caught:
        read_cloud_file(tmp_path / 'a.abc')
    assert all(suffix in str(caught.value) for suffix in CLOUD_SUFFIXES)
