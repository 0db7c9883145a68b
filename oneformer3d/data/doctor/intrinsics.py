"""What the intrinsics of a folder's images could be.

Enters: the matrices (3, 3) of its files, as ``DoctorFrames`` holds them. Leaves: named candidates
for the depth and for the colour images; the doctor tries them all.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from oneformer3d.lifting.camera import resize_intrinsics

from .frames import DoctorFrames


@dataclass(frozen=True)
class IntrinsicsCandidates:
    """Named intrinsics (3, 3) that the depth and the colour images may have.

    Attributes:
        depth, color: name → matrix, for images of their sizes.
        expected_depth, expected_color: names of those that the package reads.
    """

    depth: dict[str, NDArray[np.float64]]
    color: dict[str, NDArray[np.float64]]
    expected_depth: str
    expected_color: str


def intrinsics_candidates(frames: DoctorFrames) -> IntrinsicsCandidates:
    """What the intrinsics could be: each file's, resized to the other image, or of another size."""
    size, color_size = frames.depth.shape[1:], frames.color_size
    from_file = frames.depth_matrix if frames.depth_matrix is not None else frames.color_matrix
    color_file = frames.color_matrix if frames.color_matrix is not None else frames.depth_matrix
    depth = {'of the depth file': from_file}
    color = {'of the colour file': color_file}

    if frames.color_matrix is not None and frames.depth_matrix is not None:
        depth['of the colour file'] = color_file
        color['of the depth file'] = from_file
    if size != color_size:
        depth['of the colour file, resized to depth'] = resized(color_file, color_size, size)
        color['of the depth file, resized to colour'] = resized(from_file, size, color_size)

    expected_color = 'of the colour file'
    if frames.built_in_color is not None:
        expected_color = 'known of this kind of recording'
        color[expected_color] = frames.built_in_color

    # a matrix whose principal point is far from the middle belongs to an image of another size
    for candidates, image_size in ((depth, size), (color, color_size)):
        for name, matrix in list(candidates.items()):
            guess = implied_size(matrix)
            if abs(guess[1] / image_size[1] - 1) > 0.15 and not name.endswith(('depth', 'colour')):
                fitted = resized(matrix, guess, image_size)
                candidates[f'{name}, resized from {guess[0]}×{guess[1]}'] = fitted

    return IntrinsicsCandidates(
        _distinct(depth, 'of the depth file'),
        _distinct(color, expected_color),
        'of the depth file',
        expected_color,
    )


def resized(
    matrix: NDArray, size_from: tuple[int, int], size_to: tuple[int, int]
) -> NDArray[np.float64]:
    """Intrinsics after resizing the image; sizes are (H, W)."""
    return resize_intrinsics(torch.from_numpy(np.asarray(matrix)), size_from, size_to).numpy()


def implied_size(matrix: NDArray) -> tuple[int, int]:
    """(H, W) of an image whose middle is the principal point."""
    return max(1, round(2 * matrix[1, 2] + 1)), max(1, round(2 * matrix[0, 2] + 1))


def _distinct(candidates: dict[str, NDArray], keep: str) -> dict[str, NDArray[np.float64]]:
    """The candidates without repetitions; ``keep`` is never the one that is dropped."""
    ordered = sorted(candidates.items(), key=lambda item: item[0] != keep)
    distinct: dict[str, NDArray] = {}
    for name, matrix in ordered:
        if not any(np.allclose(matrix, other, rtol=1e-3, atol=0.3) for other in distinct.values()):
            distinct[name] = np.asarray(matrix, dtype=np.float64)
    return distinct
