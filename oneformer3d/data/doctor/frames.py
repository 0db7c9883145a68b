"""Frames of a posed RGB-D sequence, read without trusting what they mean.

Enters: a folder in one of the layouts of ``layouts``, or ``SourceFrame`` records of any reader.
Leaves: a ``Recording`` of at most a few frames. N frames of the sequence, F of them looked at.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.left_out import LeftOut, LossRules

from .. import layouts
from ..layouts.cameras import resized
from ..layouts.records import Matrix, PosedFolder
from .compare import FrameArrays
from .frame_images import (
    clipped_value,
    find_edges,
    near_side,
    read_images,
    sample_pixels,
    to_size,
)
from .records import Recording, SourceFrame
from .tracks import track_of

_OFFSETS = (0, 1, 3, 8, 20)  # neighbours that are looked at together, in a long sequence
_MAX_SIDE = 800  # pixels: larger depth images are thinned out
_RULES = LossRules(max_lost=1.0)


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

    ``intrinsics``, ``fx fy cx cy`` of the colour images, are for folders that have none.
    """
    return source_frames(read_as_written(folder, intrinsics=intrinsics))


def read_as_written(
    folder: str | Path,
    *,
    convention: str | None = None,
    depth_scale: float | None = None,
    intrinsics: str | Path | Matrix | None = None,
    rules: LossRules = _RULES,
) -> PosedFolder:
    """A folder read as the package reads it, but for the judgement of poses and intrinsics.

    Args:
        folder: in one of the layouts of docs/data.md.
        convention, depth_scale, intrinsics, rules: see ``layouts.find_layout``.

    Raises:
        FileNotFoundError: no such folder or layout.
        ValueError: broken files, or no intrinsics.
    """
    found = layouts.find_layout(
        folder,
        convention=convention,
        depth_scale=depth_scale,
        intrinsics=intrinsics,
        rules=rules,
        as_written=True,
    )
    if found is None:
        raise FileNotFoundError(layouts.unknown_layout(Path(folder)))
    return found


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
    frames: Sequence[SourceFrame],
    source: str,
    max_frames: int = 24,
    num_pixels: int = 300,
    left_out: LeftOut | None = None,
) -> Recording:
    """The frames to compare, of those of any reader.

    Args:
        frames: N in their order.
        source: named in errors.
        max_frames, num_pixels: as of ``load_recording``.
        left_out: those to compare that are unreadable or without depth are added to it.

    Raises:
        ValueError: fewer than two usable frames.
    """
    track, transposed, num_lost, num_not_rigid = track_of(poses_of(frames))
    usable = np.flatnonzero(np.isfinite(track).all(axis=(1, 2)))
    left_out = LeftOut(source, _RULES) if left_out is None else left_out
    chosen, images_of = [], []
    for index in choose_frames(len(usable), max_frames):
        images = read_images(frames[usable[index]])
        if images is None or not (images[0] > 0).any():
            left_out.add(frames[usable[index]].name, 'unreadable or without depth')
        else:
            chosen.append(int(usable[index]))
            images_of.append(images)
    if len(chosen) < 2:
        raise ValueError(
            f'{source}: {len(chosen)} usable frames, two are needed ({num_lost + num_not_rigid} '
            f'with a bad pose, {len(left_out)} unreadable or without depth)'
        )

    height, width = _at_most(images_of[0][0].shape)
    intrinsics = [
        resized(frames[i].depth_intrinsics, image.shape, (height, width))
        for i, (image, *_) in zip(chosen, images_of)
    ]
    metres = [frames[i].metres / frames[chosen[0]].metres for i in chosen]
    depth = np.stack(  # (F, H, W), all in the unit of the first
        [
            to_size(image, (height, width)) * np.float32(unit)
            for (image, *_), unit in zip(images_of, metres)
        ]
    )
    brightness = np.stack([to_size(image, (height, width)) for _, image, _ in images_of])
    clipped_at = clipped_value(depth)
    if clipped_at:  # a wall where there is none
        depth = np.where(depth >= clipped_at, np.float32(0), depth)
    outlines = np.where(near_side(depth), depth, np.float32(0))
    depth = np.where(find_edges(depth), np.float32(0), depth)
    pixels = np.stack([sample_pixels(d, num_pixels, seed=i) for i, d in enumerate(depth)])
    return Recording(
        frames=tuple(frames),
        chosen=np.array(chosen),
        track=track,
        arrays=FrameArrays(depth, outlines, brightness, pixels),
        intrinsics=np.stack(intrinsics),
        color_intrinsics=frames[chosen[0]].color_intrinsics,
        color_size=images_of[0][2],
        transposed=transposed,
        num_lost=num_lost,
        num_not_rigid=num_not_rigid,
        num_unreadable=len(left_out),
        clipped_at=clipped_at,
    )


def _at_most(size: tuple[int, int]) -> tuple[int, int]:
    """A size (H, W) divided by the whole number that brings it down to what is looked at."""
    step = -(-max(size) // _MAX_SIDE)
    return max(1, size[0] // step), max(1, size[1] // step)


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


def poses_of(frames: Sequence[SourceFrame]) -> NDArray[np.float64]:
    """(N, 4, 4) as they are written."""
    return np.array([frame.pose for frame in frames], dtype=np.float64).reshape(-1, 4, 4)
