"""How well a reading explains its frames, and how well any could.

Enters: a recording and changes. Leaves: a ``Fit``. Frames that are brought together pair by pair
(see ``align``) show what the sensor allows; what poses lack beside that is no fault of the sensor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .align import align_pairs, motion_size
from .changes import Change
from .compare import Overlap, all_pairs, compare
from .records import Recording, read

LEAST_REACHED = 0.9  # of what alignment of pairs reaches; sound recordings have 0.91 to 1
LEAST_AGREEMENT = 0.65  # below it neighbours contradict each other, whatever the sensor
_MAX_PAIRS = 240  # that are aligned; the more frames see the same, the more pairs there are
_LEAST_OVERLAP = 0.15  # of its pixels a frame shares with another to be compared


@dataclass(frozen=True, eq=False)
class Fit:
    """How well frames agree.

    Attributes:
        changes: that were made.
        everything: counts of all pairs, also of those that hardly overlap.
        kept: (F,) bool, frames that were looked at.
        pairs: (P, 2) of frames that overlap, at most 240 of them.
        agreement: share of the testable pixels of these pairs whose depth agrees.
        reachable: the same after every pair has been aligned by itself.
        correlation: of brightness, −1…1.
        coverage: share of all pixels of all pairs that are testable.
        of_pairs: (P,) agreement of each pair.
        weights: (P,) testable pixels of each pair.
        reachable_of_pairs: (P,) after alignment.
        centimetres, degrees: (P,) how far alignment moved each pair.
    """

    changes: tuple[Change, ...]
    everything: Overlap
    kept: NDArray[np.bool_]
    pairs: NDArray[np.int64]
    agreement: float
    reachable: float
    correlation: float
    coverage: float
    of_pairs: NDArray[np.float64]
    weights: NDArray[np.int64]
    reachable_of_pairs: NDArray[np.float64]
    centimetres: NDArray[np.float64]
    degrees: NDArray[np.float64]

    @property
    def shared(self) -> float:
        """Share of all pixels that are testable and agree."""
        return self.agreement * self.coverage

    @property
    def share_reached(self) -> float:
        """Of what alignment of every pair reaches; 1 where poses are as good as the sensor.

        The two frames that lack most do not count: no verdict hangs on what two frames show.
        """
        reachable = without_each(self, self.reachable_of_pairs)
        shares = without_each(self) / np.maximum(reachable, 1e-9)
        whole = self.agreement / max(self.reachable, 1e-9)
        return float(max(whole, shares.max(initial=0.0)))


def assess(
    recording: Recording,
    changes: Sequence[Change] = (),
    num_pixels: int | None = None,
    keep: NDArray[np.bool_] | None = None,
) -> Fit:
    """How well frames agree after some changes.

    Args:
        recording: of F frames.
        changes: made one after the other.
        num_pixels: of each frame; all if None.
        keep: (F,) frames that are looked at; all if None. Those without a pose never are.
    """
    reading, arrays = read(recording, changes), recording.arrays
    kept = reading.valid if keep is None else reading.valid & keep
    pairs = all_pairs(len(recording.chosen))
    everything = compare(arrays, reading, pairs[kept[pairs].all(axis=1)], num_pixels)

    # pairs that overlap, as they are and each aligned by itself
    pairs = everything.pairs[everything.testable > _LEAST_OVERLAP * everything.num_pixels]
    if len(pairs) > _MAX_PAIRS:
        taken = np.random.default_rng(0).choice(len(pairs), _MAX_PAIRS, replace=False)
        pairs = pairs[np.sort(taken)]
    before = compare(arrays, reading, pairs, num_pixels)
    motions = align_pairs(arrays, reading, pairs, num_pixels)
    after = compare(arrays, reading, pairs, num_pixels, motions)
    length, angle = motion_size(motions)

    return Fit(
        changes=tuple(changes),
        everything=everything,
        kept=kept,
        pairs=pairs,
        agreement=before.agreement,
        reachable=max(after.agreement, before.agreement),
        correlation=before.correlation,
        coverage=everything.coverage,
        of_pairs=_ratio(before),
        weights=before.testable,
        reachable_of_pairs=_ratio(after),
        centimetres=100 * length,
        degrees=angle,
    )


def explained(fit: Fit) -> bool:
    """Whether the sensor explains what does not agree."""
    return fit.agreement >= LEAST_AGREEMENT and fit.share_reached >= LEAST_REACHED


def without_each(fit: Fit, of_pairs: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """(F, F) agreement without the pairs of frames i and j; of all where these are half of them.

    ``of_pairs``, (P,), stands for the agreement of the pairs.
    """
    agreement = fit.of_pairs if of_pairs is None else of_pairs
    num_frames = len(fit.kept)
    first, second = np.sort(fit.pairs, axis=1).T
    sums = np.zeros((2, num_frames, num_frames))
    for plane, values in zip(sums, (agreement * fit.weights, fit.weights)):
        np.add.at(plane, (first, second), values)
    total = sums.sum(axis=(1, 2), keepdims=True)
    # of few pairs none can be spared
    left = np.where(2 * sums[1] < total[1], total - sums, total)
    return left[0] / np.maximum(left[1], 1)


def _ratio(overlap: Overlap) -> NDArray[np.float64]:
    return overlap.agreeing / np.maximum(1, overlap.testable)
