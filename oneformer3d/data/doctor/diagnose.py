"""Which convention a folder of posed RGB-D frames is in, told from the frames alone.

Enters: a folder in one of the layouts of ``posed_rgbd``, whatever its poses, axes, intrinsics and
depth units mean. Leaves: every reading of them with a score, the one that fits, and what to do so
that the package reads the folder right.

A reading takes some pixels of frame i with depth to the world and into frame j. Where it is right,
depth and colour there agree. F frames, n pixels of each.

    score = share of all pixels whose depth agrees · (1 + correlation of their brightness) / 2

Depth agrees within 2 % of it and not within centimetres: otherwise a reading that shrinks the
world would agree with everything. For the same reason depth in metres and poses in metres cannot
be told from both in millimetres; only their ratio is seen.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .frames import DoctorFrames, load_frames, read_intrinsics_candidates

DIRECTIONS = ('camera to world', 'world to camera')
AXES = ('OpenCV', 'OpenGL')
EXPECTED_DIVISOR = 1000.0
DIVISORS = {
    1000.0: 'millimetres',
    5000.0: '1/5000 m (TUM)',
    4000.0: '1/4000 m',
    10000.0: '1/10000 m',
    256.0: '1/256 m (KITTI)',
    100.0: 'centimetres',
    1.0: 'the unit of the poses',
}
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
_REL_TOL = 0.02
_LEAST_SHARE = 0.25  # of the testable pixels, below it nothing fits
_CLEAR = 0.8  # another reading with this share of the best score is no worse


@dataclass(frozen=True)
class Reading:
    """One way to read the folder, and how well it fits.

    Attributes:
        direction: of the poses, one of ``DIRECTIONS``.
        axes: of the cameras, one of ``AXES``.
        intrinsics: name of the depth intrinsics.
        divisor: depth values per metre.
        score: see above.
        agreement: share of the testable pixels (in view, not hidden) whose depth agrees.
        correlation: of their brightness in both frames, −1…1.
        coverage: share of all pixels that are testable.
    """

    direction: str
    axes: str
    intrinsics: str
    divisor: float
    score: float = 0.0
    agreement: float = 0.0
    correlation: float = 0.0
    coverage: float = 0.0

    def describe(self) -> str:
        """In words."""
        unit = DIVISORS.get(self.divisor, f'1/{self.divisor:g} m')
        return (
            f'poses {self.direction}, {self.axes} axes, intrinsics {self.intrinsics}, '
            f'depth in {unit}'
        )


@dataclass(frozen=True)
class ColorReading:
    """One choice of the colour intrinsics and how well colour fits depth with it.

    Attributes:
        intrinsics: its name.
        edges: mean image gradient where depth has edges, relative to the mean everywhere.
    """

    intrinsics: str
    edges: float


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        readings: best first.
        color_readings: best first.
        num_frames, num_bad_poses, num_unreadable: that were looked at and left out.
        fits: whether the best reading explains the frames.
        rivals: other readings that explain them as well.
        mends: what to do, empty if the package reads the folder right as it is.
    """

    readings: tuple[Reading, ...]
    color_readings: tuple[ColorReading, ...]
    num_frames: int
    num_bad_poses: int
    num_unreadable: int
    fits: bool
    rivals: tuple[Reading, ...]
    mends: tuple[str, ...]

    @property
    def best(self) -> Reading:
        """The reading that fits best."""
        return self.readings[0]


def diagnose(folder: str | Path, max_frames: int = 24, num_pixels: int = 600) -> Diagnosis:
    """Try every reading of a folder.

    Args:
        folder: in one of the layouts of ``posed_rgbd``.
        max_frames: looked at; of a longer sequence groups of neighbours are taken.
        num_pixels: n of each frame.

    Raises:
        FileNotFoundError: no such folder, or not a known layout.
        ValueError: fewer than two usable frames, or files that cannot be read as numbers.
    """
    frames = load_frames(folder, max_frames, num_pixels)
    candidates = read_intrinsics_candidates(frames)
    readings = [
        score_reading(frames, Reading(direction, axes, name, divisor), candidates.depth[name])
        for direction, axes, name, divisor in itertools.product(
            DIRECTIONS, AXES, candidates.depth, DIVISORS
        )
    ]
    # Of equal readings the one that the package expects.
    readings.sort(key=lambda r: (-round(r.score, 4), _num_mends(r, candidates.expected_depth)))
    best = readings[0]
    colors = [
        ColorReading(name, edge_alignment(frames, candidates.depth[best.intrinsics], matrix))
        for name, matrix in candidates.color.items()
    ]
    colors.sort(key=lambda c: (-round(c.edges, 3), c.intrinsics != candidates.expected_color))
    fits = best.agreement >= _LEAST_SHARE and best.score > 0
    rivals = tuple(r for r in readings[1:] if fits and r.score >= _CLEAR * best.score)
    mends = [*frames.notes]
    if fits:
        mends += mends_of(best, candidates.expected_depth)
        if colors and colors[0].intrinsics != candidates.expected_color:
            mends.append(f'give the colour images the intrinsics "{colors[0].intrinsics}"')
    return Diagnosis(
        readings=tuple(readings),
        color_readings=tuple(colors),
        num_frames=len(frames.depth),
        num_bad_poses=frames.num_bad_poses,
        num_unreadable=frames.num_unreadable,
        fits=fits,
        rivals=rivals,
        mends=tuple(mends),
    )


def score_reading(
    frames: DoctorFrames, reading: Reading, intrinsics: NDArray[np.float64]
) -> Reading:
    """The reading with its numbers.

    Args:
        frames: F frames with n pixels each.
        reading: names one convention.
        intrinsics: (3, 3) of the depth images that it means.
    """
    poses = as_world_from_cam(frames.poses, reading.direction, reading.axes)
    cams_from_world = np.linalg.inv(poses)
    rays = np.linalg.solve(intrinsics, _homogeneous(frames.pixels).swapaxes(1, 2))
    in_cam = rays.swapaxes(1, 2) * (frames.pixel_depth / reading.divisor)[..., None]
    world = in_cam @ poses[:, :3, :3].swapaxes(1, 2) + poses[:, None, :3, 3]
    height, width = frames.depth.shape[1:]
    num_agreeing, num_testable, num_pixels = 0, 0, 0
    brightness: list[NDArray] = []
    for j, cam_from_world in enumerate(cams_from_world):
        sources = np.flatnonzero(frames.pairs[:, j])
        points = world[sources].reshape(-1, 3) @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
        num_pixels += len(points)
        z = points[:, 2]
        front = z > 1e-6
        projected = points @ intrinsics.T / np.where(front, z, 1.0)[:, None]
        column, row = np.floor(projected[:, :2].T + 0.5)
        inside = front & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        column, row, z = (values[inside] for values in (column, row, z))
        column, row = column.astype(np.int64), row.astype(np.int64)
        measured = frames.depth[j, row, column] / reading.divisor
        # behind what is seen there, a pixel is hidden and says nothing
        testable = (measured > 0) & (z <= (1 + _REL_TOL) * measured)
        agrees = testable & (np.abs(z - measured) <= _REL_TOL * measured)
        num_testable += int(testable.sum())
        num_agreeing += int(agrees.sum())
        own = frames.brightness_of_pixels[sources].reshape(-1)[inside]
        brightness.append(np.stack([own, frames.brightness[j, row, column]])[:, testable])
    correlation = _correlation(np.concatenate(brightness, axis=1))
    share = num_agreeing / max(1, num_pixels)
    return replace(
        reading,
        score=share * (1 + correlation) / 2,
        agreement=num_agreeing / max(1, num_testable),
        correlation=correlation,
        coverage=num_testable / max(1, num_pixels),
    )


def edge_alignment(
    frames: DoctorFrames, depth_intrinsics: NDArray, color_intrinsics: NDArray
) -> float:
    """Mean brightness gradient of the colour images where depth has edges, over their mean.

    Both cameras are taken to be at one place and to look the same way. A wrong colour camera moves
    the edges off the outlines of things.
    """
    ratios = []
    homography = color_intrinsics @ np.linalg.inv(depth_intrinsics)
    for depth, color_path in zip(frames.depth, frames.color_paths):
        row, column = np.nonzero(_near_side_of_edges(depth))
        if len(row) == 0:
            continue
        with Image.open(color_path) as image:
            grey = np.asarray(image.convert('L'), dtype=np.float32)
        gradient = np.hypot(*np.gradient(grey))
        pixel = _homogeneous(np.stack([column, row], axis=1).astype(float)) @ homography.T
        u, v = np.floor(pixel[:, :2] / pixel[:, 2:] + 0.5).astype(np.int64).T
        inside = (u >= 0) & (u < grey.shape[1]) & (v >= 0) & (v < grey.shape[0])
        if inside.any() and gradient.mean() > 0:
            ratios.append(inside.mean() * gradient[v[inside], u[inside]].mean() / gradient.mean())
    return float(np.mean(ratios)) if ratios else 0.0


def as_world_from_cam(poses: NDArray, direction: str, axes: str) -> NDArray[np.float64]:
    """Poses (F, 4, 4) as they are read → ``world_from_cam`` with OpenCV axes."""
    world_from_cam = np.linalg.inv(poses) if direction == DIRECTIONS[1] else poses
    return world_from_cam @ _FLIP if axes == AXES[1] else world_from_cam


def mends_of(reading: Reading, expected_intrinsics: str) -> list[str]:
    """What to do so that the package, which reads folders one way, reads this one right."""
    mends = []
    formula = {
        (DIRECTIONS[0], AXES[1]): 'pose @ diag(1, -1, -1, 1)',
        (DIRECTIONS[1], AXES[0]): 'inv(pose)',
        (DIRECTIONS[1], AXES[1]): 'inv(pose) @ diag(1, -1, -1, 1)',
    }.get((reading.direction, reading.axes))
    if formula is not None:
        mends.append(f'replace every pose by {formula}')
    if reading.divisor == 1.0:
        mends.append(
            'depth and poses have one unit: if that is millimetres, divide the translations of the '
            'poses by 1000; if it is metres, multiply depth by 1000 and store it in 16 bit'
        )
    elif reading.divisor != EXPECTED_DIVISOR:
        factor = EXPECTED_DIVISOR / reading.divisor
        mends.append(f'multiply depth by {factor:g} to have millimetres')
    if reading.intrinsics != expected_intrinsics:
        mends.append(f'give the depth images the intrinsics "{reading.intrinsics}"')
    return mends


def _num_mends(reading: Reading, expected_intrinsics: str) -> int:
    return len(mends_of(reading, expected_intrinsics))


def _homogeneous(pixels: NDArray) -> NDArray:
    return np.concatenate([pixels, np.ones((*pixels.shape[:-1], 1))], axis=-1)


def _correlation(values: NDArray) -> float:
    """Pearson's, 0 where there is nothing to compare."""
    if values.shape[1] < 10 or (values.std(axis=1) < 1e-6).any():
        return 0.0
    return float(np.corrcoef(values)[0, 1])


def _near_side_of_edges(depth: NDArray, ratio: float = 0.08) -> NDArray[np.bool_]:
    """Pixels with a neighbour much farther away; missing depth is no edge."""
    edge = np.zeros(depth.shape, dtype=bool)
    for axis, shift in itertools.product((0, 1), (1, -1)):
        other = np.roll(depth, shift, axis)
        edge |= (depth > 0) & (other > (1 + ratio) * depth)
    edge[[0, -1]] = False
    edge[:, [0, -1]] = False
    return edge


def describe(diagnosis: Diagnosis, num_readings: int = 6) -> str:
    """The diagnosis as text for a terminal."""
    lines = [
        f'{diagnosis.num_frames} frames compared; left out: {diagnosis.num_bad_poses} with a pose '
        f'that is no rigid motion, {diagnosis.num_unreadable} unreadable',
        '',
        f'{"score":>6} {"depth":>6} {"colour":>7} {"tested":>7}  reading',
    ]
    lines += [
        f'{r.score:6.3f} {r.agreement:6.1%} {r.correlation:7.2f} {r.coverage:7.1%}  {r.describe()}'
        for r in diagnosis.readings[:num_readings]
    ]
    if diagnosis.color_readings:
        lines += ['', f'{"edges":>6}  intrinsics of the colour images']
        lines += [f'{c.edges:6.2f}  {c.intrinsics}' for c in diagnosis.color_readings]
    lines += ['', *_verdict(diagnosis)]
    return '\n'.join(lines)


def _verdict(diagnosis: Diagnosis) -> Sequence[str]:
    if not diagnosis.fits:
        yield 'NOTHING FITS: no reading makes the frames agree. Are poses and images of the same'
        yield 'recording, in the same order, and is depth registered in time?'
        return
    yield f'fits: {diagnosis.best.describe()}'
    for rival in diagnosis.rivals[:3]:
        yield f'as good, the frames cannot tell it apart: {rival.describe()}'
    if diagnosis.mends:
        yield from (f'mend: {mend}' for mend in diagnosis.mends)
    else:
        yield 'nothing to mend: the package reads this folder as it is'
