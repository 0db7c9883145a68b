"""Frames of a posed RGB-D folder, read without trusting what they mean.

Enters: a folder in one of the layouts of ``posed_rgbd``. Leaves: raw depth, brightness, pose
matrices as they stand in their files, sampled pixels, and which pairs of frames to compare.
F frames, n pixels of each, H×W the depth image.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oneformer3d.files.images import MISSING_DEPTH

from ..posed_rgbd import (
    LAYOUTS_IN_WORDS,
    Layout,
    find_layout,
    read_matrix,
    read_square_or_padded,
)

_OFFSETS = (0, 1, 3, 8, 20)  # neighbours of a frame that it is compared with, in a long sequence
_RIGID_TOLERANCE = 1e-2
_UNREADABLE = (OSError, SyntaxError, ValueError)


@dataclass(frozen=True)
class DoctorFrames:
    """Frames to compare.

    Attributes:
        poses: (F, 4, 4) as in the files.
        depth: (F, H, W) float64 as in the files, 0 missing.
        brightness: (F, H, W) float32 of the colour image resized to the depth image.
        pixels: (F, n, 2) sampled pixels (x, y) with depth.
        pixel_depth, brightness_of_pixels: (F, n) there.
        pairs: (F, F) bool, from frame (row) to frame (column).
        color_paths: F files.
        color_size: (H', W').
        color_matrix, depth_matrix: (3, 3) of the files, None where there is no such file.
        built_in_color: (3, 3) that the package takes for colour and no file names, or None.
        num_bad_poses, num_unreadable: frames left out.
        notes: faults of the files themselves, and what to do about them.
    """

    poses: NDArray[np.float64]
    depth: NDArray[np.float64]
    brightness: NDArray[np.float32]
    pixels: NDArray[np.float64]
    pixel_depth: NDArray[np.float64]
    brightness_of_pixels: NDArray[np.float32]
    pairs: NDArray[np.bool_]
    color_paths: tuple[Path, ...]
    color_size: tuple[int, int]
    color_matrix: NDArray[np.float64] | None
    depth_matrix: NDArray[np.float64] | None
    built_in_color: NDArray[np.float64] | None
    num_bad_poses: int
    num_unreadable: int
    notes: tuple[str, ...]


def load_frames(folder: str | Path, max_frames: int = 24, num_pixels: int = 600) -> DoctorFrames:
    """Read the frames to compare.

    Args:
        folder: in one of the layouts of ``posed_rgbd``.
        max_frames: at most so many.
        num_pixels: n; frames with less depth repeat theirs.

    Raises:
        FileNotFoundError: no such folder or layout, or no intrinsics.
        ValueError: fewer than two usable frames.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder')
    layout = find_layout(folder)
    if layout is None:
        raise FileNotFoundError(f'{folder}: no posed RGB-D frames; expected {LAYOUTS_IN_WORDS}')
    color_matrix, depth_matrix = (_intrinsics_file(folder / name) for name in layout.intrinsics)
    if color_matrix is None and depth_matrix is None:
        raise FileNotFoundError(f'{folder / layout.intrinsics[0]}: no such file')

    listed, num_bad, notes = _list_frames(folder, layout)
    read, groups, num_unreadable = [], [], 0
    for index, group in zip(*choose_frames(len(listed), max_frames)):
        pose, color_path, depth_path = listed[index]
        images = _read(color_path, depth_path)
        if images is None or not (images[0] > 0).any():
            num_unreadable += 1
        else:
            read.append((pose, color_path, *images))
            groups.append(group)
    if len(read) < 2:
        raise ValueError(
            f'{folder}: {len(read)} usable frames, two are needed ({num_bad} with a bad pose, '
            f'{num_unreadable} unreadable or without depth)'
        )
    poses, color_paths, depth, brightness, color_sizes = zip(*read)
    if len({image.shape for image in depth}) > 1 or len(set(color_sizes)) > 1:
        raise ValueError(f'{folder}: frames of different sizes')

    depth, brightness = np.stack(depth), np.stack(brightness)  # (F, H, W)
    pixels = np.stack([sample_pixels(d, num_pixels, seed=i) for i, d in enumerate(depth)])
    frame = np.arange(len(depth))[:, None]
    column, row = pixels[..., 0], pixels[..., 1]  # (F, n)
    in_group = np.equal.outer(groups, groups)  # (F, F)
    return DoctorFrames(
        poses=np.stack(poses),
        depth=depth,
        brightness=brightness,
        pixels=pixels.astype(np.float64),
        pixel_depth=depth[frame, row, column],
        brightness_of_pixels=brightness[frame, row, column],
        pairs=in_group & ~np.eye(len(groups), dtype=bool),
        color_paths=color_paths,
        color_size=color_sizes[0],
        color_matrix=color_matrix,
        depth_matrix=depth_matrix,
        built_in_color=_built_in_color(layout.read_intrinsics, folder, color_matrix, depth_matrix),
        num_bad_poses=num_bad,
        num_unreadable=num_unreadable,
        notes=notes,
    )


def choose_frames(num_frames: int, max_frames: int) -> tuple[list[int], list[int]]:
    """Frames to compare, and for each the group in which all are compared with all.

    A short sequence is one group; of a long one groups of near neighbours are taken, since frames
    far apart rarely see the same.
    """
    if num_frames <= max_frames:
        return list(range(num_frames)), [0] * num_frames
    num_groups = max(1, max_frames // len(_OFFSETS))
    starts = np.linspace(0, max(0, num_frames - 1 - _OFFSETS[-1]), num_groups).astype(int)
    pairs = {
        (min(int(start) + offset, num_frames - 1), group)
        for (group, start), offset in itertools.product(enumerate(starts), _OFFSETS)
    }
    chosen = sorted(pairs, key=lambda pair: (pair[1], pair[0]))
    return [index for index, _ in chosen], [group for _, group in chosen]


def sample_pixels(depth: NDArray, count: int, seed: int) -> NDArray[np.int64]:
    """(count, 2) pixels (x, y) with depth, drawn evenly; repeated where there are fewer."""
    rng = np.random.default_rng(seed)
    row, column = np.nonzero(depth > 0)
    chosen = rng.choice(len(row), count, replace=len(row) < count)
    return np.stack([column[chosen], row[chosen]], axis=1)


def _list_frames(
    folder: Path, layout: Layout
) -> tuple[list[tuple[NDArray[np.float64], Path, Path]], int, tuple[str, ...]]:
    """Pose, colour and depth file of every frame; how many poses are bad; notes on the poses."""
    listed, num_bad = [], 0
    notes: dict[str, None] = {}
    for name, depth_path in layout.list_depth(folder):
        color_path, pose_path = layout.find_color(folder, name), layout.pose_path(folder, name)
        if color_path is None or not pose_path.is_file():
            continue
        pose, note = _upright_matrix(read_matrix(pose_path, 4))
        if pose is None:
            num_bad += 1
            continue
        if note is not None:
            notes[note] = None
        listed.append((pose, color_path, depth_path))
    return listed, num_bad, tuple(notes)


def _upright_matrix(matrix: NDArray) -> tuple[NDArray | None, str | None]:
    """A rigid motion, turned over if its translation stands in the last row; None if neither."""
    if _is_rigid(matrix):
        return matrix, None
    if _is_rigid(matrix.T):
        return matrix.T, 'transpose every pose: their translation stands in the last row'
    return None, None


def _is_rigid(matrix: NDArray) -> bool:
    rotation = matrix[:3, :3]
    return bool(
        np.isfinite(matrix).all()
        and np.allclose(matrix[3], [0, 0, 0, 1])
        and np.allclose(rotation @ rotation.T, np.eye(3), atol=_RIGID_TOLERANCE)
        and np.linalg.det(rotation) > 0
    )


def _intrinsics_file(path: Path) -> NDArray[np.float64] | None:
    """(3, 3) of a file that may be missing; ScanNet's 4×4 is accepted."""
    if not path.is_file():
        return None
    matrix = read_square_or_padded(path)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
        raise ValueError(f'{path}: not intrinsics of a camera: {matrix.tolist()}')
    return matrix


def _built_in_color(
    read_intrinsics: Callable[[Path], tuple[NDArray, NDArray]],
    folder: Path,
    color: NDArray | None,
    depth: NDArray | None,
) -> NDArray[np.float64] | None:
    """Colour intrinsics that the package takes where the folder has none of its own."""
    if color is not None:
        return None
    try:
        matrix = read_intrinsics(folder)[0]
    except ValueError:  # the package refuses the file, the doctor looks at it all the same
        return None
    return None if np.array_equal(matrix, depth) else matrix


def _read(
    color_path: Path, depth_path: Path
) -> tuple[NDArray[np.float64], NDArray[np.float32], tuple[int, int]] | None:
    """Raw depth, brightness at its size, and the size of the colour image; None if broken."""
    try:
        with Image.open(depth_path) as image:
            depth = np.asarray(image).astype(np.float64)
        with Image.open(color_path) as image:
            color_size = (image.height, image.width)
            grey = image.convert('L').resize((depth.shape[1], depth.shape[0]), Image.BILINEAR)
    except _UNREADABLE:
        return None
    if depth.ndim != 2:
        raise ValueError(f'{depth_path}: expected a depth image, got shape {depth.shape}')
    depth[(depth == MISSING_DEPTH) | ~np.isfinite(depth)] = 0
    return depth, np.asarray(grey, dtype=np.float32), color_size
