"""Infos: the index of a dataset on disk, one JSON file per split.

Enters: a path, and for writing a dictionary. Leaves: a checked dictionary
``{'metainfo': {...}, 'data_list': [scene, ...]}``; its keys are described in docs/data.md.
Nothing here runs code from a file: JSON by default, mmdet3d's ``.pkl`` infos only with
``allow_pickle``, and then through a reader that knows containers, numbers and arrays alone.
Names and paths inside infos are foreign text: they cannot leave the folder they belong to.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.names import short_repr, validate_relative_path, validate_scene_name

SCHEMA_VERSION = 1
_PATH_KEYS = ('super_pts_path', 'pts_semantic_mask_path', 'pts_instance_mask_path')
_LEAST_DETERMINANT = 1e-6  # of intrinsics, where focal lengths of pixels give 1e5
_MATRIX_KEYS = {'axis_align_matrix': (4, 4), 'cam2img': (3, 3), 'depth2img': (3, 3)}


def read_infos(path: str | os.PathLike, allow_pickle: bool = False) -> dict[str, Any]:
    """Read and check an infos file.

    Args:
        path: ``.json`` (UTF-8), or mmdet3d's ``.pkl`` / ``.pickle``.
        allow_pickle: read pickled infos too. They go through a restricted reader either way.

    Returns:
        ``{'metainfo': dict, 'data_list': list[dict]}``; every scene has a valid ``scene_id``
        (taken from the name of its point file where the infos give none).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable, pickled without ``allow_pickle``, or not infos; the message
            names the file, the entry and the fault.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such infos file')
    if path.suffix in ('.pkl', '.pickle'):
        if not allow_pickle:
            raise ValueError(
                f'{path}: pickled infos are read only with allow_pickle=True; '
                'JSON infos need no such trust'
            )
        from oneformer3d.files.restricted_pickle import load_plain_pickle

        infos = load_plain_pickle(path)
    else:
        infos = _load_json(path)
    return check_infos(infos, source=str(path))


def write_infos(path: str | os.PathLike, infos: Mapping[str, Any]) -> None:
    """Check infos and write them as JSON, atomically; arrays become nested lists.

    Raises:
        ValueError: the infos do not hold to the schema (nothing is written then).
    """
    checked = check_infos(infos, source=str(path))
    checked['metainfo'].setdefault('schema_version', SCHEMA_VERSION)
    # One scene per line: compact with hundreds of poses per scene, and still easy to compare.
    scenes = ',\n'.join(map(_json_line, checked['data_list']))
    text = f'{{"metainfo": {_json_line(checked["metainfo"])}, "data_list": [\n{scenes}\n]}}\n'
    atomic_write_bytes(path, text.encode('utf-8'))


def check_infos(infos: Any, source: str) -> dict[str, Any]:
    """Check infos against the schema and fill in missing scene ids.

    Args:
        infos: what a file held.
        source: the name that error messages begin with.

    Returns:
        A new dictionary; the argument is left as it was.

    Raises:
        ValueError: naming source, entry and fault.
    """
    if not isinstance(infos, Mapping) or not isinstance(infos.get('data_list'), (list, tuple)):
        raise ValueError(f'{source}: expected an object with "metainfo" and a list "data_list"')
    metainfo = infos.get('metainfo', {})
    if not isinstance(metainfo, Mapping):
        raise ValueError(f'{source}: "metainfo" should be an object, got {_kind(metainfo)}')
    version = metainfo.get('schema_version', SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise ValueError(
            f'{source}: schema_version {version!r} is not known, expected {SCHEMA_VERSION}'
        )

    scenes, names = [], set()
    for index, scene in enumerate(infos['data_list']):
        scene = _check_scene(scene, f'{source}: data_list[{index}]')
        if scene['scene_id'] in names:
            raise ValueError(f'{source}: data_list[{index}]: scene {scene["scene_id"]} is twice')
        names.add(scene['scene_id'])
        scenes.append(scene)
    return {'metainfo': dict(metainfo), 'data_list': scenes}


def _load_json(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f'{constant} is not a finite number')

    try:
        return json.loads(path.read_text(encoding='utf-8'), parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError, JSONDecodeError
        raise ValueError(f'{path}: not valid JSON: {error}') from error


def _check_scene(scene: Any, where: str) -> dict[str, Any]:
    if not isinstance(scene, Mapping):
        raise ValueError(f'{where}: expected an object, got {_kind(scene)}')
    scene = dict(scene)
    points = scene.get('lidar_points')
    if not isinstance(points, Mapping) or 'lidar_path' not in points:
        raise ValueError(f'{where}: "lidar_points" with "lidar_path" is missing')
    _check_path(points['lidar_path'], f'{where}: lidar_path')
    if points.get('num_pts_feats', 6) != 6:
        raise ValueError(
            f'{where}: num_pts_feats should be 6 (xyz, rgb), '
            f'got {short_repr(points["num_pts_feats"])}'
        )

    scene.setdefault('scene_id', PurePosixPath(points['lidar_path']).stem)
    try:
        validate_scene_name(scene['scene_id'])
    except ValueError as error:
        raise ValueError(f'{where}: scene_id {error}') from error

    where = f'{where} ({scene["scene_id"]})'
    for key in _PATH_KEYS:
        if scene.get(key) is not None:
            _check_path(scene[key], f'{where}: {key}')
    for key, shape in _MATRIX_KEYS.items():
        if scene.get(key) is not None:
            _check_matrix(scene[key], shape, f'{where}: {key}')
            if key != 'axis_align_matrix':
                _check_intrinsics(scene[key], f'{where}: {key}')
    for key in ('image_size', 'depth_size'):
        if scene.get(key) is not None:
            _check_size(scene[key], f'{where}: {key}')
    # mmdet3d's own infos have 'images' as a dictionary by camera; only lists are ours.
    if isinstance(scene.get('images'), (list, tuple)):
        scene['images'] = _check_images(scene['images'], where)
    return scene


def _check_images(images: Any, where: str) -> list[dict[str, Any]]:
    images = [_check_image(image, f'{where}: images[{i}]') for i, image in enumerate(images)]
    try:  # all poses at once: there may be thousands
        poses = np.asarray([image['world_from_cam'] for image in images], dtype=np.float64)
        sound = poses.shape[1:] == (4, 4) and bool(np.isfinite(poses).all())
    except (TypeError, ValueError):
        sound = False
    if not sound:
        for index, image in enumerate(images):
            _check_matrix(
                image['world_from_cam'], (4, 4), f'{where}: images[{index}]: world_from_cam'
            )
    return images


def _check_image(image: Any, where: str) -> dict[str, Any]:
    if not isinstance(image, Mapping):
        raise ValueError(f'{where}: expected an object, got {_kind(image)}')
    missing = [key for key in ('frame', 'img_path', 'world_from_cam') if key not in image]
    if missing:
        raise ValueError(f'{where}: {", ".join(missing)} missing')
    try:
        validate_scene_name(image['frame'])
    except ValueError as error:
        raise ValueError(f'{where}: frame {error}') from error
    _check_path(image['img_path'], f'{where}: img_path')
    if image.get('depth_path') is not None:
        _check_path(image['depth_path'], f'{where}: depth_path')
    for key in ('cam2img', 'depth2img'):  # of frames with a camera of their own
        if image.get(key) is not None:
            _check_matrix(image[key], _MATRIX_KEYS[key], f'{where}: {key}')
            _check_intrinsics(image[key], f'{where} ({image["frame"]}): {key}')
    return dict(image)


def _check_path(value: Any, where: str) -> None:
    try:
        validate_relative_path(value)
    except ValueError as error:
        raise ValueError(f'{where} {error}') from error


def _check_matrix(value: Any, shape: tuple[int, int], where: str) -> None:
    try:
        matrix = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != shape or not np.isfinite(matrix).all():
        raise ValueError(f'{where} should be {shape[0]}×{shape[1]} finite numbers')


def _check_intrinsics(value: Any, where: str) -> None:
    """A camera without focal lengths would put all points on one pixel."""
    matrix = np.asarray(value, dtype=np.float64)
    if not abs(np.prod(np.diag(matrix))) > 0 or abs(np.linalg.det(matrix)) < _LEAST_DETERMINANT:
        raise ValueError(
            f'{where} is not the matrix of a camera (it cannot be inverted): {short_repr(value)}'
        )


def _check_size(value: Any, where: str) -> None:
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(isinstance(side, (int, np.integer)) and side > 0 for side in value)
    ):
        raise ValueError(f'{where} should be [height, width] in pixels, got {short_repr(value)}')


def _json_line(value: Any) -> str:
    return json.dumps(value, allow_nan=False, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f'{_kind(value)} cannot be written as JSON')


def _kind(value: Any) -> str:
    return type(value).__name__
