"""K of every image of a recording, from the little that its folder says.

Enters: a ``Listing``, sizes of images, intrinsics that the user states. Leaves: K of the
colour and of the depth image, and notes on what was assumed.

A folder with one K and images of two sizes means one field of view: K is rescaled by the ratio of
the sizes. Whose it is, its principal point tells, which lies near the middle of its image.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .cameras import check_intrinsics, implied_factor, of_size, resized
from .records import ListedFrame, Listing, Matrix, Size

_OTHER_SIZE = 1.3  # a principal point so many times off the middle is of another image's size
_SAME = 0.05
_ASK = '--intrinsics "fx fy cx cy" (of the colour image, in pixels)'


@dataclass
class CameraNotes:
    """What was assumed about cameras, and of how many frames."""

    counts: Counter[str] = field(default_factory=Counter)

    def warnings(self) -> tuple[str, ...]:
        """A line for each."""
        return tuple(f'{text} ({count} frames)' for text, count in self.counts.items())


def settle_cameras(
    listing: Listing,
    frame: ListedFrame,
    color_size: Size,
    depth_size: Size | None,
    stated: Matrix | None,
    notes: CameraNotes,
    folder: Path,
) -> tuple[Matrix, Matrix | None]:
    """(3, 3) of a frame's colour and depth images as written; depth's is None without depth.

    Args:
        listing: of the folder.
        frame: one of its frames.
        color_size, depth_size: (H, W) of its images.
        stated: K that the user gives; it wins.
        notes: are added to.
        folder: for messages.

    Raises:
        ValueError: no intrinsics in the folder, and none stated.
    """
    color_K, depth_K = listing.color_intrinsics, listing.depth_intrinsics
    if stated is not None:
        color_K, depth_K = _owner(stated, color_size, depth_size)
    elif frame.K is not None:
        color_K, depth_K = of_size(frame.K, frame.K_size, color_size), None
    elif color_K is None and depth_K is None:
        color_K, depth_K = _usual(listing, color_size, depth_size, notes, folder)
    elif color_K is None:
        assert depth_K is not None  # else the branch above
        color_K, depth_K = _owner(depth_K, color_size, depth_size, depth_first=True)
    elif depth_K is None:
        color_K, depth_K = _owner(color_K, color_size, depth_size, depth_first=False)
    elif depth_size not in (None, color_size) and np.allclose(color_K, depth_K):
        notes.counts['one K for colour and depth of different sizes: rescaled by their ratio'] += 1
        color_K, depth_K = _owner(color_K, color_size, depth_size)

    known_color = listing.usual_color_intrinsics if stated is None else None
    if color_K is None:
        assert depth_K is not None  # one of the two is known by now
        color_K = _color_of_depth(depth_K, depth_size, color_size, listing, known_color)
    if depth_K is None and depth_size is not None:
        depth_K = of_size(color_K, color_size, depth_size)
    return color_K, None if depth_size is None else depth_K


def fit_to_images(
    cameras: tuple[Matrix, Matrix | None],
    color_size: Size,
    depth_size: Size | None,
    notes: CameraNotes,
    folder: Path,
) -> tuple[Matrix, Matrix | None]:
    """The K of ``settle_cameras``, rescaled where one is of its image at another size.

    Raises:
        ValueError: one is not that of a pinhole camera.
    """
    color_K, depth_K = cameras
    color_K = _of_its_image(color_K, color_size, 'colour', notes)
    if depth_K is not None and depth_size is not None:
        depth_K = _of_its_image(depth_K, depth_size, 'depth', notes)
    for K, name in ((color_K, 'colour'), (depth_K, 'depth')):
        if K is not None:
            check_intrinsics(K, f'{folder}: {name}', may_mirror=True)
    return color_K, depth_K


def _owner(
    K: Matrix, color_size: Size, depth_size: Size | None, depth_first: bool = False
) -> tuple[Matrix | None, Matrix | None]:
    """K as colour's or as depth's: of the image whose middle is nearer to the principal point."""
    if depth_size is None:
        return K, None
    if depth_size == color_size:
        return (None, K) if depth_first else (K, None)

    def off(size: Size) -> float:
        return float(np.abs(np.log(np.maximum(implied_factor(K, size), 1e-6))).sum())

    is_depth = off(depth_size) < off(color_size)
    return (None, K) if is_depth else (K, None)


def _usual(
    listing: Listing,
    color_size: Size,
    depth_size: Size | None,
    notes: CameraNotes,
    folder: Path,
) -> tuple[Matrix | None, Matrix | None]:
    """What such recordings usually have, with a warning; of images of its size only."""
    usual = listing.usual_intrinsics
    image_size = color_size if depth_size is None else depth_size
    # the same image at another size has the same shape
    if usual is None or usual[1][0] * image_size[1] != usual[1][1] * image_size[0]:
        raise ValueError(f'{folder}: {listing.source}: no intrinsics lie there; state {_ASK}')
    K, whose = of_size(usual[0], usual[1], image_size), usual[2]
    numbers = ' '.join(f'{value:g}' for value in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
    notes.counts[f'no intrinsics in the folder: taken are those of {whose}, {numbers}'] += 1
    if listing.usual_color_intrinsics is not None:
        return of_size(listing.usual_color_intrinsics, usual[1], color_size), K
    return of_size(K, image_size, color_size), None


def _color_of_depth(
    depth_K: Matrix,
    depth_size: Size | None,
    color_size: Size,
    listing: Listing,
    known_color: Matrix | None,
) -> Matrix:
    """Colour's K where only depth's is known: rescaled, or of 7-Scenes as it was measured."""
    usual = listing.usual_intrinsics
    is_usual = usual is not None and np.array_equal(depth_K, usual[0])
    if known_color is not None and is_usual:
        return known_color
    return of_size(depth_K, depth_size, color_size)


def _of_its_image(K: Matrix, size: Size, name: str, notes: CameraNotes) -> Matrix:
    """K rescaled where it is unmistakably of the same image at another size."""
    vertical, horizontal = implied_factor(K, size)
    if min(vertical, horizontal) <= 0:
        return K
    alike = abs(np.log(vertical / horizontal)) < _SAME
    if alike and abs(np.log(vertical)) > np.log(_OTHER_SIZE):
        implied = (round(size[0] * vertical), round(size[1] * horizontal))
        notes.counts[
            f'the intrinsics of {name} belong to images of {implied[1]}×{implied[0]} pixels, these '
            f'have {size[1]}×{size[0]}: rescaled'
        ] += 1
        return resized(K, implied, size)

    exchanged = implied_factor(K, (size[1], size[0]))
    if size[0] != size[1] and np.abs(np.log(exchanged)).max() < _SAME:
        notes.counts[
            f'doubtful: the principal point of {name} fits the image turned by 90°, not as it lies'
        ] += 1
    return K
