"""A data root as records, read once: its scenes, their frames and the cameras that took them.

Enters: a folder in the layout of docs/data.md, perhaps a split or a list of scenes. Leaves:
``Scene`` records, each with its ``Frame`` records. Frames, poses and cameras are made when they
are asked for: listing thousands of scenes costs no more than reading their infos. V frames.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oneformer3d.files.names import resolve_in_root, validate_scene_name
from oneformer3d.lifting.camera import Camera, valid_poses

from .infos import read_infos

INFOS_NAME = 'oneformer3d_infos_{}.json'
MAX_LISTED = 20


@dataclass(frozen=True, eq=False)
class Scene:
    """A scene as its infos describe it.

    Attributes:
        name: also the first part of its frames' keys.
        points_path: file of its points.
        images: V frames, as the infos list them.
        image_folder: their paths may not lead out of it.
        image_size: (H, W) of every colour image; (1, 1) without images.
        intrinsics: (3, 3) float64 of the colour images that have no own; identity without images.
        depth_intrinsics: (3, 3) float64 of the depth images, None where these are the colour
            camera's own.
        depth_size: (h, w) of every depth image, None where the infos do not give it.
        class_table: name of the class table of its labels, if the infos name one.
    """

    name: str
    points_path: Path
    images: Sequence[Mapping[str, Any]]
    image_folder: Path
    image_size: tuple[int, int]
    intrinsics: NDArray[np.float64]
    depth_intrinsics: NDArray[np.float64] | None = None
    depth_size: tuple[int, int] | None = None
    class_table: str | None = None

    @cached_property
    def frames(self) -> tuple['Frame', ...]:
        """The V frames in the order of the infos, unusable ones too."""
        poses = np.array([image['world_from_cam'] for image in self.images], dtype=np.float64)
        poses = poses.reshape(-1, 4, 4)  # (V, 4, 4)
        rigid = valid_poses(torch.from_numpy(poses)).tolist()

        return tuple(
            Frame(
                scene=self,
                name=image['frame'],
                image_file=image['img_path'],
                depth_file=image.get('depth_path'),
                world_from_cam=pose,
                fault=None if is_rigid else 'the pose is not a rigid motion',
                own_intrinsics=_matrix(image.get('cam2img')),
                own_depth_intrinsics=_matrix(image.get('depth2img')),
            )
            for image, pose, is_rigid in zip(self.images, poses, rigid)
        )

    @property
    def usable_frames(self) -> tuple['Frame', ...]:
        """Frames without a fault."""
        return tuple(frame for frame in self.frames if frame.fault is None)

    def cameras(self, frames: Sequence['Frame']) -> Camera:
        """Colour cameras of V of its frames, float32, with (V, 4, 4) poses.

        The intrinsics are (3, 3), or (V, 3, 3) where one of the frames has its own.
        """
        own = [frame.own_intrinsics for frame in frames]
        return Camera(_each_or_all(own, self.intrinsics), _poses(frames), self.image_size)

    def depth_cameras(self, frames: Sequence['Frame'], size: Sequence[int]) -> Camera | None:
        """Cameras of depth images of a size (h, w); None: the colour cameras, resized."""
        if self.depth_intrinsics is None:
            return None
        own = [frame.own_depth_intrinsics for frame in frames]
        intrinsics = _each_or_all(own, self.depth_intrinsics)
        return Camera(intrinsics, _poses(frames), (int(size[0]), int(size[1])))


@dataclass(frozen=True, eq=False)
class Frame:
    """One posed image of a scene.

    Attributes:
        scene: that it belongs to.
        name: of the frame, unique in the scene.
        image_file: colour image, relative to the scene's ``image_folder``.
        depth_file: depth image likewise, or None.
        world_from_cam: (4, 4) float64.
        fault: why the frame cannot be used, None where it can.
        own_intrinsics, own_depth_intrinsics: (3, 3) float64 where they are not the scene's.
    """

    scene: Scene
    name: str
    image_file: str
    depth_file: str | None
    world_from_cam: NDArray[np.float64]
    fault: str | None = None
    own_intrinsics: NDArray[np.float64] | None = None
    own_depth_intrinsics: NDArray[np.float64] | None = None

    @property
    def key(self) -> str:
        """``scene/frame``, as in the store."""
        return f'{self.scene.name}/{self.name}'

    @property
    def image_path(self) -> Path:
        """The colour image.

        Raises:
            ValueError: the path leads out of the scene's folder.
        """
        return self.beside(self.image_file)

    @property
    def depth_path(self) -> Path | None:
        """The depth image, or None; raises as ``image_path``."""
        return None if self.depth_file is None else self.beside(self.depth_file)

    def label_path(self, suffix: str) -> Path:
        """A picture of labels: the colour image's path with another ending, ``.semantic.png``."""
        return self.beside(str(Path(self.image_file).with_suffix('').as_posix()) + suffix)

    def beside(self, relative: str) -> Path:
        """A path in the scene's ``image_folder``, checked not to leave it."""
        return resolve_in_root(self.scene.image_folder, relative)

    @property
    def camera(self) -> Camera:
        """The camera of the colour image, float32."""
        return self.scene.cameras([self])[0]

    def depth_camera(self, size: Sequence[int]) -> Camera | None:
        """The camera of a depth image of a size (h, w); see ``Scene.depth_cameras``."""
        cameras = self.scene.depth_cameras([self], size)
        return None if cameras is None else cameras[0]


def read_scenes(
    data_root: str | Path, split: str | None = None, names: Iterable[str] | None = None
) -> dict[str, Scene]:
    """The scenes of a data root by name.

    Args:
        data_root: folder with ``oneformer3d_infos_<split>.json``.
        split: of this one only; None reads all infos there are. A scene of several splits is
            taken from the first.
        names: only these scenes, in this order.

    Raises:
        FileNotFoundError: no infos of the split.
        ValueError: broken infos; scenes that they do not have (all are named).
    """
    root = Path(data_root)
    scenes: dict[str, Scene] = {}
    for path in find_infos(root) if split is None else [root / INFOS_NAME.format(split)]:
        infos = read_infos(path)
        for info in infos['data_list']:
            try:
                points_path = resolve_in_root(root / 'points', info['lidar_points']['lidar_path'])
                scene = make_scene(
                    info, points_path, root / 'posed_images', infos['metainfo'].get('dataset')
                )
            except ValueError as error:
                raise ValueError(f'{path}: {error}') from error
            scenes.setdefault(scene.name, scene)
    if names is None:
        return scenes

    names = list(dict.fromkeys(names))
    absent = [name for name in names if name not in scenes]
    if absent:
        raise ValueError(f'{root}: no infos of {len(absent)} scenes: {listed(absent)}')
    return {name: scenes[name] for name in names}


def make_scene(
    info: Mapping[str, Any],
    points_path: str | Path,
    image_folder: str | Path,
    class_table: str | None = None,
) -> Scene:
    """The record of one scene of checked infos.

    Args:
        info: an entry of ``data_list``.
        points_path: file of its points.
        image_folder: folder that its image paths are relative to.
        class_table: name of the class table of its labels.

    Raises:
        ValueError: images without size or intrinsics.
    """
    images = info.get('images')
    if not isinstance(images, list):  # mmdet3d's own infos have a dictionary by camera
        images = []
    if images and (info.get('image_size') is None or info.get('cam2img') is None):
        raise ValueError(f'{info["scene_id"]}: has images, but no image_size or no cam2img')

    intrinsics = _matrix(info.get('cam2img'))
    return Scene(
        name=info['scene_id'],
        points_path=Path(points_path),
        images=images,
        image_folder=Path(image_folder),
        image_size=_size(info.get('image_size')) or (1, 1),
        intrinsics=np.eye(3) if intrinsics is None else intrinsics,
        depth_intrinsics=_matrix(info.get('depth2img')),
        depth_size=_size(info.get('depth_size')),
        class_table=class_table,
    )


def find_infos(data_root: str | Path) -> list[Path]:
    """Infos of all splits of a data root, sorted."""
    return sorted(Path(data_root).glob(INFOS_NAME.format('*')))


def find_data_root(scenes_file: str | None, data_root: str | None) -> Path:
    """The data root given, else the folder above the scenes file that holds infos.

    Raises:
        FileNotFoundError: the scenes file or the infos are missing.
    """
    if scenes_file is not None and not Path(scenes_file).is_file():
        raise FileNotFoundError(f'{scenes_file}: no such file with scenes')
    if data_root is not None:
        if not find_infos(data_root):
            raise FileNotFoundError(f'{data_root}: holds no oneformer3d_infos_<split>.json')
        return Path(data_root)

    if scenes_file is None:
        raise ValueError('give a file of scenes or the data root')
    folders = list(Path(scenes_file).resolve().parents)[:2]
    for folder in folders:
        if find_infos(folder):
            return folder
    raise FileNotFoundError(
        f'{scenes_file}: no oneformer3d_infos_<split>.json in {" or ".join(map(str, folders))}; '
        'give the data root'
    )


def read_scene_list(path: str | Path) -> list[str]:
    """Scene names of a text file, one per line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no scenes, or a name that is not safe; names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such scene list')
    try:
        names = [validate_scene_name(name) for name in path.read_text(encoding='utf-8').split()]
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    if not names:
        raise ValueError(f'{path}: holds no scenes')
    return names


def check_point_files(frames: Sequence[Frame]) -> None:
    """Raise FileNotFoundError, naming them all, for scenes without a point file."""
    paths = {str(frame.scene.points_path) for frame in frames}
    missing = sorted(path for path in paths if not Path(path).is_file())
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} scenes have no points for the valid-projection rate (rate_points 0 '
            f'does without): {listed(missing)}'
        )


def listed(names: Sequence[str]) -> str:
    """Names in a row, the first twenty of them."""
    more = f' and {len(names) - MAX_LISTED} more' if len(names) > MAX_LISTED else ''
    return ', '.join(names[:MAX_LISTED]) + more


def _poses(frames: Sequence[Frame]) -> Tensor:
    poses = [frame.world_from_cam for frame in frames]
    return _float32(np.stack(poses) if poses else np.zeros((0, 4, 4)))


def _each_or_all(own: Sequence[NDArray | None], common: NDArray[np.float64]) -> Tensor:
    """Intrinsics (V, 3, 3) where some frames have their own, else the common (3, 3)."""
    if all(matrix is None for matrix in own):
        return _float32(common)
    return _float32(np.stack([common if matrix is None else matrix for matrix in own]))


def _float32(array: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def _matrix(values: Any) -> NDArray[np.float64] | None:
    return None if values is None else np.asarray(values, dtype=np.float64)


def _size(values: Any) -> tuple[int, int] | None:
    return None if values is None else (int(values[0]), int(values[1]))
