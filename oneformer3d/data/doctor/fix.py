"""A fixed copy of a folder of posed frames.

Enters: the frames of a folder and what the doctor found. Leaves: a new folder in the layout of
7-Scenes, which the package reads right. N frames of the sequence, H×W the depth image.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oneformer3d.files.atomic import temporary_folder
from oneformer3d.files.images import MISSING_DEPTH, open_image

from ..layouts.pixels import read_depth_values
from .diagnose import FIXABLE, Diagnosis
from .frames import poses_of
from .records import SourceFrame
from .tracks import poses_at, track_of

_MILLIMETRES = 1000


def write_fixed(
    frames: Sequence[SourceFrame], diagnosis: Diagnosis, out: str | Path
) -> tuple[int, int]:
    """Write poses, depth and intrinsics as the diagnosis has them; colour images are copied.

    Args:
        frames: N of the whole sequence.
        diagnosis: of them.
        out: a folder that does not exist yet.

    Returns:
        how many frames were written, and how many were left out (no pose, or an outlier).

    Raises:
        ValueError: the diagnosis names no fix that would help.
        FileExistsError: ``out`` exists.
    """
    if diagnosis.verdict != FIXABLE:
        raise ValueError(f'nothing to write: the verdict is "{diagnosis.verdict}"')
    out = Path(out)
    if out.exists():
        raise FileExistsError(f'{out}: exists already')

    poses = fixed_poses(frames, diagnosis)
    out.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(out.parent, out.name) as partial:
        whole = partial / out.name
        whole.mkdir()
        num_written = _write_frames(frames, diagnosis, poses, whole)
        whole.rename(out)
    return num_written, len(frames) - num_written


def fixed_poses(frames: Sequence[SourceFrame], diagnosis: Diagnosis) -> NDArray[np.float64]:
    """(N, 4, 4) poses after the changes, nan where a frame has none or is an outlier."""
    poses = track_of(poses_of(frames))[0]
    positions = np.arange(len(frames), dtype=np.float64)
    for change in diagnosis.changes:
        poses = poses if change.poses is None else change.poses(poses)
        if change.positions is not None:
            positions = change.positions(positions, len(frames))
    fixed = poses_at(poses, positions)
    fixed[[frame.name in diagnosis.outliers for frame in frames]] = np.nan
    return fixed


def fixed_depth(
    depth: NDArray[np.float32], frame: SourceFrame, diagnosis: Diagnosis
) -> NDArray[np.uint16]:
    """Depth (H, W) after the changes, in whole millimetres, 0 missing."""
    intrinsics = frame.depth_intrinsics
    if diagnosis.drop_clipped:
        depth = np.where(depth >= diagnosis.drop_clipped, np.float32(0), depth)
    metres = frame.metres
    for change in diagnosis.changes:
        depth = depth if change.depth is None else change.depth(depth, intrinsics)
        if change.intrinsics is not None:
            intrinsics = change.intrinsics(intrinsics, (depth.shape[0], depth.shape[1]))
        metres *= change.factor
    values = np.round(depth.astype(np.float64) * (metres * _MILLIMETRES))
    return np.where(values < MISSING_DEPTH, values, 0).astype(np.uint16)


def _write_frames(
    frames: Sequence[SourceFrame],
    diagnosis: Diagnosis,
    poses: NDArray[np.float64],
    out: Path,
) -> int:
    num_written = 0
    for index, (frame, pose) in enumerate(zip(frames, poses)):
        color_index = index + diagnosis.color.frame_shift
        if not np.isfinite(pose).all() or not 0 <= color_index < len(frames):
            continue
        depth = read_depth_values(frame.depth_path).astype(np.float32)
        if num_written == 0:
            _write_intrinsics(frame, diagnosis, (depth.shape[0], depth.shape[1]), out)

        stem = f'frame-{index:06d}'
        Image.fromarray(fixed_depth(depth, frame, diagnosis)).save(out / f'{stem}.depth.png')
        np.savetxt(out / f'{stem}.pose.txt', pose)
        _copy_color(frames[color_index].color_path, diagnosis.color.flips, out / f'{stem}.color')
        num_written += 1
    return num_written


def _write_intrinsics(
    frame: SourceFrame, diagnosis: Diagnosis, size: tuple[int, int], out: Path
) -> None:
    depth_matrix = frame.depth_intrinsics
    for change in diagnosis.changes:
        if change.intrinsics is not None:
            depth_matrix = change.intrinsics(depth_matrix, size)
    np.savetxt(out / 'camera-intrinsics.txt', depth_matrix)
    np.savetxt(out / 'color-intrinsics.txt', diagnosis.color.intrinsics)


def _copy_color(source: Path, flips: tuple[bool, bool], stem: Path) -> None:
    """The colour image as it is, or mirrored."""
    suffix = '.png' if source.suffix.lower() == '.png' else '.jpg'
    target = stem.with_name(stem.name + suffix)
    if not any(flips):
        shutil.copyfile(source, target)
        return
    with open_image(source) as image:
        for flip, way in zip(
            flips, (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)
        ):
            image = image.transpose(way) if flip else image
        image.save(target, quality=95)
