"""Frames of a posed RGB-D sequence, read without trusting what they mean.

Enters: a folder in one of the layouts of ``posed_rgbd``, or ``SourceFrame`` records of any reader.
Leaves: a ``Recording`` of at most a few frames, and ``read``: what they mean after some changes.
N frames of the sequence, F of them looked at, n pixels of each, H×W the depth image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oneformer3d.files.images import UNREADABLE, open_image
from oneformer3d.files.left_out import LossRules

from .. import layouts
from ..layouts.pixels import read_depth_values
from ..layouts.records import PosedFolder
from ..posed_rgbd import find_layout as find_raw_layout
from ..posed_rgbd import read_matrix, read_square_or_padded
from .changes import Change
from .compare import FrameArrays, Reading

_OFFSETS = (0, 1, 3, 8, 20)  # neighbours that are looked at together, in a long sequence
_RIGID_TOLERANCE = 1e-2
_EDGE = 0.03  # of depth between pixels two apart: between them lies the outline of a thing
_OUTLINE = 0.08  # of depth, between neighbours
_MILLIMETRE = 0.001
_LEAST_DETERMINANT = 1e-6  # of intrinsics


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One frame as a reader finds it.

    Attributes:
        name: of the frame.
        color_path, depth_path: its files.
        pose: (4, 4) as it stands there.
        color_intrinsics, depth_intrinsics: (3, 3).
        metres: per value of depth.
    """

    name: str
    color_path: Path
    depth_path: Path
    pose: NDArray[np.float64]
    color_intrinsics: NDArray[np.float64]
    depth_intrinsics: NDArray[np.float64]
    metres: float = _MILLIMETRE


@dataclass(frozen=True, eq=False)
class Recording:
    """What the doctor looks at.

    Attributes:
        frames: N of the sequence.
        chosen: (F,) which of them are looked at.
        track: (N, 4, 4) poses, nan where one is no rigid motion.
        arrays: of the F frames.
        intrinsics: (F, 3, 3) of the depth images.
        color_intrinsics: (3, 3) of the colour images.
        color_size: (H', W').
        transposed: whether the translations stood in the last row.
        num_lost, num_not_rigid, num_unreadable: poses of inf or nan, poses that are no rigid
            motion, images that cannot be read.
        clipped_at: value that a good part of all depth has, where depth was cut off; or 0.
    """

    frames: tuple[SourceFrame, ...]
    chosen: NDArray[np.int64]
    track: NDArray[np.float64]
    arrays: FrameArrays
    intrinsics: NDArray[np.float64]
    color_intrinsics: NDArray[np.float64]
    color_size: tuple[int, int]
    transposed: bool
    num_lost: int
    num_not_rigid: int
    num_unreadable: int
    clipped_at: float

    @property
    def names(self) -> tuple[str, ...]:
        """Of the F frames."""
        return tuple(self.frames[i].name for i in self.chosen)

    @property
    def metres(self) -> float:
        """Per value of depth."""
        return self.frames[int(self.chosen[0])].metres


def read(recording: Recording, changes: Sequence[Change] = ()) -> Reading:
    """What the frames mean after the changes, which are made one after the other."""
    poses, positions = recording.track, recording.chosen.astype(np.float64)
    intrinsics, size = recording.intrinsics, recording.arrays.depth.shape[1:]
    depth, metres = None, recording.metres
    for change in changes:
        poses = poses if change.poses is None else change.poses(poses)
        if change.positions is not None:
            positions = change.positions(positions, len(poses))
        if change.depth is not None:
            depth = change.depth(recording.arrays.depth if depth is None else depth, intrinsics[0])
        if change.intrinsics is not None:
            intrinsics = change.intrinsics(intrinsics, (size[0], size[1]))
        metres *= change.factor

    world_from_cam = poses_at(poses, positions)
    solvable = np.abs(np.linalg.det(intrinsics)) > _LEAST_DETERMINANT
    intrinsics = np.where(solvable[:, None, None], intrinsics, np.eye(3))
    valid = np.isfinite(world_from_cam).all(axis=(1, 2)) & solvable
    world_from_cam = np.where(valid[:, None, None], world_from_cam, np.eye(4))
    return Reading(world_from_cam, intrinsics, metres, valid, depth)


def poses_at(poses: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Poses (F, 4, 4) at positions (F,) of a sequence (N, 4, 4); nan outside of it."""
    outside = (positions < 0) | (positions > len(poses) - 1)
    before = np.clip(np.floor(positions), 0, len(poses) - 1).astype(np.int64)
    share = positions - before
    found = poses[before]
    between = np.flatnonzero((share > 1e-9) & ~outside)
    if len(between):
        after = poses[np.minimum(before + 1, len(poses) - 1)][between]
        weight = share[between, None, None]
        mixed = (1 - weight) * found[between] + weight * after
        found[between] = _orthonormal(mixed)
    found[outside] = np.nan
    return found


def load_recording(folder: str | Path, max_frames: int = 24, num_pixels: int = 300) -> Recording:
    """Read the frames to compare.

    Args:
        folder: in one of the layouts of ``posed_rgbd``.
        max_frames: at most so many.
        num_pixels: n; frames with less depth repeat theirs.

    Raises:
        FileNotFoundError: no such folder or layout, or no intrinsics.
        ValueError: fewer than two usable frames.
    """
    frames = list_frames(folder)
    return recording_of(frames, str(folder), max_frames, num_pixels)


def list_frames(folder: str | Path, intrinsics: str | None = None) -> list[SourceFrame]:
    """The frames of a folder that have colour, depth and pose; raises as ``load_recording``.

    Where each frame has a pose file of its own and K lies beside them, files are taken as they are,
    also those that the package refuses; other layouts are read as the package reads them.
    ``intrinsics``, ``fx fy cx cy`` of the colour images, are for folders that have none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder')
    layout = find_raw_layout(folder)
    if (
        intrinsics
        or layout is None
        or not any((folder / name).is_file() for name in layout.intrinsics)
    ):
        return _frames_of_layout(folder, intrinsics)
    color, depth = (_intrinsics_file(folder / name) for name in layout.intrinsics)
    depth = color if depth is None else depth
    try:
        color = layout.read_intrinsics(folder)[0]
    except ValueError:  # the package refuses the file, the doctor looks at it all the same
        color = depth if color is None else color

    frames = []
    for name, depth_path in layout.list_depth(folder):
        color_path, pose_path = layout.find_color(folder, name), layout.pose_path(folder, name)
        if color_path is not None and pose_path.is_file():
            pose = read_matrix(pose_path, 4)
            frames.append(SourceFrame(name, color_path, depth_path, pose, color, depth))
    return frames


def _frames_of_layout(folder: Path, intrinsics: str | None) -> list[SourceFrame]:
    """Frames with depth as ``layouts`` reads them."""
    rules = LossRules(max_lost=1.0)
    found = layouts.find_layout(folder, check=False, intrinsics=intrinsics, rules=rules)
    if found is None:
        raise FileNotFoundError(layouts.unknown_layout(folder))
    return source_frames(found)


def source_frames(folder: PosedFolder) -> list[SourceFrame]:
    """Those frames of a folder that have depth, as the doctor takes them."""
    return [
        SourceFrame(
            frame.name,
            frame.image_path,
            frame.depth_path,
            frame.world_from_cam,
            frame.K,
            frame.depth_intrinsics,
            1 / frame.depth_scale,
        )
        for frame in folder.frames
        if frame.depth_path is not None and frame.depth_intrinsics is not None
    ]


def recording_of(
    frames: Sequence[SourceFrame], source: str, max_frames: int = 24, num_pixels: int = 300
) -> Recording:
    """The frames to compare, of those of any reader.

    Args:
        frames: N in their order.
        source: named in errors.
        max_frames, num_pixels: as of ``load_recording``.

    Raises:
        ValueError: fewer than two usable frames.
    """
    track, transposed, num_lost, num_not_rigid = track_of(frames)
    usable = np.flatnonzero(np.isfinite(track).all(axis=(1, 2)))
    chosen, read_images, num_unreadable = [], [], 0
    for index in choose_frames(len(usable), max_frames):
        images = _read_images(frames[usable[index]])
        if images is None or not (images[0] > 0).any():
            num_unreadable += 1
        else:
            chosen.append(int(usable[index]))
            read_images.append(images)
    if len(chosen) < 2:
        raise ValueError(
            f'{source}: {len(chosen)} usable frames, two are needed ({num_lost + num_not_rigid} '
            f'with a bad pose, {num_unreadable} unreadable or without depth)'
        )

    height, width = read_images[0][0].shape
    intrinsics = [
        _resized(frames[i].depth_intrinsics, image.shape, (height, width))
        for i, (image, *_) in zip(chosen, read_images)
    ]
    depth = np.stack([_to_size(image, (height, width)) for image, *_ in read_images])  # (F, H, W)
    brightness = np.stack([_to_size(image, (height, width)) for _, image, _ in read_images])
    clipped_at = _clipped_value(depth)
    if clipped_at:  # a wall where there is none
        depth = np.where(depth >= clipped_at, np.float32(0), depth)
    outlines = np.where(_near_side(depth), depth, np.float32(0))
    depth = np.where(_edges(depth), np.float32(0), depth)
    pixels = np.stack([sample_pixels(d, num_pixels, seed=i) for i, d in enumerate(depth)])
    return Recording(
        frames=tuple(frames),
        chosen=np.array(chosen),
        track=track,
        arrays=FrameArrays(depth, outlines, brightness, pixels),
        intrinsics=np.stack(intrinsics),
        color_intrinsics=frames[chosen[0]].color_intrinsics,
        color_size=read_images[0][2],
        transposed=transposed,
        num_lost=num_lost,
        num_not_rigid=num_not_rigid,
        num_unreadable=num_unreadable,
        clipped_at=clipped_at,
    )


def choose_frames(num_frames: int, max_frames: int) -> list[int]:
    """Frames to compare: all of a short sequence, groups of near neighbours of a long one."""
    if num_frames <= max_frames:
        return list(range(num_frames))
    num_groups = max(1, max_frames // len(_OFFSETS))
    starts = np.linspace(0, max(0, num_frames - 1 - _OFFSETS[-1]), num_groups).astype(int)
    chosen = {min(int(start) + offset, num_frames - 1) for start in starts for offset in _OFFSETS}
    # what is left is spread over the sequence, so that every part of it is seen
    spread = np.linspace(0, num_frames - 1, max_frames).round().astype(int)
    for index in sorted(spread, key=lambda i: -min(abs(int(i) - other) for other in chosen)):
        if len(chosen) < max_frames:
            chosen.add(int(index))
    return sorted(chosen)[:max_frames]


def sample_pixels(depth: NDArray, count: int, seed: int) -> NDArray[np.int64]:
    """(count, 2) pixels (x, y) with depth, drawn evenly; repeated where there are fewer."""
    rng = np.random.default_rng(seed)
    places = np.flatnonzero(depth > 0)
    if len(places) == 0:
        return np.zeros((count, 2), dtype=np.int64)
    chosen = rng.choice(places, count, replace=len(places) < count)
    row, column = np.unravel_index(chosen, depth.shape)
    return np.stack([column, row], axis=1)


def track_of(
    frames: Sequence[SourceFrame],
) -> tuple[NDArray[np.float64], bool, int, int]:
    """Poses, nan where they are none; whether transposed; lost; not rigid."""
    poses = np.array([frame.pose for frame in frames], dtype=np.float64).reshape(-1, 4, 4)
    finite = np.isfinite(poses).all(axis=(1, 2))
    with np.errstate(invalid='ignore', over='ignore'):
        upright, turned = _is_rigid(poses), _is_rigid(poses.swapaxes(1, 2))
    transposed = bool((turned & ~upright).sum() > upright.sum())
    if transposed:
        poses, upright = poses.swapaxes(1, 2).copy(), turned
    return (
        np.where(upright[:, None, None], poses, np.nan),
        transposed,
        int((~finite).sum()),
        int((finite & ~upright).sum()),
    )


def _is_rigid(poses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of (N, 4, 4) are rigid motions."""
    finite = np.isfinite(poses).all(axis=(1, 2))
    rotation = np.where(finite[:, None, None], poses, 0)[:, :3, :3]
    orthogonal = np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2))
    last = np.abs(np.where(finite[:, None], poses[:, 3], 9) - [0, 0, 0, 1]).max(axis=1)
    return finite & (orthogonal <= _RIGID_TOLERANCE) & (last < 1e-5) & (np.linalg.det(rotation) > 0)


def _orthonormal(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Poses (N, 4, 4) with the rotation that is nearest to their upper left; nan stays."""
    finite = np.isfinite(poses).all(axis=(1, 2))
    u, _, vh = np.linalg.svd(np.where(finite[:, None, None], poses, 0)[:, :3, :3])
    rotated = poses.copy()
    rotated[:, :3, :3] = np.where(finite[:, None, None], u @ vh, np.nan)
    return rotated


def _intrinsics_file(path: Path) -> NDArray[np.float64] | None:
    """(3, 3) of a file that may be missing; ScanNet's 4×4 is accepted."""
    if not path.is_file():
        return None
    matrix = read_square_or_padded(path)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
        raise ValueError(f'{path}: not intrinsics of a camera: {matrix.tolist()}')
    return matrix


def _read_images(
    frame: SourceFrame,
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, int]] | None:
    """Raw depth, brightness at its size, and the size of the colour image; None if broken."""
    try:
        depth = read_depth_values(frame.depth_path).astype(np.float32)
        with open_image(frame.color_path) as image:
            color_size = (image.height, image.width)
            image.draft('L', (depth.shape[-1], depth.shape[0]))  # JPEG is decoded smaller
            grey = image.convert('L').resize((depth.shape[1], depth.shape[0]), Image.BILINEAR)
    except UNREADABLE:
        return None
    return depth, np.asarray(grey, dtype=np.float32), color_size


def _to_size(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """The nearest pixels of an image at another size (H, W)."""
    if image.shape == size:
        return image
    rows = ((np.arange(size[0]) + 0.5) * image.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * image.shape[1] / size[1]).astype(int)
    return image[rows][:, columns]


def _resized(
    matrix: NDArray[np.float64], size_from: tuple[int, ...], size_to: tuple[int, int]
) -> NDArray[np.float64]:
    """K after resizing the image; sizes are (H, W). u' = (u + 0.5) · W' / W − 0.5"""
    y, x = size_to[0] / size_from[0], size_to[1] / size_from[1]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]]) @ matrix


def _edges(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels (F, H, W) at the outlines of things, where depth of a pixel is a matter of chance."""
    edge = np.zeros(depth.shape, dtype=bool)
    for axis in (1, 2):
        near, far = [slice(None)] * 3, [slice(None)] * 3
        near[axis], far[axis] = slice(None, -2), slice(2, None)
        a, b = depth[tuple(near)], depth[tuple(far)]
        jump = np.abs(a - b) > _EDGE * np.minimum(a, b)
        edge[tuple(near)] |= jump
        edge[tuple(far)] |= jump
    return edge


def _near_side(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels (F, H, W) with a neighbour much farther away; missing depth is no outline."""
    near = np.zeros(depth.shape, dtype=bool)
    for axis in (1, 2):
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        a, b = depth[tuple(low)], depth[tuple(high)]
        near[tuple(low)] |= (a > 0) & (b > (1 + _OUTLINE) * a)
        near[tuple(high)] |= (b > 0) & (a > (1 + _OUTLINE) * b)
    return near


def _clipped_value(depth: NDArray[np.float32]) -> float:
    """The largest value if so many pixels have it that depth must have been cut off there."""
    known = depth[:, ::4, ::4]
    largest = float(known.max())
    num_known = int((known > 0).sum())
    return largest if (known == largest).sum() > 0.02 * num_known else 0.0
