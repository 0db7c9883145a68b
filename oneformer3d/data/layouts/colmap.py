"""A COLMAP model as text: ``cameras.txt images.txt points3D.txt``, with its images.

Enters: a folder with the model, or with it in ``sparse`` or ``sparse/0``. Leaves: a ``Listing``, or
None. Its poses are world to camera with OpenCV axes, its unit is anything unless it was scaled. The
corner of its images is (0, 0): half a pixel is taken off the principal point.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.names import resolve_in_root

from .cameras import pinhole, pose_from_quaternion, stated_size
from .listing import frame_name, subfolders, time_order, with_suffix
from .pixels import DEPTH_SUFFIXES
from .records import Distortion, ListedFrame, Listing, Matrix, Size

_MODELS = {  # name → how many focal lengths it has, names of its distortion, fisheye
    'SIMPLE_PINHOLE': (1, (), False),
    'PINHOLE': (2, (), False),
    'SIMPLE_RADIAL': (1, ('k1',), False),
    'RADIAL': (1, ('k1', 'k2'), False),
    'OPENCV': (2, ('k1', 'k2', 'p1', 'p2'), False),
    'SIMPLE_RADIAL_FISHEYE': (1, ('k1',), True),
    'RADIAL_FISHEYE': (1, ('k1', 'k2'), True),
    'OPENCV_FISHEYE': (2, ('k1', 'k2', 'k3', 'k4'), True),
}


def list_colmap(folder: Path) -> Listing | None:
    """The frames of a text model.

    Raises:
        ValueError: broken files, or a camera model that is not known; names the file and line.
    """
    places = (folder, folder / 'sparse', folder / 'sparse' / '0', folder / 'colmap')
    model = next((place for place in places if (place / 'cameras.txt').is_file()), None)
    if model is None or not (model / 'images.txt').is_file():
        return None
    cameras = _read_cameras(model / 'cameras.txt')
    root = next(iter(subfolders(folder, ('images', 'rgb', 'color'))), folder)
    depths = subfolders(folder, ('depth', 'depths', 'depth_images'))
    depth = {frame_name(p): p for d in depths[:1] for p in with_suffix(d, DEPTH_SUFFIXES)}

    frames = []
    for pose, camera, name in _read_images(model / 'images.txt'):
        if camera not in cameras:
            raise ValueError(f'{model / "images.txt"}: camera {camera} is not in cameras.txt')
        K, size, distortion = cameras[camera]
        path = resolve_in_root(root, name)
        key = frame_name(path)
        frames.append(ListedFrame(key, path, depth.get(key), pose, K, size, distortion))
    frames.sort(key=lambda frame: time_order(frame.name))

    clouds = [model / 'points3D.txt', folder / 'points3D.ply', model / 'points3D.ply']
    return Listing(
        source=f'COLMAP text model ({model.relative_to(folder.parent)}/cameras.txt, images.txt)',
        frames=tuple(frames),
        convention='opencv-w2c',
        cloud=next((path for path in clouds if path.is_file()), None),
        warnings=('a COLMAP model has no unit of its own: it is taken as metres',),
    )


def read_points(path: Path) -> NDArray[np.float32]:
    """Points (N, 6), xyz and rgb 0–255, of ``points3D.txt``.

    Raises:
        ValueError: a line that is none; names it.
    """
    points = []
    for number, words in _lines(path):
        try:
            points.append([float(word) for word in words[1:7]])
        except ValueError as error:
            raise ValueError(f'{path}: line {number}: {error}') from error
        if len(points[-1]) != 6:
            raise ValueError(f'{path}: line {number}: expected id x y z r g b')
    return np.array(points, dtype=np.float32).reshape(-1, 6)


def _read_cameras(path: Path) -> dict[str, tuple[Matrix, Size, Distortion | None]]:
    cameras = {}
    for number, words in _lines(path):
        if len(words) < 5 or words[1] not in _MODELS:
            raise ValueError(
                f'{path}: line {number}: expected one of {", ".join(_MODELS)}, got {words[1:2]}'
            )
        num_focal, names, fisheye = _MODELS[words[1]]
        try:
            width, height, *values = (float(word) for word in words[2:])
        except ValueError as error:
            raise ValueError(f'{path}: line {number}: {error}') from error
        if len(values) != num_focal + 2 + len(names):
            raise ValueError(f'{path}: line {number}: {len(values)} parameters of {words[1]}')

        cx, cy = values[num_focal : num_focal + 2]
        K = pinhole(values[0], values[num_focal - 1], cx - 0.5, cy - 0.5)
        of = dict(zip(names, values[num_focal + 2 :]))
        keys = ('k1', 'k2', 'k3', 'k4') if fisheye else ('k1', 'k2', 'p1', 'p2', 'k3')
        coefficients = tuple(of.get(key, 0.0) for key in keys)
        lens = Distortion(coefficients, fisheye) if fisheye or any(coefficients) else None
        size = stated_size(height, width, f'{path}: line {number}')
        cameras[words[0]] = (K, size, lens)
    return cameras


def _read_images(path: Path) -> list[tuple[Matrix, str, str]]:
    """Pose, camera and name of each image; every other line lists its 2D points."""
    images = []
    text = path.read_text(encoding='utf-8', errors='replace').splitlines()
    lines = [(i, line.split()) for i, line in enumerate(text, 1) if not line.startswith('#')]
    for number, words in lines[::2]:
        if not words:
            continue
        try:
            w, x, y, z, *translation = (float(word) for word in words[1:8])
        except ValueError as error:
            raise ValueError(f'{path}: line {number}: {error}') from error
        if len(words) < 10:
            raise ValueError(f'{path}: line {number}: expected id qw qx qy qz tx ty tz camera name')
        pose = pose_from_quaternion(np.array(translation), np.array([x, y, z, w]))
        images.append((pose, words[8], ' '.join(words[9:])))
    return images


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Numbered lines as words, without comments and empty ones."""
    text = path.read_text(encoding='utf-8', errors='replace').splitlines()
    return [
        (number, line.split())
        for number, line in enumerate(text, 1)
        if line.strip() and not line.startswith('#')
    ]
