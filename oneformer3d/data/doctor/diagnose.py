"""Which convention a folder of posed RGB-D frames is in, told from the frames alone.

Enters: a folder in one of the layouts of ``posed_rgbd``, whatever its poses, axes, intrinsics and
depth units mean. Leaves: every reading of them with a score (see ``scoring``), the one that fits,
and what to do so that the package reads the folder right.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .frames import load_frames
from .intrinsics import intrinsics_candidates
from .scoring import (
    AXES,
    DIRECTIONS,
    DIVISORS,
    EXPECTED_DIVISOR,
    ColorReading,
    Reading,
    edge_alignment,
    score_reading,
)

_LEAST_SHARE = 0.25  # of the testable pixels, below it nothing fits
_CLEAR = 0.8  # another reading with this share of the best score is no worse


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        readings: best first.
        color_readings: best first.
        num_frames, num_bad_poses, num_unreadable: that were looked at and left out.
        fits: whether the best reading explains the frames.
        rivals: other readings that explain them as well.
        fixes: what to do, empty if the package reads the folder right as it is.
    """

    readings: tuple[Reading, ...]
    color_readings: tuple[ColorReading, ...]
    num_frames: int
    num_bad_poses: int
    num_unreadable: int
    fits: bool
    rivals: tuple[Reading, ...]
    fixes: tuple[str, ...]

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
    candidates = intrinsics_candidates(frames)
    readings = [
        score_reading(frames, Reading(direction, axes, name, divisor), candidates.depth[name])
        for direction, axes, name, divisor in itertools.product(
            DIRECTIONS, AXES, candidates.depth, DIVISORS
        )
    ]
    # of equal readings the one that the package expects
    readings.sort(key=lambda r: (-round(r.score, 4), len(fixes_of(r, candidates.expected_depth))))
    best = readings[0]

    colors = [
        ColorReading(name, edge_alignment(frames, candidates.depth[best.intrinsics], matrix))
        for name, matrix in candidates.color.items()
    ]
    colors.sort(key=lambda c: (-round(c.edges, 3), c.intrinsics != candidates.expected_color))

    fits = best.agreement >= _LEAST_SHARE and best.score > 0
    rivals = tuple(r for r in readings[1:] if fits and r.score >= _CLEAR * best.score)
    fixes = [*frames.notes]
    if fits:
        fixes += fixes_of(best, candidates.expected_depth)
        if colors and colors[0].intrinsics != candidates.expected_color:
            fixes.append(f'give the colour images the intrinsics "{colors[0].intrinsics}"')
    return Diagnosis(
        readings=tuple(readings),
        color_readings=tuple(colors),
        num_frames=len(frames.depth),
        num_bad_poses=frames.num_bad_poses,
        num_unreadable=frames.num_unreadable,
        fits=fits,
        rivals=rivals,
        fixes=tuple(fixes),
    )


def fixes_of(reading: Reading, expected_intrinsics: str) -> list[str]:
    """What to do so that the package, which reads folders one way, reads this one right."""
    fixes = []
    formula = {
        (DIRECTIONS[0], AXES[1]): 'pose @ diag(1, -1, -1, 1)',
        (DIRECTIONS[1], AXES[0]): 'inv(pose)',
        (DIRECTIONS[1], AXES[1]): 'inv(pose) @ diag(1, -1, -1, 1)',
    }.get((reading.direction, reading.axes))
    if formula is not None:
        fixes.append(f'replace every pose by {formula}')

    if reading.divisor == 1.0:
        fixes.append(
            'depth and poses have one unit: if that is millimetres, divide the translations of the '
            'poses by 1000; if it is metres, multiply depth by 1000 and store it in 16 bit'
        )
    elif reading.divisor != EXPECTED_DIVISOR:
        factor = EXPECTED_DIVISOR / reading.divisor
        fixes.append(f'multiply depth by {factor:g} to have millimetres')

    if reading.intrinsics != expected_intrinsics:
        fixes.append(f'give the depth images the intrinsics "{reading.intrinsics}"')
    return fixes


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


def _verdict(diagnosis: Diagnosis) -> Iterator[str]:
    if not diagnosis.fits:
        yield 'NOTHING FITS: no reading makes the frames agree. Are poses and images of the same'
        yield 'recording, in the same order, and is depth registered in time?'
        return
    yield f'fits: {diagnosis.best.describe()}'
    for rival in diagnosis.rivals[:3]:
        yield f'as good, the frames cannot tell it apart: {rival.describe()}'
    if diagnosis.fixes:
        yield from (f'fix: {fix}' for fix in diagnosis.fixes)
    else:
        yield 'nothing to fix: the package reads this folder as it is'
