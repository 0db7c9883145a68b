"""Which changes would make frames agree better.

Enters: a recording and the changes made so far. Leaves: further changes, best first, each with the
score of ``compare``. Numbers are tried on a grid and refined between its points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .changes import (
    FAMILIES,
    Change,
    Family,
    depth_changes,
    factor_change,
    intrinsics_changes,
    offset_change,
    order_changes,
    resize_change,
    shift_change,
)
from .compare import all_pairs, compare
from .conventions import common_pose_changes, pose_changes
from .records import Recording, read, with_depth_changed

_LEAST_VALID = 0.7  # of the frames must still have a pose
_NUM_POINTS = 1800  # that a reading is scored with
_FACTORS = (0.2, 0.25, 0.1, 10.0, 0.001, 1000.0, 1000 / 6553.5)


@dataclass(frozen=True)
class Found:
    """Changes and how well frames agree after them."""

    changes: tuple[Change, ...]
    score: float


def score(
    recording: Recording,
    changes: Sequence[Change],
    num_pixels: int,
    against: tuple[Change, ...] = (),
) -> float:
    """What the search climbs: ``Overlap.score`` over all pairs.

    Where a change of time leaves frames without a pose, the others are scored without the change,
    too, and what that differs from all is taken off: frames that are gone prove nothing.
    """
    reading = read(recording, changes)
    pairs = all_pairs(len(recording.chosen))
    kept = pairs[reading.valid[pairs].all(axis=1)]
    if reading.valid.sum() < max(3, _LEAST_VALID * len(reading.valid)):
        return 0.0
    found = compare(recording.arrays, reading, kept, num_pixels).score
    if len(kept) == len(pairs):
        return found
    before = read(recording, against)
    lucky = compare(recording.arrays, before, kept, num_pixels).score
    usual = compare(recording.arrays, before, pairs, num_pixels).score
    return found - max(0.0, lucky - usual)


def search_changes(
    recording: Recording, made: tuple[Change, ...] = (), poses: bool = True
) -> list[Found]:
    """The best further change of every kind, best first.

    Args:
        recording: of F frames.
        made: changes that are made before.
        poses: whether conventions of poses are tried; there are hundreds.
    """
    num_pixels = max(8, 5 * _NUM_POINTS // 2 // len(recording.chosen) ** 2)
    given, (recording, made) = made, with_depth_changed(recording, made)
    found = [_best_of_family(recording, made, family, num_pixels) for family in FAMILIES]
    found.append(_best_of_family(recording, made, _offsets(recording), num_pixels))
    single = [*depth_changes(), *intrinsics_changes(), *order_changes(len(recording.frames))]
    found += [_tried(recording, made, change, num_pixels) for change in single]
    if poses:
        tried = [
            _tried(recording, made, change, max(6, num_pixels // 3)) for change in pose_changes()
        ]
        best = sorted(tried, key=lambda f: -f.score)[:8]
        found += [Found(f.changes, score(recording, f.changes, num_pixels, made)) for f in best]
    found = [Found((*given, *f.changes[len(given) :]), f.score) for f in found]
    return sorted(found, key=lambda f: (-round(f.score, 3), len(f.changes[-1].text)))


def search_together(recording: Recording) -> list[Found]:
    """Conventions of poses together with another change, best first."""
    second = [factor_change(factor) for factor in _FACTORS]
    second += [resize_change(0.5), resize_change(2.0), *intrinsics_changes()[:2]]
    second += [shift_change(1), shift_change(-1)]
    num_pixels = max(2, _NUM_POINTS // len(recording.chosen) ** 2)
    found = [
        Found((*p, change), score(recording, (*p, change), num_pixels))
        for p in ((pose,) for pose in common_pose_changes())
        for change in second
    ]
    best = sorted(found, key=lambda f: -f.score)[:12]
    found = [Found(f.changes, score(recording, f.changes, 8 * num_pixels)) for f in best]
    return sorted(found, key=lambda f: -f.score)[:4]


def _tried(
    recording: Recording, made: tuple[Change, ...], change: Change, num_pixels: int
) -> Found:
    changes = (*made, change)
    return Found(changes, score(recording, changes, num_pixels, made))


def _best_of_family(
    recording: Recording, made: tuple[Change, ...], family: Family, num_pixels: int
) -> Found:
    """The best value of a grid, refined by halving steps around it."""
    # factors are refined in ratios, lengths and angles in differences
    ratio = min(family.values) > 0
    best_value = max(
        family.values, key=lambda v: score(recording, (*made, family.make(v)), num_pixels, made)
    )
    best = score(recording, (*made, family.make(best_value)), 4 * num_pixels, made)
    step = family.step / 2
    while step > family.step / 20:
        for direction in (1, -1):
            value = best_value * (1 + step) ** direction if ratio else best_value + direction * step
            current = score(recording, (*made, family.make(value)), 4 * num_pixels, made)
            if current > best:
                best_value, best = value, current
                break
        else:
            step /= 2
    return Found((*made, family.make(float(best_value))), best)


def _offsets(recording: Recording) -> Family:
    """Numbers added to depth, in shares of what is typical there."""
    depth = recording.arrays.depth
    typical = float(np.median(depth[depth > 0]))
    return Family(offset_change, tuple(typical * s for s in (-0.3, -0.2, -0.1, 0.1, 0.2, 0.3)))
