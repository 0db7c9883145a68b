"""Cameras of foreign recordings in the house's terms: OpenCV axes, metres, K of its own image.

Enters: matrices, quaternions and text as their authors write them. Leaves: (3, 3) ``K`` and
(4, 4) ``world_from_cam``, float64.
"""

import codecs
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from oneformer3d.lifting.camera import resize_intrinsics

from .records import Matrix, Size

CONVENTIONS = ('opencv', 'opengl', 'opencv-w2c', 'opengl-w2c')
_COMMENT = re.compile(r'(#|//|%).*')
_BLANKS = re.compile(r'[;\s]+')
_DECIMAL_COMMA = re.compile(r'[-+]?\d+(,\d+)?(e[-+]?\d+)?', re.IGNORECASE)
_NO_BRACKETS = str.maketrans('[](){}', '      ')
_MAX_SIDE = 100_000  # pixels of an image
_LEAST_FOCAL, _LONGEST = 1e-3, 1000  # focal lengths: pixels, and sides of the image
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
_MIRROR_Y = np.diag([1.0, -1.0, 1.0, 1.0])


def as_world_from_cam(poses: NDArray, convention: str) -> Matrix:
    """Poses (..., 4, 4) of a convention → ``world_from_cam`` with OpenCV axes.

    Args:
        poses: as they are written.
        convention: 'opencv' or 'opengl' axes, camera to world; with '-w2c' world to camera.

    Raises:
        ValueError: another convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f'convention: expected one of {", ".join(CONVENTIONS)}, got {convention}')
    poses = np.asarray(poses, dtype=np.float64)
    if convention.endswith('-w2c'):
        poses = np.linalg.inv(poses)
    return poses @ _FLIP if convention.startswith('opengl') else poses


def mirror_y(pose: NDArray) -> Matrix:
    """A pose between left-handed axes, y up on both sides, with y down on both: ``M pose M``."""
    return _MIRROR_Y @ pose @ _MIRROR_Y


def pose_from_quaternion(translation: NDArray, xyzw: NDArray) -> Matrix:
    """(4, 4) of a translation (3,) and a quaternion x y z w; nan where that has no length."""
    pose = np.full((4, 4), np.nan)
    length = np.linalg.norm(xyzw)
    if not np.isfinite(length) or length < 1e-6:
        return pose
    x, y, z, w = np.asarray(xyzw, dtype=np.float64) / length

    # R of a unit quaternion
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = translation
    pose[3] = [0, 0, 0, 1]
    return pose


def pinhole(fx: float, fy: float, cx: float, cy: float) -> Matrix:
    """The (3, 3) matrix of four numbers in pixels."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


def resized(K: NDArray, size_from: Size, size_to: Size) -> Matrix:
    """K of an image (H, W) resized to another size."""
    return resize_intrinsics(torch.from_numpy(np.asarray(K)), size_from, size_to).numpy()


def of_size(K: Matrix, size_from: Size | None, size_to: Size) -> Matrix:
    """K of an image resized, the same array where the size stays or is not known."""
    return K if size_from in (None, size_to) else resized(K, size_from, size_to)


def stated_size(height: object, width: object, name: str | Path) -> Size:
    """(H, W) as a file states it.

    Raises:
        ValueError: not whole numbers of pixels that an image may have.
    """
    try:
        size = float(str(height)), float(str(width))
    except ValueError as error:
        raise ValueError(f'{name}: no size of an image: {height} {width}') from error
    if not all(1 <= side <= _MAX_SIDE for side in size):
        raise ValueError(f'{name}: no size of an image: {height} {width}')
    return int(size[0]), int(size[1])


def same_shape(size: Size, other: Size) -> bool:
    """Whether two sizes (H, W) are of one image, up to rounding to whole pixels."""
    ratio = size[0] * other[1] / (size[1] * other[0])
    return abs(ratio - 1) < 2 / min(*size, *other) + 1e-3


def parse_intrinsics(value: str | Path | Sequence[float] | NDArray) -> Matrix:
    """What a user gives as intrinsics: ``fx fy cx cy``, a (3, 3) matrix, or a file of either.

    Raises:
        ValueError: none of these.
    """
    if isinstance(value, str | Path):
        path = Path(value)
        text = path.read_text(encoding='utf-8') if path.is_file() else str(value)
        try:
            numbers = np.array([float(word) for word in text.replace(',', ' ').split()])
        except ValueError as error:
            raise ValueError(f'intrinsics {value}: expected fx fy cx cy, or a file') from error
    else:
        numbers = np.asarray(value, dtype=np.float64).reshape(-1)

    if len(numbers) == 16:
        numbers = numbers.reshape(4, 4)[:3, :3].reshape(-1)
    if len(numbers) not in (4, 9):
        raise ValueError(f'intrinsics: expected fx fy cx cy or 3×3 numbers, got {len(numbers)}')
    K = pinhole(*numbers) if len(numbers) == 4 else numbers.reshape(3, 3)
    check_intrinsics(K, 'intrinsics', may_mirror=True)
    return K


def check_intrinsics(matrix: NDArray, name: str, may_mirror: bool = False) -> None:
    """ValueError unless (3, 3) upper triangular with focal lengths of a lens and a 1 at the end."""
    below = matrix[[1, 2, 2], [0, 0, 1]]
    fy = abs(matrix[1, 1]) if may_mirror else matrix[1, 1]
    if (
        not np.isfinite(matrix).all()
        or below.any()
        or min(matrix[0, 0], fy) < _LEAST_FOCAL
        or np.abs(matrix).max() > _MAX_SIDE * _LONGEST
        or matrix[2, 2] != 1
    ):
        raise ValueError(f'{name}: not intrinsics of a pinhole camera: {matrix.tolist()}')


def read_matrix(path: Path, num_rows: int) -> Matrix:
    """A square matrix of text; inf and nan are numbers here.

    Raises:
        ValueError: not numbers, or not square of that size; names the file.
    """
    matrix = read_numbers(path)
    if matrix.size == num_rows**2:  # also all numbers in one line
        matrix = matrix.reshape(num_rows, num_rows)
    if matrix.shape == (3, 4) and num_rows == 4:
        matrix = np.concatenate([matrix, [[0.0, 0, 0, 1]]])
    if matrix.shape != (num_rows, num_rows):
        raise ValueError(f'{path}: expected {num_rows}×{num_rows} numbers, got {matrix.shape}')
    return matrix


def read_numbers(path: Path) -> Matrix:
    """A table of numbers (rows, columns), as people and programs write them.

    ``#``, ``//`` or ``%`` begins a comment; blanks, commas or semicolons separate, brackets may
    stand around rows. Decimal commas and a byte order mark are understood.

    Raises:
        ValueError: anything else; names the file.
    """
    try:
        lines = _COMMENT.sub('', _decoded(path.read_bytes())).translate(_NO_BRACKETS).splitlines()
        words = [word for line in lines for word in _BLANKS.split(line) if word]
        if not words:
            raise ValueError('it is empty')

        # 0,5 is a number where all are like it; 1,0,0,0 are four
        decimal_commas = any(',' in word for word in words) and all(
            _DECIMAL_COMMA.fullmatch(word) for word in words
        )
        mark = '.' if decimal_commas else ' '
        lines = [line.replace(',', mark).replace(';', ' ') for line in lines]
        return np.loadtxt(lines, dtype=np.float64, ndmin=2)
    except (ValueError, OSError) as error:
        raise ValueError(f'{path}: not a matrix of numbers ({error})') from error


def _decoded(content: bytes) -> str:
    """Text in UTF-8, or as its byte order mark says."""
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode('utf-16' if utf16 else 'utf-8-sig')


def read_intrinsics_file(path: Path) -> Matrix:
    """(3, 3) of a text file with 3×3, 4×4 or 3×4 numbers, or ``fx fy cx cy``.

    Raises:
        ValueError: not intrinsics; names the file.
    """
    K = read_intrinsics_numbers(path)
    check_intrinsics(K, str(path), may_mirror=True)
    return K


def read_intrinsics_numbers(path: Path) -> Matrix:
    """The (3, 3) of ``read_intrinsics_file`` as it is written, whether a pinhole has it or not."""
    numbers = read_numbers(path)
    numbers = numbers.reshape(4, 4) if numbers.size == 16 else numbers  # also all in one line
    if numbers.shape in ((3, 3), (4, 4), (3, 4)):
        K = numbers[:3, :3].copy()
    elif numbers.size in (4, 9):
        K = pinhole(*numbers.ravel()) if numbers.size == 4 else numbers.reshape(3, 3)
    else:
        raise ValueError(f'{path}: expected 3×3 numbers, got {numbers.shape}')
    return K


def implied_factor(K: NDArray, size: Size) -> tuple[float, float]:
    """How much larger the image is whose middle is the principal point, along (y, x)."""
    return (2 * K[1, 2] + 1) / size[0], (2 * K[0, 2] + 1) / size[1]
