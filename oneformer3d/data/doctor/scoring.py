"""How well one reading of a folder explains its frames, in numbers.

Enters: ``DoctorFrames`` and a ``Reading``. Leaves: the reading with its score.

A reading takes some pixels of frame i with depth to the world and into frame j. Where it is right,
depth and colour there agree. F frames, n pixels of each.

    score = share of all pixels whose depth agrees · (1 + correlation of their brightness) / 2

Depth agrees within 2 % of it and not within centimetres: otherwise a reading that shrinks the
world would agree with everything. For the same reason depth in metres and poses in metres cannot
be told from both in millimetres; only their ratio is seen.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .frames import DoctorFrames

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


@dataclass(frozen=True)
class Reading:
    """One way to read the folder, and how well it fits.

    Attributes:
        direction: of the poses, one of ``DIRECTIONS``.
        axes: of the cameras, one of ``AXES``.
        intrinsics: name of the depth intrinsics.
        divisor: depth values per metre.
        score: see above.
        agreement: share of the testable pixels (in view, not occluded) whose depth agrees.
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


def score_reading(
    frames: DoctorFrames, reading: Reading, intrinsics: NDArray[np.float64]
) -> Reading:
    """The reading with its numbers.

    Args:
        frames: F frames with n pixels each.
        reading: names one convention.
        intrinsics: (3, 3) of the depth images that it means.
    """
    world_from_cam = as_world_from_cam(frames.poses, reading.direction, reading.axes)
    # x_world = R (K⁻¹ [u, v, 1] · depth) + t
    rays = np.linalg.solve(intrinsics, _homogeneous(frames.pixels).swapaxes(1, 2))  # (F, 3, n)
    in_cam = rays.swapaxes(1, 2) * (frames.pixel_depth / reading.divisor)[..., None]  # (F, n, 3)
    world = in_cam @ world_from_cam[:, :3, :3].swapaxes(1, 2) + world_from_cam[:, None, :3, 3]

    num_agreeing, num_testable, num_pixels = 0, 0, 0
    brightness: list[NDArray] = []
    for j, cam_from_world in enumerate(np.linalg.inv(world_from_cam)):
        sources = np.flatnonzero(frames.pairs[:, j])
        points = world[sources].reshape(-1, 3) @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
        inside, column, row = _pixels_of(points, intrinsics, frames.depth.shape[1:])

        # behind what the frame shows there a pixel is occluded and says nothing
        z = points[inside, 2]
        measured = frames.depth[j, row, column] / reading.divisor
        testable = (measured > 0) & (z <= (1 + _REL_TOL) * measured)
        agrees = testable & (np.abs(z - measured) <= _REL_TOL * measured)

        there, here = frames.brightness[j, row, column], frames.brightness_of_pixels[sources]
        brightness.append(np.stack([here.reshape(-1)[inside], there])[:, testable])
        num_pixels += len(points)
        num_testable += int(testable.sum())
        num_agreeing += int(agrees.sum())

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
    the edges off the outlines of objects.
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


def _pixels_of(
    points: NDArray, intrinsics: NDArray, size: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Which camera points (N, 3) fall into the image, and the nearest pixels of those that do."""
    z = points[:, 2]
    front = z > 1e-6
    projected = points @ intrinsics.T / np.where(front, z, 1.0)[:, None]
    column, row = np.floor(projected[:, :2].T + 0.5)
    inside = front & (column >= 0) & (column < size[1]) & (row >= 0) & (row < size[0])
    return inside, column[inside].astype(np.int64), row[inside].astype(np.int64)


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
