"""``transforms.json`` of nerfstudio and of what exports to it: Polycam, Record3D, Spectacular.

Enters: a folder with the file. Leaves: a ``Listing``, or None without it. Poses are camera to world
in OpenGL axes; every frame may have a camera of its own.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oneformer3d.files.names import resolve_in_root

from .cameras import pinhole, stated_size
from .listing import text_files
from .pixels import COLOR_SUFFIXES, color_header
from .records import Distortion, ListedFrame, Listing, Matrix, Size

_FISHEYE = ('OPENCV_FISHEYE', 'FISHEYE')
_PINHOLE = ('OPENCV', 'PINHOLE', 'SIMPLE_PINHOLE', 'PERSPECTIVE', 'SIMPLE_RADIAL', 'RADIAL')


def list_nerfstudio(folder: Path) -> Listing | None:
    """The frames of ``transforms.json``, or of any JSON file with the same content.

    Raises:
        ValueError: the file is broken, or has cameras that are no pinhole or fisheye.
    """
    path, content = _find(folder)
    if path is None:
        return None
    model = str(content.get('camera_model', 'OPENCV')).upper()
    if model not in (*_FISHEYE, *_PINHOLE):
        raise ValueError(f'{path}: camera_model {model} is not known; expected OPENCV or a fisheye')
    try:
        applied = _applied_transform(content)
        scale = float(content.get('applied_scale', 1.0))
        frames = tuple(_frame(path, content, frame, model, applied) for frame in content['frames'])
        factor = content.get('depth_unit_scale_factor')
        units = 1000.0 if factor is None else 1 / float(factor)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f'{path}: {error!r}' if isinstance(error, KeyError) else f'{path}: {error}'
        ) from error

    names = [frame.name for frame in frames]
    if len(set(names)) < len(names):  # several folders of images with the same names
        frames = tuple(
            ListedFrame(f'{index:05d}', *_rest(frame)) for index, frame in enumerate(frames)
        )
    cloud = content.get('ply_file_path')
    return Listing(
        source=f'nerfstudio ({path.name}, camera model {model})',
        frames=frames,
        convention='opengl',
        depth_scale=units,
        float_scale=1.0 if factor is None else units,
        cloud=resolve_in_root(folder, cloud) if isinstance(cloud, str) else None,
        pose_unit=1 / scale,
    )


def _find(folder: Path) -> tuple[Path | None, Mapping[str, Any]]:
    paths = text_files(folder, ('.json',))
    for path in sorted(paths, key=lambda path: (path.name != 'transforms.json', path.name)):
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
        except (ValueError, RecursionError) as error:
            if path.name == 'transforms.json':
                raise ValueError(f'{path}: not valid JSON: {error}') from error
            continue
        frames = content.get('frames') if isinstance(content, Mapping) else None
        first = frames[0] if isinstance(frames, list) and frames else None
        if isinstance(first, Mapping) and {'transform_matrix', 'file_path'} <= first.keys():
            return path, content
    return None, {}


def _frame(
    path: Path,
    content: Mapping[str, Any],
    frame: Mapping[str, Any],
    model: str,
    applied: Matrix | None,
) -> ListedFrame:
    image = _image_path(path.parent, frame['file_path'])
    depth = frame.get('depth_file_path')
    pose = np.array(frame['transform_matrix'], dtype=np.float64)
    if pose.shape == (3, 4):
        pose = np.concatenate([pose, [[0.0, 0, 0, 1]]])
    if pose.shape != (4, 4):
        raise ValueError(f'{frame["file_path"]}: expected 4×4 numbers, got {pose.shape}')

    own = {**content, **frame}
    K, size = _intrinsics(own, image)
    return ListedFrame(
        name=Path(frame['file_path']).stem,
        image_path=image,
        depth_path=None if depth is None else resolve_in_root(path.parent, _plain(depth)),
        pose=pose if applied is None else applied @ pose,
        K=K,
        K_size=size,
        distortion=_distortion(own, model),
    )


def _rest(frame: ListedFrame) -> tuple:
    return frame.image_path, frame.depth_path, frame.pose, frame.K, frame.K_size, frame.distortion


def _intrinsics(camera: Mapping[str, Any], image: Path) -> tuple[Matrix | None, Size | None]:
    """K and the (H, W) it belongs to; None where only the image tells."""
    width, height = camera.get('w'), camera.get('h')
    size = None
    if width is not None and height is not None:
        size = stated_size(height, width, 'w, h')
    if size is None and image.is_file() and 'cx' not in camera:
        size = color_header(image).size
    if 'fl_x' in camera:
        fx = float(camera['fl_x'])
    elif 'camera_angle_x' in camera and size is not None:
        # f = W / (2 tan(α / 2))
        fx = 0.5 * size[1] / np.tan(0.5 * float(camera['camera_angle_x']))
    else:
        return None, None
    fy = float(camera.get('fl_y', fx))
    if size is None and not {'cx', 'cy'} <= camera.keys():
        return None, None
    cx = float(camera.get('cx', (size[1] - 1) / 2 if size else 0))
    cy = float(camera.get('cy', (size[0] - 1) / 2 if size else 0))
    return pinhole(fx, fy, cx, cy), size


def _distortion(camera: Mapping[str, Any], model: str) -> Distortion | None:
    fisheye = model in _FISHEYE
    keys = ('k1', 'k2', 'k3', 'k4') if fisheye else ('k1', 'k2', 'p1', 'p2', 'k3')
    values = tuple(float(camera.get(key) or 0.0) for key in keys)
    return Distortion(values, fisheye) if fisheye or any(values) else None


def _applied_transform(content: Mapping[str, Any]) -> Matrix | None:
    """What undoes ``applied_transform``, where it is no rigid motion: mirrored or scaled axes."""
    values = content.get('applied_transform')
    if values is None:
        return None
    matrix = np.eye(4)
    rows = np.array(values, dtype=np.float64)
    matrix[: len(rows)] = rows
    rotation = matrix[:3, :3]
    rigid = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4) and np.linalg.det(rotation) > 0
    return None if rigid else np.asarray(np.linalg.inv(matrix), np.float64)


def _image_path(folder: Path, name: str) -> Path:
    """The image; blender's files leave its ending away."""
    path = resolve_in_root(folder, _plain(name))
    if path.is_file() or path.suffix.lower() in COLOR_SUFFIXES:
        return path
    beside = (path.with_name(path.name + suffix) for suffix in COLOR_SUFFIXES)
    return next((found for found in beside if found.is_file()), path)


def _plain(name: str) -> str:
    return name.replace('\\', '/').removeprefix('./')
