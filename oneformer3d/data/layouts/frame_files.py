"""Recordings with one pose file per frame: 7-Scenes, 3DMatch, ScanNet's export, posed_images.

Enters: a folder. Leaves: a ``Listing``, or None where no frame has a pose file of its own.
Poses are 4×4 ``world_from_cam`` in OpenCV axes and metres, depth is in millimetres.

- 7-Scenes and 3DMatch: ``frame-000000.color.png .depth.png .pose.txt``; the intrinsics are one
  folder up in 3DMatch and nowhere in 7-Scenes as downloaded
- ScanNet's export: ``color/0.jpg depth/0.png pose/0.txt intrinsic/intrinsic_color.txt``
- this package's ``posed_images/<scene>``: ``00000.jpg .png .txt``, ``intrinsic.txt``
"""

from dataclasses import dataclass
from pathlib import Path

from .cameras import (
    check_intrinsics,
    pinhole,
    read_intrinsics_file,
    read_intrinsics_numbers,
    read_matrix,
)
from .listing import FilesByFrame, files_by_frame, in_order, subfolders
from .records import ListedFrame, Listing, Matrix

# 7-Scenes gives the depth camera only and does not register colour to it: taken with the same
# intrinsics, colours are off by up to 35 pixels. Maximising the image gradient under depth edges
# over a kitchen sequence gives these for colour; the shift of the principal point stands for the
# 2 cm between the cameras, right at 1.6 m and within 5 pixels from 1 to 4 m.
SEVEN_SCENES_DEPTH = pinhole(585, 585, 320, 240)
SEVEN_SCENES_COLOR = pinhole(526.5, 526.5, 314.8, 238.5)

_COLOR_FILES = ('intrinsic_color', 'color-intrinsics', 'color_intrinsics', 'intrinsic', 'K')
_DEPTH_FILES = ('intrinsic_depth', 'camera-intrinsics', 'depth_intrinsic', 'depth-intrinsics')
_ANY_FILES = ('intrinsics', 'camera_intrinsics', 'camera', 'cam_K', 'camera_matrix')


def list_frame_files(folder: Path) -> Listing | None:
    """The frames of a folder whose poses are one text file each; see ``Listing``."""
    files = files_by_frame(folder)
    frames_with_pose = files.pose.keys() & (files.depth.keys() | files.color.keys())
    if not frames_with_pose or not (files.depth or files.color):
        return None

    # a sequence is its depth images; posed RGB without depth its colour images
    names = in_order(files.depth or files.color)
    frames = tuple(_listed_frame(files, name) for name in names)
    intrinsics = find_intrinsics(folder)
    usual = (SEVEN_SCENES_DEPTH, (480, 640), '7-Scenes')
    return Listing(
        source=f'{_layout_name(files)} ({files.where}, one pose file per frame{intrinsics.where})',
        frames=frames,
        color_intrinsics=intrinsics.color,
        depth_intrinsics=intrinsics.depth,
        intrinsics_fault=intrinsics.fault,
        usual_intrinsics=usual if _is_seven_scenes(files) else None,
        usual_color_intrinsics=SEVEN_SCENES_COLOR if _is_seven_scenes(files) else None,
    )


def _listed_frame(files: FilesByFrame, name: str) -> ListedFrame:
    """A frame with its pose, or with what is wrong with the pose's file."""
    pose, fault = None, None
    if name in files.pose:
        try:
            pose = read_matrix(files.pose[name], 4)
        except ValueError as error:
            fault = str(error).replace(f'{files.pose[name].parent}/', '')
    return ListedFrame(
        name,
        files.color.get(name),
        files.depth.get(name),
        pose,
        K=_own_intrinsics(files, name),
        fault=fault,
    )


@dataclass(frozen=True, eq=False)
class FoundIntrinsics:
    """Intrinsics as they are written in files.

    Attributes:
        color, depth: (3, 3), None where there is none.
        where: their files, in words.
        fault: why no pinhole camera has them, None if one has.
    """

    color: Matrix | None = None
    depth: Matrix | None = None
    where: str = ''
    fault: str | None = None


def find_intrinsics(folder: Path) -> FoundIntrinsics:
    """Intrinsics that lie in the folder, in its folder ``intrinsic``, or one folder up.

    Raises:
        ValueError: a file is no matrix of that size; names it.
    """
    places = [folder, *subfolders(folder, ('intrinsic', 'intrinsics', 'calibration'))]
    for place in (*places, folder.parent):
        color, depth = _first_file(place, _COLOR_FILES), _first_file(place, _DEPTH_FILES)
        if color is None and depth is None:
            color = _first_file(place, _ANY_FILES)
        if color is None and depth is None:
            continue
        names = ' '.join(path.name for path in (color, depth) if path is not None)
        above = ' one folder up' if place == folder.parent else ''
        K, depth_K = (None if p is None else read_intrinsics_numbers(p) for p in (color, depth))
        faults = [_fault(matrix, path) for matrix, path in ((K, color), (depth_K, depth))]
        return FoundIntrinsics(
            K, depth_K, f', {names}{above}', next((f for f in faults if f is not None), None)
        )
    return FoundIntrinsics()


def _fault(K: Matrix | None, path: Path | None) -> str | None:
    """Why a matrix that was found is not that of a pinhole camera."""
    if K is None:
        return None
    try:
        check_intrinsics(K, str(path), may_mirror=True)
    except ValueError as error:
        return str(error)
    return None


def _first_file(folder: Path, stems: tuple[str, ...]) -> Path | None:
    by_name = {path.name.lower(): path for path in folder.glob('*.txt')}
    names = (f'{stem}.txt'.lower() for stem in stems)
    return next((by_name[name] for name in names if name in by_name), None)


def _own_intrinsics(files: FilesByFrame, name: str) -> Matrix | None:
    """Of ``posed_images``: ``00000.intrinsic.txt``, where frames have cameras of their own."""
    pose = files.pose.get(name)
    path = None if pose is None else pose.with_name(f'{pose.stem}.intrinsic.txt')
    return None if path is None or not path.is_file() else read_intrinsics_file(path)


def _is_seven_scenes(files: FilesByFrame) -> bool:
    return bool(files.color or files.depth) and all(
        path.name.lower().startswith('frame-')
        for path in (*files.color.values(), *files.depth.values())
    )


def _layout_name(files: FilesByFrame) -> str:
    if files.where == 'files of one name':
        return 'posed_images'
    if files.where == 'files named for their role':
        return '7-Scenes or 3DMatch' if _is_seven_scenes(files) else 'files per frame'
    return "ScanNet's export"
