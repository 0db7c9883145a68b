"""One small sound file of everything that is read, and how it is read.

Enters: a folder. Leaves: the files, and ``jobs.json``: which file is damaged, what is read then.
"""

import json
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import plyfile
import trimesh
from PIL import Image

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.data.doctor.frames import source_frames
from oneformer3d.data.doctor.quick import quick_check
from oneformer3d.data.fuse_rgbd import fuse
from oneformer3d.data.infos import read_infos
from oneformer3d.data.layouts import find_layout, unknown_layout
from oneformer3d.data.scan import read_scan
from oneformer3d.files.left_out import LossRules
from tests.helpers import foreign_layouts as foreign
from tests.helpers import rgbd_scenes as rooms

COUNT = 400
_TEXTS = ('.txt', '.log', '.json', '.traj', '.pincam')
_INTRINSICS = ' '.join(map(str, rooms.K[[0, 1, 0, 1], [0, 1, 2, 2]]))
LAYOUTS = {
    'seven_scenes': rooms.write_seven_scenes,
    'scannet': rooms.write_exported_scannet,
    'posed_images': rooms.write_posed_images,
    'tum': foreign.write_tum,
    'redwood': foreign.write_redwood,
    'open3d': foreign.write_open3d_json,
    'replica': foreign.write_replica,
    'slambook': foreign.write_slambook,
    'hololens': foreign.write_hololens,
    'nerfstudio': foreign.write_nerfstudio,
    'arkitscenes': foreign.write_arkitscenes,
    'scannetpp': foreign.write_scannetpp,
    'colmap': foreign.write_colmap,
}


def _read_recording(folder: Path, **options: object) -> object:
    """What ``read_scan`` does with a folder, at a voxel size that suits small images."""
    rules = LossRules(max_lost=1.0)
    found = find_layout(folder, rules=rules, **options)
    if found is None:
        raise FileNotFoundError(unknown_layout(folder))
    quick_check(source_frames(found), str(folder))
    return fuse(found, 0.1, rules)


READERS: dict[str, Callable[..., object]] = {
    'cloud': read_scan,
    'recording': _read_recording,
    'class table': lambda path: get_class_table(str(path)),
    'infos': read_infos,
}


def write_samples(folder: Path, clouds: bool = True) -> None:
    """Clouds, class table and infos, or recordings of every layout with depth of every kind."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = _write_clouds(folder) if clouds else _write_recordings(folder)
    (folder / 'jobs.json').write_text(json.dumps(jobs))


def _job(reader: str, file: Path, source: Path, folder: Path, **options: object) -> dict:
    return {
        'reader': reader,
        'file': str(file.relative_to(folder)),
        'source': str(source.relative_to(folder)),
        'options': options,
    }


def _write_clouds(folder: Path) -> list[dict]:
    generator = np.random.default_rng(0)
    xyz = (generator.uniform(0, 1, (COUNT, 3)) * (4, 3, 2.5)).round(3)
    rgb = generator.integers(0, 256, (COUNT, 3))
    table = np.column_stack([xyz, rgb])
    rows = [' '.join(f'{value:g}' for value in row) for row in table]

    # text
    (folder / 'a.xyz').write_text('\n'.join(rows))
    (folder / 'a.pts').write_text('\n'.join([str(COUNT), *rows]))
    (folder / 'a.csv').write_text('\n'.join(['x,y,z,r,g,b', *(r.replace(' ', ',') for r in rows)]))

    # arrays
    table.astype('<f4').tofile(folder / 'a.bin')
    np.save(folder / 'a.npy', table.astype('<f4'))

    # PLY
    fields = [(n, '<f4') for n in 'xyz'] + [(n, 'u1') for n in ('red', 'green', 'blue')]
    splats = [(n, '<f4') for n in ('x', 'y', 'z', 'f_dc_0', 'f_dc_1', 'f_dc_2', 'opacity')]
    colors = np.column_stack([xyz, rgb / 255 - 0.5, np.ones(COUNT)])
    for name, columns, values, text in (
        ('binary', fields, table, False),
        ('ascii', fields, table, True),
        ('splats', splats, colors, False),
    ):
        vertex = np.array([tuple(row) for row in values], dtype=columns)
        element = plyfile.PlyElement.describe(vertex, 'vertex')
        plyfile.PlyData([element], text=text).write(str(folder / f'{name}.ply'))

    # PCD
    head = (
        f'FIELDS x y z r g b\nSIZE 4 4 4 4 4 4\nTYPE F F F F F F\nCOUNT 1 1 1 1 1 1\nWIDTH {COUNT}'
    )
    head += f'\nHEIGHT 1\nPOINTS {COUNT}\nDATA '
    (folder / 'ascii.pcd').write_text(head + 'ascii\n' + '\n'.join(rows))
    (folder / 'binary.pcd').write_bytes(
        (head + 'binary\n').encode() + table.astype('<f4').tobytes()
    )

    # LAS, which needs a library that need not be there, and meshes
    if find_spec('laspy') is not None:
        laspy = import_module('laspy')
        las = laspy.LasData(laspy.LasHeader(point_format=3, version='1.4'))
        las.x, las.y, las.z = xyz.T
        las.red, las.green, las.blue = rgb.T * 257
        las.write(str(folder / 'a.las'))
        las.write(str(folder / 'a.laz'))
    for suffix in ('glb', 'obj', 'stl', 'off'):
        trimesh.creation.box((2, 3, 1)).export(folder / f'a.{suffix}')

    jobs = [_job('cloud', path, path, folder) for path in sorted(folder.iterdir())]
    return jobs + _write_descriptions(folder)


def _write_descriptions(folder: Path) -> list[dict]:
    table = folder / 'classes.json'
    table.write_text(json.dumps({'name': 'mine', 'classes': ['a', 'b', 'c'], 'stuff': ['a']}))
    image = {'frame': '0', 'img_path': 'a/0.jpg', 'world_from_cam': np.eye(4).tolist()}
    scene = {
        'scene_id': 'a',
        'lidar_points': {'num_pts_feats': 6, 'lidar_path': 'a.bin'},
        'image_size': [48, 64],
        'cam2img': rooms.K.tolist(),
        'images': [image],
    }
    infos = folder / 'infos.json'
    infos.write_text(json.dumps({'metainfo': {'schema_version': 1}, 'data_list': [scene]}))
    return [
        _job('class table', table, table, folder),
        _job('infos', infos, infos, folder),
    ]


def _write_recordings(folder: Path) -> list[dict]:
    jobs, views = [], rooms.render_views(3)
    for name, write in LAYOUTS.items():
        options = {'intrinsics': _INTRINSICS} if name == 'slambook' else {}
        # some layouts name their folder, or lie one below
        scene = write(folder / name / '4711', views)
        texts = [p for p in sorted((folder / name).rglob('*')) if p.suffix in _TEXTS]
        kinds = {path.parent: path for path in texts if path.parent != scene}
        chosen = [path for path in texts if path.parent == scene][:2] + list(kinds.values())
        jobs += [_job('recording', path, scene, folder, **options) for path in chosen[:4]]
    return jobs + _write_images(folder, views)


def _write_images(folder: Path, views: list[rooms.View]) -> list[dict]:
    """Depth and colour of every kind, one damaged beside two that are sound."""
    jobs = []
    for kind in ('png', 'pgm', 'tiff', 'npy', 'float.npy', 'jpg', 'color.png'):
        scene = rooms.write_exported_scannet(folder / f'images_{kind}', views)
        (old,) = (p for p in (scene / 'depth').iterdir() if p.stem == '0')
        depth = np.asarray(Image.open(old))
        path = old.with_suffix(f'.{kind.rpartition(".")[2]}')
        if kind in ('jpg', 'color.png'):
            (path,) = (p for p in (scene / 'color').iterdir() if p.stem == '0')
            if kind == 'color.png':
                image = Image.open(path).copy()
                path.unlink()
                path = path.with_suffix('.png')
                image.save(path)
        else:
            old.unlink()
            if kind.endswith('npy'):
                np.save(path, depth / np.float32(1000) if kind == 'float.npy' else depth)
            else:
                Image.fromarray(depth / np.float32(1000) if kind == 'tiff' else depth).save(path)
        jobs.append(_job('recording', path, scene, folder))
    return jobs
