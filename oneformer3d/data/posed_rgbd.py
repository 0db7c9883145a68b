"""A recording of posed RGB-D frames: its usable frames, and their pixels one after the other.

Enters: a folder in one of the layouts of ``layouts``. Leaves: a ``PosedFolder`` and, of each frame,
colour (H, W, 3) and depth (h, w) in metres; frames that cannot be read are left out by one rule.
F frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.logging import MMLogger
from numpy.typing import NDArray
from tqdm import tqdm

from oneformer3d.files.left_out import LeftOut, LossRules

from . import layouts
from .layouts.cameras import check_intrinsics, read_matrix
from .layouts.frame_files import SEVEN_SCENES_COLOR, SEVEN_SCENES_DEPTH
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
    for warning in found.warnings:
        _warn(f'{folder}: {warning}')
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
        _warn(f'{sequence.folder}: {left_out.describe()}')


def read_images(frame: PosedFrame) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None] | None:
    """Colour (H, W, 3) and depth (h, w) in metres, or None and a warning if one is broken."""
    try:
        return read_color(frame), read_depth(frame)
    except ValueError as error:
        _warn(f'frame {frame.name} left out: {error}')
        return None


@dataclass(frozen=True)
class Layout:
    """How a kind of folder names its files, for the doctor, which reads them as they stand.

    ``{}`` stands for the frame. Everything else reads folders by ``layouts.find_layout``.
    """

    depth: str
    colors: tuple[str, ...]
    pose: str
    intrinsics: tuple[str, str]  # colour's and depth's; one of them may be missing

    def list_depth(self, folder: Path) -> list[tuple[str, Path]]:
        """Names and depth images of all frames, numbers in numeric order."""
        before, after = self.depth.split('{}')
        directory, _, prefix = before.rpartition('/')
        named = []
        for path in (folder / directory).glob(f'{prefix}*{after}'):
            name = path.name[len(prefix) : len(path.name) - len(after)]
            if name and '.' not in name:
                named.append((name, path))
        return sorted(named, key=lambda item: (len(item[0]) if item[0].isdigit() else 0, item[0]))

    def find_color(self, folder: Path, name: str) -> Path | None:
        """The colour image of a frame, or None."""
        paths = (folder / color.format(name) for color in self.colors)
        return next((path for path in paths if path.is_file()), None)

    def pose_path(self, folder: Path, name: str) -> Path:
        """The pose file of a frame."""
        return folder / self.pose.format(name)

    def read_intrinsics(self, folder: Path) -> tuple[NDArray, NDArray]:
        """Intrinsics (3, 3) of colour and of depth."""
        color_path, depth_path = (folder / name for name in self.intrinsics)
        if not color_path.is_file() and not depth_path.is_file():
            raise FileNotFoundError(f'{color_path}: no such file (nor {depth_path.name})')
        depth = read_intrinsics(depth_path if depth_path.is_file() else color_path)
        if color_path.is_file():
            return read_intrinsics(color_path), depth
        return (SEVEN_SCENES_COLOR if np.array_equal(depth, SEVEN_SCENES_DEPTH) else depth), depth


LAYOUTS = (
    Layout(
        'frame-{}.depth.png',
        ('frame-{}.color.jpg', 'frame-{}.color.png'),
        'frame-{}.pose.txt',
        ('color-intrinsics.txt', 'camera-intrinsics.txt'),
    ),
    Layout(
        'depth/{}.png',
        ('color/{}.jpg', 'color/{}.png'),
        'pose/{}.txt',
        ('intrinsic/intrinsic_color.txt', 'intrinsic/intrinsic_depth.txt'),
    ),
    Layout('{}.png', ('{}.jpg',), '{}.txt', ('intrinsic.txt', 'depth_intrinsic.txt')),
)

LAYOUTS_IN_WORDS = (
    'frame-000000.color.jpg, .depth.png and .pose.txt with camera-intrinsics.txt, or folders '
    'color, depth, pose and intrinsic, or 00000.jpg, .png and .txt with intrinsic.txt'
)


def find_layout(folder: Path) -> Layout | None:
    """The layout a folder is in, by its depth images, or None."""
    return next((layout for layout in LAYOUTS if layout.list_depth(folder)), None)


def read_intrinsics(path: Path) -> NDArray[np.float64]:
    """Intrinsics (3, 3); ScanNet's 4×4 is accepted.

    Raises:
        ValueError: not a pinhole matrix with positive focal lengths; names the file.
    """
    matrix = read_square_or_padded(path)
    check_intrinsics(matrix, str(path))
    return matrix


def read_square_or_padded(path: Path) -> NDArray[np.float64]:
    """A (3, 3) matrix of text, also where it is padded to 4×4; raises as ``read_matrix``."""
    try:
        return read_matrix(path, 3)
    except ValueError:
        return read_matrix(path, 4)[:3, :3]


def _warn(message: str) -> None:
    MMLogger.get_current_instance().warning(message)
