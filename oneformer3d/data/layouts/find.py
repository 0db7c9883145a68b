"""Which layout a folder is in, and its frames in the house's terms.

Enters: a folder, and what the user states about it. Leaves: a ``PosedFolder``: OpenCV axes, metres,
a camera for each frame; what was assumed, left out or doubted stands in its ``warnings``.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from oneformer3d.files.left_out import LeftOut, LossRules
from oneformer3d.lifting.camera import is_valid_pose

from .arkit import list_arkitscenes, list_scannetpp
from .cameras import as_world_from_cam, mirror_y, of_size, parse_intrinsics, same_shape
from .colmap import list_colmap
from .doubts import doubts
from .frame_files import list_frame_files
from .listing import describe_contents
from .nerfstudio import list_nerfstudio
from .pixels import ImageHeader, color_header, depth_header
from .records import ListedFrame, Listing, Matrix, PosedFolder, PosedFrame, Size
from .settle import CameraNotes, fit_to_images, settle_cameras
from .trajectories import list_trajectory

LAYOUTS: dict[str, Callable[[Path], Listing | None]] = {
    'nerfstudio (transforms.json)': list_nerfstudio,
    'ScanNet++ iPhone (pose_intrinsic_imu.json rgb/ depth/)': list_scannetpp,
    'ARKitScenes (lowres_wide/ lowres_depth/ lowres_wide.traj)': list_arkitscenes,
    'COLMAP text (cameras.txt images.txt)': list_colmap,
    '7-Scenes, 3DMatch (frame-N.color.png .depth.png .pose.txt), ScanNet export (color/ depth/ '
    'pose/ intrinsic/), posed_images (N.jpg N.png N.txt intrinsic.txt)': list_frame_files,
    'TUM (rgb/ depth/ groundtruth.txt), Redwood or Open3D (color/ depth/ trajectory.log|.json), '
    'Replica (results/ traj.txt), slambook2 (color/ depth/ pose.txt), HoloLens (images/ depth/ '
    'K.txt poses.txt)': list_trajectory,
}
_LOST_TRACKING = 'tracking lost: the pose is inf or nan'
_NOT_RIGID = 'the pose is no rigid motion'
_NO_COLOR, _NO_POSE = 'no colour image', 'no pose'
_TURNED = (
    'the image is turned by its EXIF tag: turn its pixels and delete the tag, or only delete it if '
    'pose and intrinsics are of the pixels as they are stored'
)
_MAX_LOOKED_INTO = 100
MAX_DEPTH = 4  # recordings lie at most so many folders below the one that is named
_NEARLY_RIGID = 1e-2  # rounded
_NO_RULES = LossRules(max_lost=1.0)
_RULES = LossRules()


def find_layout(
    folder: str | Path,
    *,
    convention: str | None = None,
    depth_scale: float | None = None,
    intrinsics: str | Path | Matrix | None = None,
    rules: LossRules = _RULES,
    frame_step: int = 1,
    as_written: bool = False,
) -> PosedFolder | None:
    """The frames of a folder, whatever layout it is in, or None.

    Args:
        folder: recognised by what lies in it, not by exact names.
        convention: of its poses, see ``cameras.CONVENTIONS``; None takes the layout's.
        depth_scale: units of its depth images per metre; None takes the layout's.
        intrinsics: ``fx fy cx cy`` of the colour images, (3, 3), or a file; None takes the
            folder's.
        rules: how many frames may be unusable.
        frame_step: take every so many-th frame.
        as_written: for whoever judges it: poses that are no rigid motion and intrinsics that no
            camera has are kept as they stand, and nothing is doubted. Otherwise some frames are
            compared, with a warning where they do not agree as they are read.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: broken files, no usable frame or too many unusable ones, no intrinsics in the
            folder nor stated.
    """
    place: Path | None = Path(folder)
    if frame_step < 1:
        raise ValueError(f'frame_step: expected 1 or more, got {frame_step}')
    if depth_scale is not None and not depth_scale > 0:
        raise ValueError(f'depth_scale: expected a positive number, got {depth_scale}')
    listing = list_folder(place)
    if listing is None:
        place = _only_recording_in(place)
        listing = None if place is None else list_folder(place)
    if place is None or listing is None:
        return None

    if convention is not None:
        listing = replace(listing, convention=convention)
    stated = None if intrinsics is None else parse_intrinsics(intrinsics)
    given = _Given(stated, depth_scale, rules, as_written)
    found = _assemble(place, listing, listing.frames[::frame_step], given)
    if as_written:
        return found
    doubtful = doubts(found.frames, convention is not None, depth_scale is not None)
    return replace(found, warnings=found.warnings + doubtful)


def list_folder(folder: Path) -> Listing | None:
    """What the first layout that fits finds in a folder; None if none does.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a file that belongs to a layout is broken.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder')
    found = (list_frames(folder) for list_frames in LAYOUTS.values())
    return next((listing for listing in found if listing is not None and listing.frames), None)


def recordings_in(folder: Path, depth: int = MAX_DEPTH) -> list[Path]:
    """Folders in a folder that hold a recording, up to so many levels below it."""
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith('.'))
    found: list[Path] = []
    for path in inner[:_MAX_LOOKED_INTO]:
        if _has_frames(path):
            found.append(path)
        elif depth > 1:
            found += recordings_in(path, depth - 1)
    return found


def is_recording(folder: str | Path) -> bool:
    """Whether ``find_layout`` takes a folder for one recording, whatever must be stated to read it.

    Raises:
        FileNotFoundError: no such folder.
    """
    folder = Path(folder)
    return _has_frames(folder) or _only_recording_in(folder) is not None


def _has_frames(folder: Path) -> bool:
    try:
        return list_folder(folder) is not None
    except ValueError:  # a broken one is one; the reason is told when it is read
        return True


def _only_recording_in(folder: Path) -> Path | None:
    """The one recording in a folder, as downloads often have it; None if none or several."""
    found = recordings_in(folder)
    return found[0] if len(found) == 1 else None


def unknown_layout(folder: Path) -> str:
    """What is said about a folder in no known layout: what lies in it, and what is expected."""
    several = recordings_in(folder)
    if several:
        names = ', '.join(str(path.relative_to(folder)) for path in several[:8])
        return f'{folder}: holds {len(several)} recordings, give one of them: {names}'
    return (
        f'{folder}: no posed RGB-D frames; found there: {describe_contents(folder)}; expected '
        f'one of: {"; ".join(LAYOUTS)}'
    )


@dataclass(frozen=True, eq=False)
class _Given:
    """What the caller wants: K of the colour images or None, depth units, rules, no judgement."""

    intrinsics: Matrix | None
    depth_scale: float | None
    rules: LossRules
    as_written: bool


def _assemble(
    folder: Path, listing: Listing, listed: tuple[ListedFrame, ...], given: _Given
) -> PosedFolder:
    """The usable frames with their cameras."""
    if listing.intrinsics_fault is not None and given.intrinsics is None and not given.as_written:
        raise ValueError(listing.intrinsics_fault)
    left_out, lost = LeftOut(str(folder), given.rules), LeftOut(str(folder), _NO_RULES)
    usable: list[_Usable] = []
    for frame in listed:
        try:
            usable.append(_usable(folder, frame, listing, given.as_written))
        except _LostTrackingError as error:
            lost.add(frame.name, str(error))
        except _UnusableError as error:
            left_out.add(frame.name, str(error))

    # K of the folder is of the size that most images have
    sizes = _common_sizes(usable)
    notes, frames = CameraNotes(), []
    for found in usable:
        try:
            cameras = _cameras(folder, listing, found, sizes, given, notes)
        except _UnusableError as error:
            left_out.add(found.frame.name, str(error))
            continue
        frames.append(_posed_frame(listing, found, cameras, given.depth_scale))

    if not frames:
        reasons = '; '.join(x.describe() for x in (left_out, lost) if len(x))
        raise ValueError(f'{folder}: no usable frame: {reasons}')
    left_out.check(len(listed))
    frames, mirrored = _with_y_down(frames)
    said = (*listing.warnings, *notes.warnings(), *mirrored)
    said += tuple(x.describe() for x in (left_out, lost) if len(x))

    reasons = left_out.reasons | lost.reasons
    return PosedFolder(
        folder=folder,
        source=listing.source,
        frames=tuple(frames),
        warnings=said,
        cloud=listing.cloud,
        left_out=tuple(reasons.items()),
        num_dropped_poses=sum(r in (_LOST_TRACKING, _NOT_RIGID) for r in reasons.values()),
        num_incomplete=sum(r in (_NO_COLOR, _NO_POSE) for r in reasons.values()),
    )


class _UnusableError(Exception):
    """Why a frame cannot be used."""


class _LostTrackingError(Exception):
    """A frame whose pose the scanner itself did not know."""


@dataclass(frozen=True, eq=False)
class _Usable:
    """A frame with a sound pose, ``world_from_cam``, and images whose headers can be read."""

    frame: ListedFrame
    image_path: Path
    pose: Matrix
    color: ImageHeader
    depth: ImageHeader | None


def _usable(folder: Path, frame: ListedFrame, listing: Listing, as_written: bool) -> _Usable:
    if frame.image_path is None or not frame.image_path.is_file():
        raise _UnusableError(_NO_COLOR)
    if frame.pose is None:
        raise _UnusableError(_NO_POSE if frame.fault is None else frame.fault)
    rigid = is_valid_pose(torch.from_numpy(frame.pose))
    if not rigid and not as_written:
        if not np.isfinite(frame.pose).all():
            raise _LostTrackingError(_LOST_TRACKING)
        raise _UnusableError(_NOT_RIGID)

    try:
        color = color_header(frame.image_path)
        depth = None if frame.depth_path is None else depth_header(frame.depth_path)
    except ValueError as error:
        raise _UnusableError(str(error).replace(f'{folder}/', '')) from error
    if color.orientation not in (0, 1):  # whether poses and K are of the turned image, none tells
        raise _UnusableError(_TURNED)
    # one that is far from a rigid motion has no convention either
    nearly = rigid or is_valid_pose(torch.from_numpy(frame.pose), _NEARLY_RIGID)
    pose = as_world_from_cam(frame.pose, listing.convention if nearly else 'opencv')
    pose[:3, 3] *= listing.pose_unit
    return _Usable(frame, frame.image_path, pose, color, depth)


def _common_sizes(usable: Sequence[_Usable]) -> tuple[Size, Size | None]:
    """(H, W) of most colour and of most depth images."""
    color = Counter(found.color.size for found in usable).most_common(1)
    depth = Counter(found.depth.size for found in usable if found.depth).most_common(1)
    return color[0][0] if color else (1, 1), depth[0][0] if depth else None


def _cameras(
    folder: Path,
    listing: Listing,
    found: _Usable,
    sizes: tuple[Size, Size | None],
    given: _Given,
    notes: CameraNotes,
) -> tuple[Matrix, Matrix | None]:
    """K of a frame's colour and depth images."""
    color_size, depth_size = found.color.size, found.depth.size if found.depth else None
    own, stated = found.frame.K is not None, given.intrinsics
    if own and stated is None:
        of_sizes = (color_size, depth_size)
    else:
        of_sizes = (sizes[0], None if depth_size is None else sizes[1])
    cameras = settle_cameras(listing, found.frame, *of_sizes, stated, notes, folder)
    if stated is None and not given.as_written:
        cameras = fit_to_images(cameras, *of_sizes, notes, folder)
    if own and stated is None:
        return cameras

    (K, depth_K), common_depth = cameras, of_sizes[1]
    pairs = ((color_size, sizes[0]), (depth_size, common_depth))
    if any(size and common and not same_shape(size, common) for size, common in pairs):
        raise _UnusableError(
            f'{color_size[0]}×{color_size[1]} pixels, another shape than the other images, whose '
            'intrinsics the folder gives'
        )
    K = of_size(K, sizes[0], color_size)
    if depth_K is None or depth_size is None:
        return K, None
    return K, of_size(depth_K, common_depth, depth_size)


def _posed_frame(
    listing: Listing,
    found: _Usable,
    cameras: tuple[Matrix, Matrix | None],
    depth_scale: float | None,
) -> PosedFrame:
    frame, depth = found.frame, found.depth
    usual = listing.float_scale if depth is not None and depth.is_float else listing.depth_scale
    return PosedFrame(
        name=frame.name,
        image_path=found.image_path,
        depth_path=frame.depth_path,
        world_from_cam=found.pose,
        K=cameras[0],
        image_size=found.color.size,
        depth_intrinsics=cameras[1],
        depth_size=None if depth is None else depth.size,
        depth_scale=usual if depth_scale is None else depth_scale,
        distortion=frame.distortion,
    )


def _with_y_down(frames: list[PosedFrame]) -> tuple[list[PosedFrame], tuple[str, ...]]:
    """Frames whose K has fy < 0 (ICL-NUIM: y points up, in the world too) with y down in both."""
    num_mirrored = sum(frame.K[1, 1] < 0 for frame in frames)
    if not num_mirrored:
        return frames, ()

    # K's y axis is turned, and with it y of the camera and of the world
    flip = np.diag([1.0, -1.0, 1.0])
    turned = [
        frame
        if frame.K[1, 1] > 0
        else replace(
            frame,
            world_from_cam=mirror_y(frame.world_from_cam),
            K=frame.K @ flip,
            depth_intrinsics=None
            if frame.depth_intrinsics is None
            else frame.depth_intrinsics @ flip,
        )
        for frame in frames
    ]

    return turned, (
        f'fy < 0: y of the intrinsics and of the poses is mirrored ({num_mirrored} frames)',
    )
