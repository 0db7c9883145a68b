"""Recordings with all poses in one file: TUM, Redwood and Open3D, Replica, slambook2, HoloLens.

Enters: a folder. Leaves: a ``Listing``, or None where no file of poses goes with its images.
What a pose file is, its contents tell:

- 8 numbers in a line, time stamp first: TUM RGB-D (and ICL-NUIM in its form), 1/5000 m
- 7 numbers, ``x y z qx qy qz qw``: slambook2, millimetres
- 16 or 12 numbers, a matrix row by row: Replica of NICE-SLAM (``results/``, 1/6553.5 m),
  the HoloLens of deep-video-mvs (``images/ depth/ K.txt``), KITTI's form
- five lines per frame (``.log``) or ``PinholeCameraTrajectory`` (``.json``): Redwood, Open3D
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.names import resolve_in_root

from .cameras import check_intrinsics, pinhole, pose_from_quaternion, read_numbers
from .frame_files import find_intrinsics
from .listing import (
    FilesByFrame,
    files_by_frame,
    files_side_by_side,
    frame_name,
    in_order,
    subfolders,
    text_files,
    time_order,
)
from .records import ListedFrame, Listing, Matrix

_MATRICES = 'HoloLens or other matrices in lines'
_MAX_TIME = 0.02  # seconds between a pose, a colour and a depth image of one frame
_PRIMESENSE = (pinhole(525, 525, 319.5, 239.5), (480, 640), "Open3D's PrimeSense")
_REPLICA = (pinhole(600, 600, 599.5, 339.5), (680, 1200), 'Replica of NICE-SLAM')
_FREIBURG = {
    'freiburg1': pinhole(517.3, 516.5, 318.6, 255.3),
    'freiburg2': pinhole(520.9, 521.0, 325.1, 249.7),
    'freiburg3': pinhole(535.4, 539.2, 320.1, 247.6),
}
_NO_POSES = ('assoc', 'odometry', 'intrinsic', 'accelerometer', 'imu', 'rgb.', 'depth.')


@dataclass(frozen=True)
class PoseFile:
    """Poses (P, 4, 4) of one file, their time stamps (P,) or None, and what kind it is."""

    path: Path
    kind: str
    poses: Matrix
    stamps: NDArray[np.float64] | None = None
    convention: str = 'opencv'
    K: Matrix | None = None


def list_trajectory(folder: Path) -> Listing | None:
    """The frames of a folder whose poses are in one file; see ``Listing``."""
    files, results = _images(folder)
    if not (files.color or files.depth):
        return None
    candidates = [read_pose_file(path) for path in _pose_files(folder)]
    found = [pose_file for pose_file in candidates if pose_file is not None]
    if not found:
        return None

    poses = found[0]
    if poses.kind == 'TUM RGB-D':
        frames, warnings = _frames_by_time(folder, files, poses)
    if poses.kind != 'TUM RGB-D' or not frames:
        frames, warnings = _frames_by_order(files, poses)
    kind = 'Replica of NICE-SLAM' if results and poses.kind == _MATRICES else poses.kind
    intrinsics = find_intrinsics(folder)
    scale = {'TUM RGB-D': 5000.0, 'Replica of NICE-SLAM': 6553.5}.get(kind, 1000.0)

    json_K, json_scale = _camera_json(folder)
    color_K = intrinsics.color
    if intrinsics.color is None and intrinsics.depth is None:
        color_K = poses.K if poses.K is not None else json_K
    return Listing(
        source=f'{kind} ({files.where}, {poses.path.name}{intrinsics.where})',
        frames=frames,
        convention=poses.convention,
        depth_scale=scale if json_scale is None else json_scale,
        color_intrinsics=color_K,
        depth_intrinsics=intrinsics.depth,
        intrinsics_fault=intrinsics.fault,
        usual_intrinsics=_usual(kind, folder),
        warnings=warnings,
    )


def read_pose_file(path: Path) -> PoseFile | None:
    """Poses of a file, None if it holds none; nothing is raised for files of other kinds."""
    try:
        if path.suffix.lower() == '.json':
            return _open3d_json(path)
        numbers = np.asarray(read_numbers(path))
    except ValueError:
        return _log_of_blocks(path)
    return _table_of_poses(path, numbers)


def _table_of_poses(path: Path, numbers: NDArray) -> PoseFile | None:
    """Poses of a table with one frame in a row."""
    rows, columns = numbers.shape
    if columns == 8:
        poses = [pose_from_quaternion(row[1:4], row[4:]) for row in numbers]
        return PoseFile(path, 'TUM RGB-D', np.stack(poses), numbers[:, 0])
    if columns in (13, 17):  # a number of the frame first
        return _table_of_poses(path, numbers[:, 1:])
    if columns == 7:
        poses = [pose_from_quaternion(row[:3], row[3:]) for row in numbers]
        return PoseFile(path, 'slambook2', np.stack(poses))
    if columns in (12, 16):
        poses = np.tile(np.eye(4), (rows, 1, 1))
        poses[:, : columns // 4] = numbers.reshape(rows, columns // 4, 4)
        return PoseFile(path, _MATRICES, poses)
    if columns == 4 and rows % 4 == 0 and rows >= 8:  # matrices below each other
        return PoseFile(path, _MATRICES, numbers.reshape(-1, 4, 4))
    return None


def _log_of_blocks(path: Path) -> PoseFile | None:
    """Redwood's ``.log``: a line of three whole numbers, then the four rows of the pose."""
    try:
        lines = [line.split() for line in path.read_text(encoding='utf-8').splitlines()]
        lines = [line for line in lines if line]
        if len(lines) % 5 or not lines or any(len(line) != 3 for line in lines[::5]):
            return None
        rows = [line for index, line in enumerate(lines) if index % 5]
        numbers = np.array(rows, dtype=np.float64)
    except (ValueError, OSError):
        return None
    if numbers.ndim != 2 or numbers.shape[1] != 4:
        return None
    return PoseFile(path, 'Redwood or Open3D', numbers.reshape(-1, 4, 4))


def _open3d_json(path: Path) -> PoseFile | None:
    """Open3D's ``PinholeCameraTrajectory``: columns of matrices, world to camera."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        parameters = content['parameters']
        extrinsics = [np.array(p['extrinsic'], dtype=np.float64) for p in parameters]
        poses = np.stack([matrix.reshape(4, 4).T for matrix in extrinsics])
        K = _column_major_intrinsics(parameters[0].get('intrinsic'))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, OSError):
        return None
    return PoseFile(path, 'Redwood or Open3D', poses, convention='opencv-w2c', K=K)


def _column_major_intrinsics(intrinsic: dict | None) -> Matrix | None:
    if intrinsic is None or 'intrinsic_matrix' not in intrinsic:
        return None
    return np.array(intrinsic['intrinsic_matrix'], dtype=np.float64).reshape(3, 3).T


def _camera_json(folder: Path) -> tuple[Matrix | None, float | None]:
    """K and depth units per metre of ``cam_params.json`` or an Open3D intrinsic file."""
    for place in (folder, folder.parent, folder.parent.parent):
        for path in text_files(place, ('.json',)):
            try:
                content = json.loads(path.read_text(encoding='utf-8'))
                camera = content.get('camera', content)
                scale = camera.get('scale', camera.get('depth_scale'))
                if 'intrinsic_matrix' in camera:
                    K = _column_major_intrinsics(camera)
                else:
                    K = pinhole(*(float(camera[key]) for key in ('fx', 'fy', 'cx', 'cy')))
                if K is None:
                    continue
                check_intrinsics(K, str(path), may_mirror=True)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
            return K, None if scale is None else float(scale)
    return None, None


def _images(folder: Path) -> tuple[FilesByFrame, bool]:
    """Images of the folder, or of its folder ``results`` with ``frame0.jpg`` and ``depth0.png``."""
    for inner in subfolders(folder, ('results',)):
        files = files_side_by_side(inner)
        images = [path for path in inner.iterdir() if path.name.lower().startswith('frame')]
        files.color = files.color or {
            frame_name(path): path
            for path in images
            if path.suffix.lower() in ('.jpg', '.jpeg', '.png')
        }
        if files.color and files.depth:
            files.where = f'{inner.name}/'
            return files, True
    return files_by_frame(folder), False


def _pose_files(folder: Path) -> list[Path]:
    """Files that may hold poses; those named for it first."""
    paths = text_files(folder, ('.txt', '.log', '.json', '.freiburg', '.traj', '.csv'))
    paths = [p for p in paths if not p.name.lower().startswith(_NO_POSES)]
    names = ('groundtruth', 'traj', 'pose', 'camera')

    def rank(path: Path) -> int:
        found = (i for i, name in enumerate(names) if name in path.name.lower())
        return next(found, len(names))

    return sorted(paths, key=lambda path: (rank(path), path.suffix != '.log', path.name))


def _frames_by_order(
    files: FilesByFrame, poses: PoseFile
) -> tuple[tuple[ListedFrame, ...], tuple[str, ...]]:
    """Frame k has pose k; images of which some are missing have the pose of their number."""
    names = in_order(files.color.keys() | files.depth.keys())
    num_poses = len(poses.poses)
    if len(names) == num_poses:
        pose_of, warnings = dict(zip(names, poses.poses)), ()
    else:
        numbers = {name: _number(name) for name in names}
        known = [number for number in numbers.values() if number is not None]
        if len(known) < len(names) or max(known) >= num_poses:
            raise ValueError(
                f'{poses.path}: {num_poses} poses for {len(names)} frames, whose names do not tell '
                'which'
            )
        pose_of = {name: poses.poses[number] for name, number in numbers.items()}
        warnings = (
            f'{num_poses} poses for {len(names)} frames: each has the pose of its number, from 0',
        )

    frames = tuple(
        ListedFrame(name, files.color.get(name), files.depth.get(name), pose_of[name])
        for name in names
    )
    return frames, warnings


def _number(name: str) -> int | None:
    digits = name.rpartition('_')[2]
    return int(digits) if digits.isdecimal() else None


def _frames_by_time(
    folder: Path, files: FilesByFrame, poses: PoseFile
) -> tuple[tuple[ListedFrame, ...], tuple[str, ...]]:
    """Colour, depth and pose that are nearest in time; what has no partner is counted."""
    pairs = _associated(folder)
    if not pairs:
        color = _stamped(folder, 'rgb.txt', list(files.color.values()))
        depth = _stamped(folder, 'depth.txt', list(files.depth.values()))
        partner = _nearest([stamp for stamp, _ in color], [stamp for stamp, _ in depth])
        pairs = [
            (stamp, path, None if j is None else depth[j][1])
            for (stamp, path), j in zip(color, partner)
            if j is not None or not depth
        ]
    stamps = [] if poses.stamps is None else poses.stamps.tolist()
    of_pose = _nearest([pair[0] for pair in pairs], stamps)

    frames = tuple(
        ListedFrame(frame_name(image), image, depth_path, poses.poses[j])
        for (_, image, depth_path), j in zip(pairs, of_pose)
        if j is not None
    )
    num_alone = len(files.color) - len(frames)
    warnings = ()
    if num_alone > 0:
        warnings = (
            f'{num_alone} of {len(files.color)} colour images have no depth or no pose within '
            f'{_MAX_TIME} s and are left out',
        )
    return frames, warnings


def _associated(folder: Path) -> list[tuple[float, Path, Path]]:
    """Time, colour and depth of ``associations.txt``, whichever of both comes first."""
    for path in text_files(folder, ('.txt',)):
        if not path.name.lower().startswith('assoc'):
            continue
        rows = [line.split() for line in path.read_text(encoding='utf-8').splitlines()]
        rows = [row for row in rows if len(row) == 4 and not row[0].startswith('#')]
        pairs = [
            (float(t1), resolve_in_root(folder, f1), resolve_in_root(folder, f2))
            if not f1.lower().startswith('depth')
            else (float(t2), resolve_in_root(folder, f2), resolve_in_root(folder, f1))
            for t1, f1, t2, f2 in rows
        ]
        return [pair for pair in pairs if pair[1].is_file() and pair[2].is_file()]
    return []


def _stamped(folder: Path, index: str, paths: Sequence[Path]) -> list[tuple[float, Path]]:
    """Images with their time: of the file that lists them, else of their names."""
    listed = folder / index
    if listed.is_file():
        rows = [line.split() for line in listed.read_text(encoding='utf-8').splitlines()]
        rows = [row for row in rows if len(row) >= 2 and not row[0].startswith('#')]
        found = [(float(row[0]), resolve_in_root(folder, row[1])) for row in rows]
        return sorted(item for item in found if item[1].is_file())
    named = []
    for path in sorted(paths, key=lambda path: time_order(path.name)):
        try:
            named.append((float(frame_name(path)), path))
        except ValueError as error:
            raise ValueError(
                f'{path}: its name is no time stamp, and no {index} gives one'
            ) from error
    return named


def _nearest(wanted: Sequence[float], there: Sequence[float]) -> list[int | None]:
    """For each time the index of the nearest other one within ``_MAX_TIME``, or None."""
    if not len(wanted) or not len(there):
        return [None] * len(wanted)
    times, others = np.asarray(wanted), np.asarray(there)
    order = np.argsort(others)
    right = np.searchsorted(others[order], times).clip(1, max(1, len(others) - 1))
    candidates = np.stack([right - 1, np.minimum(right, len(others) - 1)])  # (2, T)
    distance = np.abs(others[order][candidates] - times)
    best = np.take_along_axis(candidates, distance.argmin(0)[None], 0)[0]
    return [int(order[j]) if d <= _MAX_TIME else None for j, d in zip(best, distance.min(0))]


def _usual(kind: str, folder: Path) -> tuple[Matrix, tuple[int, int], str] | None:
    if kind == 'Redwood or Open3D':
        return _PRIMESENSE
    if kind == 'Replica of NICE-SLAM':
        return _REPLICA
    if kind == 'TUM RGB-D':
        for name, K in _FREIBURG.items():
            if name in str(folder.resolve()).lower():
                return K, (480, 640), f'TUM {name}'
        return pinhole(525, 525, 319.5, 239.5), (480, 640), "TUM's ROS default"
    return None
