"""A download of ScanNet in miniature: meshes, annotations, label file, images, lists."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import plyfile
from PIL import Image

from tests.helpers.rgbd_scenes import SIZE, K, View, render_views, write_exported_scannet

NUM_VERTICES = 60
ALIGNMENT = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 0.5], [0, 0, 0, 1]])
# raw category, id, nyu40id
CATEGORIES = (('wall', 1, 1), ('office chair', 11, 5), ('trash can', 56, 39), ('floor', 3, 2))
# objects of a scene: category and segments; segment s is vertices 6s … 6s + 5
OBJECTS = (('floor', (0, 1)), ('office chair', (2, 4)), ('trash can', (5,)), ('unheard of', (7,)))
SEGMENT_IDS = np.array([40, 7, 12, 3, 99, 1, 55, 8, 60, 2])


def write_tree(root: Path, scenes: dict[str, str] | None = None) -> Path:
    """Write the download; ``scenes`` maps names to splits. Images: exported for the first only."""
    scenes = scenes or {'scene0000_00': 'train', 'scene0001_00': 'train', 'scene0002_00': 'val'}
    rows = ['id\traw_category\tcategory\tnyu40id']
    rows += [f'{raw}\t{name}\t{name}\t{nyu}' for name, raw, nyu in CATEGORIES]
    root.mkdir(parents=True)
    (root / 'scannetv2-labels.combined.tsv').write_text('\n'.join(rows) + '\n')
    for split in set(scenes.values()):
        names = [name for name, its_split in scenes.items() if its_split == split]
        (root / f'scannetv2_{split}.txt').write_text('\n'.join(names) + '\n')
    for index, scene in enumerate(scenes):
        write_scene(root / 'scans' / scene, scene, seed=index)
    first = next(iter(scenes))
    write_exported_scannet(root / 'scans' / first, render_views(4))
    return root


def write_scene(folder: Path, scene: str, seed: int) -> None:
    """Write mesh, segments, annotations and alignment of one scene."""
    folder.mkdir(parents=True)
    write_mesh(folder / f'{scene}_vh_clean_2.ply', mesh_points(seed))
    segments = {'segIndices': SEGMENT_IDS.repeat(NUM_VERTICES // len(SEGMENT_IDS)).tolist()}
    (folder / f'{scene}_vh_clean_2.0.010000.segs.json').write_text(json.dumps(segments))
    groups = [
        {'objectId': k, 'label': label, 'segments': SEGMENT_IDS[list(segments)].tolist()}
        for k, (label, segments) in enumerate(OBJECTS)
    ]
    (folder / f'{scene}.aggregation.json').write_text(json.dumps({'segGroups': groups}))
    numbers = ' '.join(f'{x:.6f}' for x in ALIGNMENT.reshape(-1))
    (folder / f'{scene}.txt').write_text(f'axisAlignment = {numbers}\ncolorHeight = 968\n')


def mesh_points(seed: int) -> np.ndarray:
    """Vertices (N, 6) of a scene: a bumpy strip with colours."""
    rng = np.random.default_rng(seed)
    xy = np.stack(np.meshgrid(np.arange(10), np.arange(6), indexing='ij'), -1).reshape(-1, 2) * 0.1
    height = rng.uniform(0, 0.01, (len(xy), 1))
    colors = rng.integers(0, 256, (len(xy), 3))
    return np.concatenate((xy, height, colors), axis=1)


def write_mesh(path: Path, points: np.ndarray, labels: np.ndarray | None = None) -> None:
    """Write vertices and the triangles of a 10 × 6 grid, as ScanNet's PLY files are."""
    fields = [('x', 'f4'), ('y', 'f4'), ('z', 'f4'), ('red', 'u1'), ('green', 'u1'), ('blue', 'u1')]
    fields += [('alpha', 'u1')] + ([] if labels is None else [('label', 'u2')])
    vertices = np.zeros(len(points), dtype=fields)
    for name, column in zip(('x', 'y', 'z', 'red', 'green', 'blue'), points.T):
        vertices[name] = column
    if labels is not None:
        vertices['label'] = labels
    index = np.arange(60).reshape(10, 6)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    triangles = np.concatenate((np.stack((a, b, c), -1), np.stack((a, c, d), -1))).reshape(-1, 3)
    faces = np.empty(len(triangles), dtype=[('vertex_indices', 'i4', (3,))])
    faces['vertex_indices'] = triangles
    plyfile.PlyData(
        [
            plyfile.PlyElement.describe(vertices, 'vertex'),
            plyfile.PlyElement.describe(faces, 'face'),
        ]
    ).write(str(path))


def sens_bytes(views: list[View]) -> bytes:
    """A recording in ScanNet's .sens format, version 4, JPEG colour and zlib depth."""
    padded = np.eye(4)
    padded[:3, :3] = K
    name = b'StructureSensor'
    parts = [struct.pack('<IQ', 4, len(name)), name]
    parts += [matrix.astype('<f4').tobytes() for matrix in (padded, np.eye(4)) * 2]
    height, width = SIZE
    parts += [struct.pack('<ii', 2, 1), struct.pack('<IIII', width, height, width, height)]
    parts += [struct.pack('<fQ', 1000.0, len(views))]
    for index, view in enumerate(views):
        jpeg = io.BytesIO()
        Image.fromarray(view.color).save(jpeg, 'JPEG', quality=95)
        depth = zlib.compress(view.depth.astype('<u2').tobytes())
        parts += [view.world_from_cam.astype('<f4').tobytes()]
        parts += [struct.pack('<QQQQ', index, index, len(jpeg.getvalue()), len(depth))]
        parts += [jpeg.getvalue(), depth]
    return b''.join(parts)
