"""A folder of posed RGB-D frames as it comes from a scanner: its frames, poses and cameras.

Enters: a folder in one of three layouts, told apart by their files. Leaves: a ``PosedSequence``
of its usable frames; images are opened by ``readable_frames`` alone. F frames.

- 7-Scenes: ``frame-000000.color.jpg|png``, ``.depth.png``, ``.pose.txt``, and one
  ``camera-intrinsics.txt`` (of the depth camera; ``color-intrinsics.txt`` if colour has its own)
- ScanNet as exported by its tools: ``color/0.jpg``, ``depth/0.png``, ``pose/0.txt``,
  ``intrinsic/intrinsic_color.txt``, ``intrinsic/intrinsic_depth.txt``
- this package's ``posed_images/<scene>``: ``00000.jpg``, ``00000.png``, ``00000.txt``,
  ``intrinsic.txt``, perhaps ``depth_intrinsic.txt``

Poses are ``world_from_cam`` in metres; depth is 16-bit in millimetres, 0 and 65535 are missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MMLogger
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from oneformer3d.files.images import MISSING_DEPTH
from oneformer3d.lifting.camera import is_valid_pose

# 7-Scenes gives the depth camera only and does not register colour to it: taken with the same
# intrinsics, colours are off by up to 35 pixels. Maximising the image gradient under depth edges
# over a kitchen sequence gives these for colour; the shift of the principal point stands for the
# 2 cm between the cameras, right at 1.6 m and within 5 pixels from 1 to 4 m.
_SEVEN_SCENES_DEPTH = np.array([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]])
_SEVEN_SCENES_COLOR = np.array([[526.5, 0, 314.8], [0, 526.5, 238.5], [0, 0, 1]])


@dataclass(frozen=True, eq=False)
class RawFrame:
    """Files and pose (4, 4) ``world_from_cam`` of one frame, before it is part of a data root."""

    name: str
    image_path: Path
    depth_path: Path
    world_from_cam: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PosedSequence:
    """The usable frames of a folder.

    Attributes:
        folder: where it lies.
        frames: F frames with all three files and a valid pose, in order.
        color_intrinsics, depth_intrinsics: (3, 3) float64.
        num_dropped_poses: frames left out because their pose is not a finite rigid motion.
        num_incomplete: frames left out because their colour or pose file is missing.
    """

    folder: Path
    frames: tuple[RawFrame, ...]
    color_intrinsics: NDArray[np.float64]
    depth_intrinsics: NDArray[np.float64]
    num_dropped_poses: int
    num_incomplete: int


def load_posed_rgbd(folder: str | Path, frame_step: int = 1) -> PosedSequence:
    """List a folder's frames and read its poses and cameras; images are not opened.

    Args:
        folder: in one of the three layouts.
        frame_step: take every so many-th frame.

    Raises:
        FileNotFoundError: no such folder, no intrinsics, or no known layout.
        ValueError: broken camera files, or no frame with a valid pose.
    """
    folder = Path(folder)
    if frame_step < 1:
        raise ValueError(f'frame_step: expected 1 or more, got {frame_step}')
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder')
    layout = find_layout(folder)
    if layout is None:
        raise FileNotFoundError(f'{folder}: no posed RGB-D frames; expected {LAYOUTS_IN_WORDS}')
    color_intrinsics, depth_intrinsics = layout.read_intrinsics(folder)

    frames, num_dropped, num_incomplete = [], 0, 0
    for name, depth_path in layout.list_depth(folder)[::frame_step]:
        image_path, pose_path = layout.find_color(folder, name), layout.pose_path(folder, name)
        if image_path is None or not pose_path.is_file():
            num_incomplete += 1
            continue
        pose = read_matrix(pose_path, 4)
        if is_valid_pose(torch.from_numpy(pose)):
            frames.append(RawFrame(name, image_path, depth_path, pose))
        else:
            num_dropped += 1

    left_out = f'{num_dropped} without a valid pose, {num_incomplete} without colour or pose'
    if not frames:
        raise ValueError(f'{folder}: no usable frame: {left_out} file')
    if num_dropped or num_incomplete:
        _warn(f'{folder}: left out frames: {left_out} file')
    return PosedSequence(
        folder, tuple(frames), color_intrinsics, depth_intrinsics, num_dropped, num_incomplete
    )


def readable_frames(
    sequence: PosedSequence, progress: bool = False
) -> Iterator[tuple[RawFrame, NDArray[np.uint8], NDArray[np.float32]]]:
    """Frames with colour (H, W, 3) and depth (H', W') in metres; broken ones are warned about.

    Raises:
        ValueError: no readable frame, or images of different sizes.
    """
    sizes = None
    for frame in tqdm(
        sequence.frames, desc=sequence.folder.name, unit='frame', disable=not progress
    ):
        images = read_images(frame)
        if images is None:
            continue

        color, depth = images
        sizes = sizes or (color.shape[:2], depth.shape)
        if sizes != (color.shape[:2], depth.shape):
            raise ValueError(
                f'{frame.depth_path}: colour and depth are {color.shape[:2]} and {depth.shape} '
                f'pixels, in the frames before {sizes[0]} and {sizes[1]}'
            )
        yield frame, color, depth
    if sizes is None:
        raise ValueError(f'{sequence.folder}: none of {len(sequence.frames)} frames can be read')


def read_images(frame: RawFrame) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
    """Colour (H, W, 3) and depth (H', W') in metres, or None and a warning if one is broken."""
    try:
        with Image.open(frame.image_path) as image:
            color = np.asarray(image.convert('RGB'))
        with Image.open(frame.depth_path) as image:
            depth = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:  # what PIL raises for broken files
        _warn(f'{frame.depth_path.parent}: frame {frame.name} left out: {error}')
        return None

    if depth.ndim != 2 or depth.dtype == np.uint8:
        raise ValueError(
            f'{frame.depth_path}: expected a 16-bit depth image, got {depth.dtype} {depth.shape}'
        )
    return color, np.where(depth == MISSING_DEPTH, 0, depth).astype(np.float32) / 1000


@dataclass(frozen=True)
class Layout:
    """How a kind of folder names its files; ``{}`` stands for the frame."""

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
        return (_SEVEN_SCENES_COLOR if np.array_equal(depth, _SEVEN_SCENES_DEPTH) else depth), depth


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


def read_matrix(path: Path, num_rows: int) -> NDArray[np.float64]:
    """A square matrix of text; inf and nan are numbers here.

    Raises:
        ValueError: not numbers, or not square of that size; names the file.
    """
    try:
        matrix = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: not a matrix of numbers ({error})') from error
    if matrix.shape != (num_rows, num_rows):
        raise ValueError(f'{path}: expected {num_rows}×{num_rows} numbers, got {matrix.shape}')
    return matrix


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


def check_intrinsics(matrix: NDArray, name: str) -> None:
    """ValueError unless (3, 3) upper triangular with positive focal lengths and a 1 at the end."""
    below = matrix[[1, 2, 2], [0, 0, 1]]
    if (
        not np.isfinite(matrix).all()
        or below.any()
        or min(matrix[0, 0], matrix[1, 1]) <= 0
        or matrix[2, 2] != 1
    ):
        raise ValueError(f'{name}: not intrinsics of a pinhole camera: {matrix.tolist()}')


def _warn(message: str) -> None:
    MMLogger.get_current_instance().warning(message)
