"""A data root as records: its scenes and their frames.

Enters: a folder in the layout of docs/data.md, perhaps a list of scenes. Leaves:
``SceneSource`` and ``FrameSource`` records.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from oneformer3d.files.names import resolve_in_root, validate_scene_name
from oneformer3d.lifting.camera import is_valid_pose

from .infos import read_infos

MAX_LISTED = 20


@dataclass(frozen=True)
class SceneSource:
    """A scene as its infos describe it; sizes are (H, W), intrinsics (3, 3) float64."""

    name: str
    points_path: Path
    image_size: tuple[int, int]
    intrinsics: NDArray[np.float64]
    depth_intrinsics: NDArray[np.float64]
    depth_size: tuple[int, int] | None


@dataclass(frozen=True)
class FrameSource:
    """One image: its files, its pose (4, 4) ``world_from_cam``, and why it cannot be used if so."""

    scene: SceneSource
    name: str
    image_path: Path
    depth_path: Path | None
    world_from_cam: NDArray[np.float64]
    fault: str | None = None

    @property
    def key(self) -> str:
        """``scene/frame``, as in the store."""
        return f'{self.scene.name}/{self.name}'


def check_point_files(frames: Sequence[FrameSource]) -> None:
    """Raise FileNotFoundError, naming them all, for scenes without a point file."""
    paths = {str(frame.scene.points_path) for frame in frames}
    missing = sorted(path for path in paths if not Path(path).is_file())
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} scenes have no points for the valid-projection rate (rate_points 0 '
            f'does without): {listed(missing)}'
        )


def find_data_root(scenes_file: str | None, data_root: str | None) -> Path:
    """The data root given, else the folder above the scenes file that holds infos.

    Raises:
        FileNotFoundError: the scenes file or the infos are missing.
    """
    if scenes_file is not None and not Path(scenes_file).is_file():
        raise FileNotFoundError(f'{scenes_file}: no such file with scenes')
    if data_root is not None:
        if not _infos_of(Path(data_root)):
            raise FileNotFoundError(f'{data_root}: holds no oneformer3d_infos_<split>.json')
        return Path(data_root)
    folders = list(Path(scenes_file).resolve().parents)[:2]
    for folder in folders:
        if _infos_of(folder):
            return folder
    raise FileNotFoundError(
        f'{scenes_file}: no oneformer3d_infos_<split>.json in {" or ".join(map(str, folders))}; '
        'give the data root'
    )


def read_scene_list(path: str | Path) -> list[str]:
    """Scene names of a text file, one per line, each once.

    Raises:
        ValueError: no scenes, or a name that is not safe.
    """
    try:
        names = Path(path).read_text(encoding='utf-8').split()
        names = [validate_scene_name(name) for name in names]
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    if not names:
        raise ValueError(f'{path}: names no scenes')
    return list(dict.fromkeys(names))


def _infos_of(root: Path) -> list[Path]:
    return sorted(root.glob('oneformer3d_infos_*.json'))


def read_scenes(root: Path) -> dict[str, tuple[SceneSource, list[dict]]]:
    """Every scene with images in any infos of a data root."""
    scenes: dict[str, tuple[SceneSource, list[dict]]] = {}
    for path in _infos_of(root):
        for info in read_infos(path)['data_list']:
            images = info.get('images')
            if not isinstance(images, list):
                images = []
            if images and (info.get('image_size') is None or info.get('cam2img') is None):
                raise ValueError(f'{path}: {info["scene_id"]}: images without size or cam2img')
            scenes.setdefault(info['scene_id'], (_scene_source(root, info), images))
    return scenes


def _scene_source(root: Path, info: dict) -> SceneSource:
    depth_size = info.get('depth_size')
    intrinsics = np.asarray(info.get('cam2img', np.eye(3)), dtype=np.float64)
    return SceneSource(
        name=info['scene_id'],
        points_path=resolve_in_root(root / 'points', info['lidar_points']['lidar_path']),
        image_size=tuple(int(side) for side in info.get('image_size', (1, 1))),
        intrinsics=intrinsics,
        depth_intrinsics=np.asarray(info.get('depth2img', intrinsics), dtype=np.float64),
        depth_size=None if depth_size is None else tuple(int(side) for side in depth_size),
    )


def frame_source(root: Path, scene: SceneSource, image: dict) -> FrameSource:
    folder = root / 'posed_images'
    pose = np.asarray(image['world_from_cam'], dtype=np.float64)
    depth_path = image.get('depth_path')
    rigid = bool(is_valid_pose(torch.from_numpy(pose)))
    return FrameSource(
        scene=scene,
        name=image['frame'],
        image_path=resolve_in_root(folder, image['img_path']),
        depth_path=None if depth_path is None else resolve_in_root(folder, depth_path),
        world_from_cam=pose,
        fault=None if rigid else 'the pose is not a rigid motion',
    )


def listed(names: Sequence[str]) -> str:
    more = f' and {len(names) - MAX_LISTED} more' if len(names) > MAX_LISTED else ''
    return ', '.join(names[:MAX_LISTED]) + more
