"""Where frames overlap, and how well depth and brightness agree there.

Enters: ``FrameArrays`` (what was recorded) and a ``Reading`` of them (what it means). Leaves: an
``Overlap``, with counts for every pair of frames.

Pixels of frame i with depth are taken to the world and into frame j. F frames, n pixels of each, P
pairs, H×W the depth image. Depth agrees within a share of it and not within centimetres: otherwise
a reading that shrinks the world would agree with everything.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.02  # of depth
_LEAST_COVERAGE = 0.01


@dataclass(frozen=True, eq=False)
class FrameArrays:
    """What was recorded, whatever it means.

    Attributes:
        depth: (F, H, W) float32 as in the files, 0 missing; edges of depth are missing, too.
        brightness: (F, H, W) float32 of the colour image resized to the depth image.
        outlines: (F, H, W) float32, depth at the near side of these edges, 0 elsewhere.
        pixels: (F, n, 2) sampled pixels (x, y) with depth.
    """

    depth: NDArray[np.float32]
    outlines: NDArray[np.float32]
    brightness: NDArray[np.float32]
    pixels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Reading:
    """What the frames mean.

    Attributes:
        world_from_cam: (F, 4, 4) float64.
        intrinsics: (F, 3, 3) of the depth images.
        metres: per value of depth.
        valid: (F,) bool, frames that have a pose.
        depth: (F, H, W) float32 that replaces what was recorded, or None.
    """

    world_from_cam: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    metres: float
    valid: NDArray[np.bool_]
    depth: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Overlap:
    """Counts of pixels, one for every pair of frames.

    Attributes:
        pairs: (P, 2) from frame, to frame.
        num_pixels: n that were taken over.
        testable: (P,) of them that are in view and not occluded.
        agreeing: (P,) of them whose depth agrees.
        closeness: (P,) sums over them of 1 where depth is the same, 0 where it is 6 % off.
        correlation: of their brightness, −1…1, over all pairs.
    """

    pairs: NDArray[np.int64]
    num_pixels: int
    testable: NDArray[np.int64]
    agreeing: NDArray[np.int64]
    closeness: NDArray[np.float64]
    correlation: float

    @property
    def agreement(self) -> float:
        """Share of the testable pixels whose depth agrees."""
        return float(self.agreeing.sum() / max(1, self.testable.sum()))

    @property
    def coverage(self) -> float:
        """Share of all pixels that are testable."""
        return float(self.testable.sum() / max(1, self.num_pixels * len(self.pairs)))

    @property
    def score(self) -> float:
        """How close depth and brightness are where frames overlap: what a search can climb.

        A reading in which frames hardly overlap is worth little, whatever they show there.
        """
        closeness = self.closeness.sum() / max(1, self.testable.sum())
        seen = self.coverage / (self.coverage + _LEAST_COVERAGE)
        return float(closeness * (1 + self.correlation) / 2 * seen)


@dataclass(frozen=True, eq=False)
class Samples:
    """Pixels of the from-frames as they land in the to-frames; the first axis is the pair."""

    points: NDArray[np.float64]  # (P, n, 3) in the camera of the to-frame
    inside: NDArray[np.bool_]  # (P, n)
    column: NDArray[np.int64]  # (P, n), clipped to the image
    row: NDArray[np.int64]  # (P, n)
    measured: NDArray[np.float64]  # (P, n) depth of the to-frame there in metres, 0 missing


def all_pairs(num_frames: int) -> NDArray[np.int64]:
    """(F·(F−1), 2) of every frame with every other."""
    first, second = np.nonzero(~np.eye(num_frames, dtype=bool))
    return np.stack([first, second], axis=1)


def compare(
    frames: FrameArrays,
    reading: Reading,
    pairs: NDArray[np.int64],
    num_pixels: int | None = None,
    corrections: NDArray[np.float64] | None = None,
    tolerance: float = TOLERANCE,
) -> Overlap:
    """How well frames agree.

    Args:
        frames: F frames.
        reading: of them.
        pairs: (P, 2) to compare; those of frames without a pose are left out.
        num_pixels: of each frame; all that were sampled if None.
        corrections: (P, 4, 4) applied in the camera of the to-frame.
        tolerance: of depth, relative.
    """
    samples = project(frames, reading, pairs, num_pixels, corrections)
    usable = np.all(reading.valid[pairs], axis=1)[:, None]
    z, measured = samples.points[..., 2], samples.measured  # (P, n)

    # behind what the frame shows there a pixel is occluded and says nothing
    testable = usable & samples.inside & (measured > 0) & (z <= (1 + tolerance) * measured)
    error = np.abs(z - measured) / np.where(measured > 0, measured, 1.0)
    close = np.where(testable, np.maximum(0, 1 - error / (3 * tolerance)), 0.0)
    here = frames.brightness[(pairs[:, :1], *_pixels(frames, pairs, num_pixels))][testable]
    there = frames.brightness[pairs[:, 1:], samples.row, samples.column][testable]
    return Overlap(
        pairs,
        testable.shape[1],
        testable.sum(axis=1),
        (testable & (error <= tolerance)).sum(axis=1),
        close.sum(axis=1),
        _correlation(here, there),
    )


def project(
    frames: FrameArrays,
    reading: Reading,
    pairs: NDArray[np.int64],
    num_pixels: int | None = None,
    corrections: NDArray[np.float64] | None = None,
) -> Samples:
    """Take pixels of the from-frames into the to-frames; arguments as of ``compare``."""
    depth = frames.depth if reading.depth is None else reading.depth
    first, second = pairs[:, :1], pairs[:, 1:]
    row, column = _pixels(frames, pairs, num_pixels)
    # x_i = K⁻¹ [u, v, 1] · z, x_j = (world_from_j)⁻¹ world_from_i x_i
    ray_of_pixel = np.linalg.inv(reading.intrinsics)[pairs[:, 0]].swapaxes(1, 2)
    rays = np.stack([column, row, np.ones_like(row)], axis=-1) @ ray_of_pixel  # (P, n, 3)
    points = rays * (depth[first, row, column] * reading.metres)[..., None]
    cam_from_world = np.linalg.inv(reading.world_from_cam)
    second_from_first = cam_from_world[pairs[:, 1]] @ reading.world_from_cam[pairs[:, 0]]
    if corrections is not None:
        second_from_first = corrections @ second_from_first
    points = move(second_from_first, points)

    height, width = depth.shape[1:]
    z = points[..., 2]
    front = z > 1e-6
    image = points @ reading.intrinsics[pairs[:, 1]].swapaxes(1, 2)  # (P, n, 3)
    scale = np.where(front, z, 1.0)
    u = np.floor(np.clip(image[..., 0] / scale, -9, width + 9) + 0.5)
    v = np.floor(np.clip(image[..., 1] / scale, -9, height + 9) + 0.5)
    inside = front & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    u = np.clip(u, 0, width - 1).astype(np.int64)
    v = np.clip(v, 0, height - 1).astype(np.int64)
    measured = depth[second, v, u].astype(np.float64) * reading.metres
    return Samples(points, inside, u, v, measured)


def move(transforms: NDArray[np.floating], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (P, n, 3) moved by (P, 4, 4)."""
    return points @ transforms[:, :3, :3].swapaxes(1, 2) + transforms[:, None, :3, 3]


def _pixels(
    frames: FrameArrays, pairs: NDArray[np.int64], num_pixels: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns (P, n) of the pixels of the from-frames."""
    pixels = frames.pixels[pairs[:, 0], :num_pixels]
    return pixels[..., 1], pixels[..., 0]


def _correlation(first: NDArray, second: NDArray) -> float:
    """Pearson's, 0 where there is nothing to compare."""
    if len(first) < 10 or min(first.std(), second.std()) < 1e-6:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
