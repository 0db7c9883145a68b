"""What the numbers of a cloud mean: their unit, and where they begin.

Enters: coordinates (N, 3) in double precision. Leaves: metres near the origin, the shift that
brought them there, and what had to be assumed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

METRES = {'m': 1.0, 'dm': 0.1, 'cm': 0.01, 'mm': 0.001, 'ft': 0.3048, 'in': 0.0254}
_GUESSED = ('cm', 'mm')  # of the units that nobody stated
# Float32 keeps a millimetre up to here, and a tenth of one up to the next.
MAX_COORDINATE = 8192.0
_FINE_COORDINATE = 1024.0
# Scans of rooms and buildings: their extent, and the distance between neighbouring points.
_EXTENT = (0.05, 500.0)
_SPACING = (0.0002, 0.2)
_NUM_SAMPLES = 2000
_LARGE = 60.0  # no room is longer: what is needs a second look
_MIN_POINTS = 100  # fewer say nothing about their unit


@dataclass(frozen=True, eq=False)
class Placed:
    """Coordinates in metres.

    Attributes:
        xyz: (N, 3) float32, near the origin.
        origin: (3,) float64 metres that were subtracted; ``xyz + origin`` are the file's.
        warnings: what was assumed.
    """

    xyz: NDArray[np.float32]
    origin: NDArray[np.float64]
    warnings: tuple[str, ...]


def place(
    xyz: NDArray, name: str, unit: str | None = None, origin: ArrayLike | str | None = 'auto'
) -> Placed:
    """Bring coordinates to metres near the origin.

    A stated unit is taken. Otherwise metres, unless only one other unit makes a scan of a
    plausible extent and spacing: then it is that, with a warning.

    Args:
        xyz: (N, 3) finite, N ≥ 1.
        name: of the file, for messages.
        unit: m, dm, cm, mm, ft, in, or None.
        origin: 'auto' subtracts whole metres where coordinates are too large for float32; None
            subtracts nothing; (3,) metres are subtracted.

    Raises:
        ValueError: an unknown unit or origin, or coordinates of which no unit makes a scan.
    """
    if unit is not None and unit not in METRES:
        raise ValueError(f'unit: expected one of {", ".join(METRES)}, got {unit!r}')
    metres = xyz.astype(np.float64)
    warnings: tuple[str, ...] = ()
    if unit is None:
        unit, warnings = _guess_unit(metres, name)
    metres = metres * METRES[unit]

    shift = _shift(metres, origin)
    if shift.any() and isinstance(origin, str):
        shown = ', '.join(f'{value:.0f}' for value in shift)
        warnings += (f'coordinates are large: ({shown}) m were subtracted as the origin',)
    metres = metres - shift
    largest = float(np.abs(metres).max())
    if largest > MAX_COORDINATE:
        raise ValueError(
            f'{name}: coordinates reach {largest:.6g}, expected metres within '
            f'{MAX_COORDINATE:g} of the origin (scale or shift the cloud)'
        )
    return Placed(metres.astype(np.float32), shift, warnings)


def _guess_unit(xyz: NDArray[np.float64], name: str) -> tuple[str, tuple[str, ...]]:
    if len(xyz) < _MIN_POINTS:
        return 'm', ()
    # a few stray points do not make a scan larger
    low, high = np.percentile(xyz, (0.5, 99.5), axis=0)
    extent = float((high - low).max())
    if _EXTENT[0] <= extent <= _LARGE or extent == 0:
        return 'm', ()
    spacing = _median_spacing(xyz)
    plausible = [unit for unit in ('m', *_GUESSED) if _fits(extent, spacing, METRES[unit])]
    if 'm' in plausible:
        return 'm', ()

    shape = ' x '.join(f'{side:.3g}' for side in high - low)
    if len(plausible) == 1:
        unit = plausible[0]
        return unit, (f'an extent of {shape} is taken as {unit}; state --unit to decide yourself',)
    if extent > _EXTENT[1]:
        raise ValueError(
            f'{name}: an extent of {shape} is no scan of rooms in metres; state --unit '
            f'({", ".join(METRES)})'
        )
    return 'm', (f'an extent of {shape} m is unusual; state --unit if it is not in metres',)


def _fits(extent: float, spacing: float, scale: float) -> bool:
    return (
        _EXTENT[0] <= extent * scale <= _EXTENT[1]
        and spacing * scale <= _SPACING[1]
        and (spacing == 0 or spacing * scale >= _SPACING[0])
    )


def _median_spacing(xyz: NDArray[np.float64]) -> float:
    """Median distance of some points to their nearest neighbour among all."""
    if len(xyz) < 2:
        return 0.0
    few = xyz[np.linspace(0, len(xyz) - 1, min(len(xyz), _NUM_SAMPLES)).astype(np.int64)]
    return float(np.median(KDTree(xyz).query(few, k=2)[0][:, 1]))


def _shift(metres: NDArray[np.float64], origin: ArrayLike | str | None) -> NDArray[np.float64]:
    if origin is None:
        return np.zeros(3)
    if isinstance(origin, str):
        if origin != 'auto':
            raise ValueError(f"origin: expected 'auto', None or three metres, got {origin!r}")
        if np.abs(metres).max() <= _FINE_COORDINATE:
            return np.zeros(3)
        return np.floor(np.median(metres, axis=0))

    shift = np.asarray(origin, dtype=np.float64)
    if shift.shape != (3,) or not np.isfinite(shift).all():
        raise ValueError(f"origin: expected 'auto', None or three metres, got {origin!r}")
    return shift
