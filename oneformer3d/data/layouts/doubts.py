"""Whether frames agree as they are read, by a quick look at a few of them.

Enters: F ``PosedFrame`` records. Leaves: a line for each doubt. Depth of one frame, moved to a
neighbour, has to meet its depth there; where another convention or another depth unit makes many
more pixels agree, it is named. ``data/doctor`` searches deeply. n pixels of each frame.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cameras import CONVENTIONS, as_world_from_cam
from .pixels import read_depth
from .records import Matrix, PosedFrame

_MAX_PAIRS = 16
_STEPS = (1, 2, 5, 12)
_NUM_PIXELS = 400
_REL_TOL = 0.03
_CLEARLY = 1.5  # times more agreement, and so much more of it, to name another reading
_MORE = 0.04
_UNITS = (1000.0, 5000.0, 6553.5, 4000.0, 10000.0, 256.0, 100.0, 1.0)
_DEEP = 9.0  # metres; indoors half of the pixels are nearer


@dataclass(frozen=True)
class _Sampled:
    """Pixels (n, 2) with depth (n,) of one frame and its whole depth image (h, w)."""

    frame: PosedFrame
    K: Matrix  # of the depth image
    depth: NDArray[np.float32]
    rays: Matrix  # (n, 3) of z = 1
    z: NDArray[np.float64]


def doubts(
    frames: Sequence[PosedFrame], know_convention: bool = False, know_scale: bool = False
) -> tuple[str, ...]:
    """What is doubtful about how the frames are read.

    Args:
        frames: F, in order.
        know_convention, know_scale: the user has stated it, so nothing else is tried.
    """
    with_depth = [frame for frame in frames if frame.depth_path is not None]
    pairs = list(_pairs(len(with_depth)))
    chosen = sorted({index for pair in pairs for index in pair} or set(range(len(with_depth))))
    sampled = {index: found for index in chosen if (found := _sample(with_depth[index]))}
    if not sampled:
        return ()
    found = _doubt_range(list(sampled.values()), know_scale)

    tested = [(sampled[i], sampled[j]) for i, j in pairs if i in sampled and j in sampled]
    if not tested:
        return found
    as_read = _agreement(tested)
    name, best = '', as_read
    for other, variant in _others(tested[0][0].frame.depth_scale, know_convention, know_scale):
        score = _agreement(tested, *variant)
        if score > best + 1e-9:
            name, best = other, score
    if best > _CLEARLY * as_read and best > as_read + _MORE:
        return (
            f'doubtful: depth agrees between frames in {as_read:.0%} of the pixels as it is read '
            f'and in {best:.0%} with {name} ({len(tested)} pairs)',
        )
    return found


def _others(
    scale: float, know_convention: bool, know_scale: bool
) -> Iterator[tuple[str, tuple[str, float]]]:
    """Other readings: name of the option, and (convention of the poses as read, depth factor)."""
    conventions = ('opencv',) if know_convention else CONVENTIONS
    units = (scale,) if know_scale else (scale, *(unit for unit in _UNITS if unit != scale))
    for convention in conventions:
        for unit in units:
            parts = [f'--convention {convention}'] if convention != 'opencv' else []
            # depth in the unit of the poses: rather these are in millimetres than rooms kilometres
            if (scale, unit) == (1000.0, 1.0):
                parts += ['the translations of the poses in millimetres (divide them by 1000)']
            elif unit != scale:
                parts += [f'--depth-scale {unit:g}']
            if parts:
                yield ' '.join(parts), (convention, scale / unit)


def _pairs(num_frames: int) -> Iterator[tuple[int, int]]:
    """Neighbours at several distances, spread over the sequence."""
    per_step = max(1, _MAX_PAIRS // len(_STEPS))
    for step in _STEPS:
        count = min(per_step, num_frames - step)
        for start in np.unique(np.linspace(0, num_frames - 1 - step, max(0, count)).astype(int)):
            yield int(start), int(start) + step


def _sample(frame: PosedFrame) -> _Sampled | None:
    """Pixels with depth, drawn evenly; None if there are none or the image is broken."""
    try:
        depth = read_depth(frame)
    except ValueError:  # counted where all frames are read
        return None
    if depth is None or frame.depth_intrinsics is None:
        return None
    v, u = np.nonzero(depth > 0)
    if len(v) == 0:
        return None
    take = np.random.default_rng(0).choice(len(v), min(_NUM_PIXELS, len(v)), replace=False)
    pixels = np.stack([u[take], v[take], np.ones(len(take))], axis=1)  # (n, 3)
    K = frame.depth_intrinsics
    rays = np.asarray(np.linalg.solve(K, pixels.T).T, np.float64)
    return _Sampled(frame, K, depth, rays, depth[v[take], u[take]].astype(np.float64))


def _agreement(
    pairs: Sequence[tuple[_Sampled, _Sampled]], convention: str = 'opencv', factor: float = 1.0
) -> float:
    """Share of all sampled pixels whose depth agrees in the other frame."""
    num_agreeing = num_pixels = 0
    for here, there in pairs:
        world_from_here, world_from_there = (
            as_world_from_cam(s.frame.world_from_cam, convention) for s in (here, there)
        )
        move = np.linalg.inv(world_from_there) @ world_from_here
        points = (here.rays * here.z[:, None] * factor) @ move[:3, :3].T + move[:3, 3]  # (n, 3)
        z = points[:, 2]
        front = z > 1e-3
        projected = points[front] @ there.K.T / z[front, None]
        column, row = np.floor(projected[:, :2].T + 0.5)
        height, width = there.depth.shape
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)

        measured = there.depth[row[inside].astype(int), column[inside].astype(int)] * factor
        off = np.abs(z[front][inside] - measured)
        num_agreeing += int(((measured > 0) & (off <= _REL_TOL * measured)).sum())
        num_pixels += len(points)
    return num_agreeing / max(1, num_pixels)


def _doubt_range(sampled: Sequence[_Sampled], know_scale: bool) -> tuple[str, ...]:
    """A line if half of all depth is farther than rooms are deep, or nearer than sensors see."""
    median = float(np.median(np.concatenate([s.z for s in sampled])))
    if know_scale or 0.1 <= median <= _DEEP:
        return ()
    unit = sampled[0].frame.depth_scale
    return (
        f'doubtful: half of the depth is beyond {median:.3g} m at {unit:g} units per metre '
        f'({len(sampled)} frames); state --depth-scale',
    )
