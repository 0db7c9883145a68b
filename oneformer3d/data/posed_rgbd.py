"""A recording of posed RGB-D frames: its usable frames, and their pixels one after the other.

Enters: a folder in one of the layouts of ``layouts``. Leaves: a ``PosedFolder`` and, of each frame,
colour (H, W, 3) and depth (h, w) in metres; frames that cannot be read are left out by one rule.
F frames.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import MMLogger
from numpy.typing import NDArray
from tqdm import tqdm

from oneformer3d.files.left_out import LeftOut, LossRules

from . import layouts
from .layouts.pixels import read_color, read_depth
from .layouts.records import Matrix, PosedFolder, PosedFrame

_RULES = LossRules()


def load_posed_rgbd(
    folder: str | Path,
    frame_step: int = 1,
    *,
    convention: str | None = None,
    depth_scale: float | None = None,
    intrinsics: str | Path | Matrix | None = None,
    rules: LossRules = _RULES,
) -> PosedFolder:
    """List a folder's frames with their poses and cameras; what is doubtful is warned about.

    Args:
        folder: in one of the layouts, see docs/data.md.
        frame_step: take every so many-th frame.
        convention, depth_scale, intrinsics, rules: see ``layouts.find_layout``.

    Raises:
        FileNotFoundError: no such folder, or no known layout: says what lies there.
        ValueError: broken files, no usable frame, too many unusable ones, or no intrinsics.
    """
    folder = Path(folder)
    found = layouts.find_layout(
        folder,
        convention=convention,
        depth_scale=depth_scale,
        intrinsics=intrinsics,
        rules=rules,
        frame_step=frame_step,
    )
    if found is None:
        raise FileNotFoundError(layouts.unknown_layout(folder))
    warn([f'{folder}: {warning}' for warning in found.warnings], rules)
    return found


def readable_frames(
    sequence: PosedFolder, progress: bool = False, rules: LossRules = _RULES
) -> Iterator[tuple[PosedFrame, NDArray[np.uint8], NDArray[np.float32] | None]]:
    """Frames with colour (H, W, 3) and depth (h, w) in metres, None without a depth image.

    Raises:
        ValueError: no readable frame, or more unreadable ones than the rules allow.
    """
    left_out = LeftOut(str(sequence.folder), rules)
    for frame in tqdm(
        sequence.frames, desc=sequence.folder.name, unit='frame', disable=not progress
    ):
        try:
            color, depth = read_color(frame), read_depth(frame)
        except ValueError as error:
            left_out.add(frame.name, str(error).replace(f'{sequence.folder}/', ''))
            continue
        yield frame, color, depth

    num_frames = len(sequence.frames)
    if len(left_out) == num_frames:
        raise ValueError(
            f'{sequence.folder}: none of {num_frames} frames can be read: {left_out.describe()}'
        )
    left_out.check(num_frames)
    if len(left_out):
        warn([f'{sequence.folder}: {left_out.describe()}'], rules)


def read_images(frame: PosedFrame) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None] | None:
    """Colour (H, W, 3) and depth (h, w) in metres, or None and a warning if one is broken."""
    try:
        return read_color(frame), read_depth(frame)
    except ValueError as error:
        warn([f'frame {frame.name} left out: {error}'], _RULES)
        return None


def warn(messages: Sequence[str], rules: LossRules) -> None:
    """Log what was assumed, left out or doubted.

    Raises:
        ValueError: there is something, and the rules make it an error.
    """
    if messages and rules.warnings_are_errors:
        raise ValueError('; '.join(messages))
    for message in messages:
        MMLogger.get_current_instance().warning(message)
