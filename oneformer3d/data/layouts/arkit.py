"""Recordings of Apple's devices: ARKitScenes, and the iPhone of ScanNet++.

Enters: a folder. Leaves: a ``Listing``, or None. Depth is in millimetres and smaller than colour;
each frame has a camera of its own.

- ARKitScenes: ``lowres_wide/ lowres_depth/ lowres_wide_intrinsics/*.pincam lowres_wide.traj``;
  a line of the trajectory is time, axis · angle and translation, world to camera
- ScanNet++: ``pose_intrinsic_imu.json`` with ``rgb/ depth/``; frame → pose and K of the image
"""

import json
from pathlib import Path

import cv2
import numpy as np

from .cameras import pinhole, read_numbers, stated_size
from .listing import frame_name, in_order, subfolders, text_files, with_suffix
from .pixels import COLOR_SUFFIXES, DEPTH_SUFFIXES
from .records import ListedFrame, Listing, Matrix, Size

_MAX_TIME = 0.02  # seconds between an image and its pose


def list_arkitscenes(folder: Path) -> Listing | None:
    """The frames of an ARKitScenes recording whose time has a pose."""
    trajectories = text_files(folder, ('.traj',))
    colors = subfolders(folder, ('lowres_wide', 'vga_wide', 'wide', 'rgb', 'color'))
    if not trajectories or not colors:
        return None
    depths = subfolders(folder, ('lowres_depth', 'highres_depth', 'depth'))
    cameras = [p for p in folder.iterdir() if p.is_dir() and p.name.endswith('intrinsics')]

    times, poses = _read_trajectory(trajectories[0])
    images = {_time(path): path for path in with_suffix(colors[0], COLOR_SUFFIXES)}
    depth = {_time(path): path for d in depths[:1] for path in with_suffix(d, DEPTH_SUFFIXES)}
    pincams = {
        _time(path): path
        for inner in sorted(cameras, key=lambda p: not p.name.startswith(colors[0].name))[:1]
        for path in with_suffix(inner, ('.pincam',))
    }
    frames = []
    for time in sorted(images):
        nearest = int(np.abs(times - time).argmin())
        if abs(times[nearest] - time) > _MAX_TIME:
            continue
        K, size = _read_pincam(_near(pincams, time))
        name = frame_name(images[time])
        frames.append(ListedFrame(name, images[time], _near(depth, time), poses[nearest], K, size))

    num_without = len(images) - len(frames)
    warning = f'{num_without} of {len(images)} images have no pose within {_MAX_TIME} s'
    return Listing(
        source=f'ARKitScenes ({colors[0].name}/, {trajectories[0].name})',
        frames=tuple(frames),
        convention='opencv-w2c',
        warnings=(warning,) if num_without else (),
    )


def list_scannetpp(folder: Path) -> Listing | None:
    """The frames of ``pose_intrinsic_imu.json``.

    Raises:
        ValueError: the file is broken.
    """
    path = folder / 'pose_intrinsic_imu.json'
    if not path.is_file():
        return None

    colors = subfolders(folder, ('rgb', 'color', 'images'))
    depths = subfolders(folder, ('depth',))
    images = {p.stem: p for d in colors[:1] for p in with_suffix(d, COLOR_SUFFIXES)}
    depth = {p.stem: p for d in depths[:1] for p in with_suffix(d, DEPTH_SUFFIXES)}

    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        names = in_order(content.keys() & images.keys())
        frames = tuple(
            ListedFrame(
                name,
                images[name],
                depth.get(name),
                np.array(_pose_of(content[name]), dtype=np.float64).reshape(4, 4),
                K=np.array(content[name]['intrinsic'], dtype=np.float64).reshape(3, 3),
            )
            for name in names
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f'{path}: not poses and intrinsics by frame ({error!r})') from error
    return Listing(source='ScanNet++ iPhone (pose_intrinsic_imu.json, rgb/, depth/)', frames=frames)


def _pose_of(entry: dict) -> list:
    """``aligned_pose`` is in the coordinates of the data set's mesh, ``pose`` in the phone's."""
    return entry['aligned_pose'] if 'aligned_pose' in entry else entry['pose']


def _read_trajectory(path: Path) -> tuple[np.ndarray, Matrix]:
    """Times (P,) and poses (P, 4, 4), world to camera."""
    rows = read_numbers(path)
    if rows.shape[1] != 7:
        raise ValueError(f'{path}: expected 7 numbers in a line, got {rows.shape[1]}')
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    for pose, row in zip(poses, rows):
        pose[:3, :3] = cv2.Rodrigues(row[1:4])[0]
        pose[:3, 3] = row[4:]
    return rows[:, 0], poses


def _read_pincam(path: Path | None) -> tuple[Matrix | None, Size | None]:
    """K and the (H, W) it belongs to, of ``width height fx fy cx cy``."""
    if path is None:
        return None, None
    numbers = read_numbers(path).ravel()
    if len(numbers) != 6:
        raise ValueError(f'{path}: expected width height fx fy cx cy, got {len(numbers)} numbers')
    return pinhole(*numbers[2:]), stated_size(numbers[1], numbers[0], path)


def _time(path: Path) -> float:
    """The time stamp at the end of a name, ``<video>_<seconds>.png``."""
    try:
        return float(path.stem.rpartition('_')[2])
    except ValueError as error:
        raise ValueError(f'{path}: its name does not end with a time stamp') from error


def _near(paths: dict[float, Path], time: float) -> Path | None:
    """The file of that time, the stamps of colour, depth and camera differ by milliseconds."""
    if time in paths:
        return paths[time]
    nearest = min(paths, key=lambda other: abs(other - time), default=None)
    return paths[nearest] if nearest is not None and abs(nearest - time) <= _MAX_TIME else None
