"""Do the colour images belong to the depth images?

Enters: a recording and the changes that its depth needs. Leaves: the ``ColorReading`` that fits
best. Where depth has an outline colour mostly has one, too: its gradient is higher there
than elsewhere. F frames, e pixels at outlines of each, H'×W' the colour images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.images import UNREADABLE, open_image

from .changes import Change
from .records import Recording, read

_MAX_FRAMES = 12
_MAX_OUTLINE = 1500  # pixels of a frame
_CLEAR = 1.2  # times the gradient as it is
_LEAST_EDGES = 1.15  # times the mean gradient, below it colour tells nothing
_SHIFTS = (-0.06, -0.04, -0.02, 0.0, 0.02, 0.04, 0.06)  # of the focal length
_FRAME_SHIFTS = (-2, -1, 1, 2)
_FAR_SHIFTS = tuple(range(-10, 11))
_FLIPS = {
    '': (False, False),
    'mirror the colour images left to right': (True, False),
    'mirror the colour images up to down': (False, True),
    'turn the colour images by 180°': (True, True),
}


@dataclass(frozen=True, eq=False)
class ColorReading:
    """One way to lay colour over depth.

    Attributes:
        text: what to do; empty if nothing.
        flips: whether columns, rows are mirrored.
        frame_shift: colour is that of the frame so many later.
        intrinsics: (3, 3) of the colour images.
        edges: mean gradient at the outlines of depth, relative to the mean everywhere.
    """

    text: str
    flips: tuple[bool, bool]
    frame_shift: int
    intrinsics: NDArray[np.float64]
    edges: float


@dataclass(frozen=True, eq=False)
class Outlines:
    """Rays to outlines of depth, one array (e, 3) a frame, with gradients to look them up in."""

    rays: tuple[NDArray[np.float64], ...]
    gradients: tuple[NDArray[np.float32], ...]  # (H', W'), divided by their mean


def read_colors(
    recording: Recording, changes: Sequence[Change] = (), frame_shift: int = 0
) -> tuple[ColorReading, ColorReading]:
    """Colour as it is, and as it fits best; the same if nothing is clearly better.

    Args:
        recording: of F frames.
        changes: that its depth needs.
        frame_shift: that its poses need; whether colour needs it, too, is looked at.
    """
    asis = ColorReading('', (False, False), 0, recording.color_intrinsics, 0.0)
    outlines = find_outlines(recording, changes)
    asis = replace(asis, edges=edge_score(outlines, asis))
    candidates = [
        ColorReading(text, flips, 0, recording.color_intrinsics, 0.0)
        for text, flips in _FLIPS.items()
        if text
    ]
    candidates += _other_intrinsics(recording)
    found = [replace(c, edges=edge_score(outlines, c)) for c in candidates]
    found.append(_displaced(outlines, asis))
    # where colour shows nothing of depth it may be of a frame farther away
    tried = _FRAME_SHIFTS if asis.edges > _LEAST_EDGES else _FAR_SHIFTS
    shifts = {frame_shift, *tried} - {0}
    found += [_of_other_frame(recording, changes, asis, shift) for shift in sorted(shifts)]
    best = max(found, key=lambda c: c.edges)
    clear = best.edges > max(_LEAST_EDGES, _CLEAR * asis.edges)
    return asis, best if clear else asis


def edge_score(outlines: Outlines, reading: ColorReading) -> float:
    """Mean gradient at the outlines, relative to the mean everywhere; 1 where chance rules."""
    total, count = 0.0, 0
    for rays, gradient in zip(outlines.rays, outlines.gradients):
        height, width = gradient.shape
        pixel = rays @ reading.intrinsics.T
        u, v = np.floor(pixel[:, :2] / pixel[:, 2:] + 0.5).T
        u = width - 1 - u if reading.flips[0] else u
        v = height - 1 - v if reading.flips[1] else v
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        total += float(gradient[v[inside].astype(int), u[inside].astype(int)].sum())
        count += len(rays)
    return total / max(1, count)


def find_outlines(
    recording: Recording, changes: Sequence[Change] = (), frame_shift: int = 0
) -> Outlines:
    """Outlines of depth, and the gradients of the colour images that are laid over them."""
    reading = read(recording, changes)
    places = np.linspace(0, len(recording.chosen) - 1, min(_MAX_FRAMES, len(recording.chosen)))
    rays, gradients = [], []
    for place in np.unique(places.round().astype(int)):
        index = int(recording.chosen[place]) + frame_shift
        if not 0 <= index < len(recording.frames):
            continue
        grey = _grey(recording.frames[index].color_path)
        if grey is None:  # a frame beside the chosen ones, which nobody has looked at yet
            continue
        gradient = np.hypot(*np.gradient(grey))
        if gradient.mean() > 0:
            gradients.append(gradient / gradient.mean())
            rays.append(_outline_rays(recording, place, changes, reading.intrinsics[place]))
    return Outlines(tuple(rays), tuple(gradients))


def _grey(path: Path) -> NDArray[np.float32] | None:
    """Brightness (H, W) of an image, None where it cannot be read."""
    try:
        with open_image(path) as image:
            return np.asarray(image.convert('L'), dtype=np.float32)
    except UNREADABLE:
        return None


def _of_other_frame(
    recording: Recording, changes: Sequence[Change], asis: ColorReading, shift: int
) -> ColorReading:
    text = f'take the colour image of frame i{shift:+d} with depth of frame i'
    later = find_outlines(recording, changes, shift)
    shifted = replace(asis, text=text, frame_shift=shift)
    return replace(shifted, edges=edge_score(later, shifted))


def _outline_rays(
    recording: Recording, place: int, changes: Sequence[Change], intrinsics: NDArray[np.float64]
) -> NDArray[np.float64]:
    depth = recording.arrays.outlines[place]
    for change in changes:
        depth = depth if change.depth is None else change.depth(depth, intrinsics)
    row, column = np.nonzero(depth > 0)
    if len(row) > _MAX_OUTLINE:
        chosen = np.random.default_rng(place).choice(len(row), _MAX_OUTLINE, replace=False)
        row, column = row[chosen], column[chosen]
    pixels = np.stack([column, row, np.ones_like(row)], axis=1)
    return pixels @ np.linalg.inv(intrinsics).T


def _other_intrinsics(recording: Recording) -> list[ColorReading]:
    """Colour intrinsics of an image of another size, or those of depth."""
    height, width = recording.color_size
    k = recording.color_intrinsics
    readings = []
    for text, x, y in (
        ('', width / max(1e-6, 2 * k[0, 2] + 1), height / max(1e-6, 2 * k[1, 2] + 1)),
        ('', width / recording.arrays.depth.shape[2], height / recording.arrays.depth.shape[1]),
        ('', recording.arrays.depth.shape[2] / width, recording.arrays.depth.shape[1] / height),
    ):
        if max(abs(x - 1), abs(y - 1)) > 0.05:
            resize = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
            text = f'resize the intrinsics of the colour images by {x:.4g}'
            readings.append(ColorReading(text, (False, False), 0, resize @ k, 0.0))
    return readings


def _displaced(outlines: Outlines, asis: ColorReading) -> ColorReading:
    """The best small displacement of colour against depth, from coarse to fine."""
    best, k = asis, asis.intrinsics
    for scale in (1.0, 0.25):
        center = best.intrinsics
        for dx in _SHIFTS:
            for dy in _SHIFTS:
                moved = center.copy()
                moved[:2, 2] += scale * dx * k[0, 0], scale * dy * k[1, 1]
                tried = replace(asis, intrinsics=moved)
                tried = replace(tried, edges=edge_score(outlines, tried))
                best = tried if tried.edges > best.edges else best
    dx, dy = best.intrinsics[:2, 2] - k[:2, 2]
    text = f'move the principal point of the colour images by {dx:+.0f}, {dy:+.0f} pixels'
    return replace(best, text=text)
