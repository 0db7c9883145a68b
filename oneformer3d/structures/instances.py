"""One object of a segmented scan, and masks as run lengths.

Enters: the points of an object. Leaves: ``Instance``. N points of the
scan, n of the object.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .boxes import UprightBox, fit_upright_box


@dataclass(frozen=True, eq=False)
class Instance:
    """An object.

    Attributes:
        name: of its class.
        label: its class, 0…C−1.
        score: 0…1.
        members: (n,) int64 ascending rows of its points in the scan, n ≥ 1.
        num_scan_points: N.
        box: around it, in the coordinates of ``Segmentation.upright`` (z up).
    """

    name: str
    label: int
    score: float
    members: NDArray[np.int64]
    num_scan_points: int
    box: UprightBox

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(N,) bool."""
        mask = np.zeros(self.num_scan_points, dtype=bool)
        mask[self.members] = True
        return mask

    @property
    def num_points(self) -> int:
        """The n points of the object."""
        return len(self.members)


def make_instance(
    name: str, label: int, score: float, members: np.ndarray, upright: np.ndarray
) -> Instance:
    """An instance of the points (N, 3) of a scan with z up, and the box around it."""
    box = fit_upright_box(upright[members])
    return Instance(name, label, score, members, len(upright), box)


def instance_map(instances: Sequence[Instance], num_points: int) -> NDArray[np.int64]:
    """Masks that may overlap → one instance per point.

    Args:
        instances: K, by descending score.
        num_points: N.

    Returns:
        (N,) int64 row of the best-scored instance that has the point, -1 where none has.
    """
    rows = np.full(num_points, -1, dtype=np.int64)
    for row in reversed(range(len(instances))):  # the best come last and stay
        rows[instances[row].members] = row
    return rows


def encode_runs(mask: np.ndarray) -> list[int]:
    """A mask (N,) → lengths of its runs as COCO counts them, from a run of False (maybe 0) on.

    Example:
        >>> encode_runs(np.array([True, True, False, True]))
        [0, 2, 1, 1]
    """
    mask = np.asarray(mask, dtype=bool)
    borders = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    runs = np.diff(np.concatenate([[0], borders, [len(mask)]])).tolist()
    return [0, *runs] if len(mask) and mask[0] else runs


def decode_runs(counts: Sequence[int]) -> NDArray[np.bool_]:
    """The mask (N,) bool of ``encode_runs``."""
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts)
