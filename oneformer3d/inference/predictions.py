"""What a network says about points, before it is a ``Segmentation``.

Enters: labels and masks. Leaves: the same as records, and instances that others cover left out.
N points of a scan, M of a tile, K instances.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from oneformer3d.data.thinning import ThinnedCloud


@dataclass(frozen=True, eq=False)
class TilePrediction:
    """Of the M points of a tile.

    Attributes:
        semantic, panoptic_semantic: (M,) class.
        panoptic: (M,) segment; ids above the last stuff class are things, −1 is none.
        masks: (K, M) bool.
        classes: (K,) semantic class of each mask.
        scores: (K,).
    """

    semantic: np.ndarray
    panoptic_semantic: np.ndarray
    panoptic: np.ndarray
    masks: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class ScanPrediction:
    """Of the N points of a scan.

    Attributes:
        semantic, panoptic_semantic: (N,) class.
        panoptic: (N,) segment; ids above the last stuff class are things, −1 is none.
        members: K arrays of ascending rows; they may overlap.
        classes: (K,) semantic class of each.
        scores: (K,) descending.
    """

    semantic: np.ndarray
    panoptic_semantic: np.ndarray
    panoptic: np.ndarray
    members: tuple[np.ndarray, ...]
    classes: np.ndarray
    scores: np.ndarray


def drop_covered(prediction: ScanPrediction) -> ScanPrediction:
    """Leave out instances without a point of their own: better-scored ones hold all of them.

    What is left can be counted in a picture, where each point shows its best instance.
    """
    free = np.ones(len(prediction.semantic), dtype=bool)
    keep = []
    for row, members in enumerate(prediction.members):
        if free[members].any():
            keep.append(row)
            free[members] = False
    return select_instances(prediction, keep)


def select_instances(prediction: ScanPrediction, rows: Iterable[int]) -> ScanPrediction:
    """The prediction with these instances only."""
    rows = list(rows)
    return replace(
        prediction,
        members=tuple(prediction.members[row] for row in rows),
        classes=prediction.classes[rows],
        scores=prediction.scores[rows],
    )


def scatter_to_points(prediction: ScanPrediction, thinned: ThinnedCloud) -> ScanPrediction:
    """The prediction for M thinned points → for the N points they stand for."""
    cell = thinned.cell_of_point

    members = []
    in_instance = np.zeros(len(thinned.points), dtype=bool)
    for cells in prediction.members:
        in_instance[cells] = True
        members.append(np.flatnonzero(in_instance[cell]))
        in_instance[cells] = False

    return ScanPrediction(
        prediction.semantic[cell].astype(np.int64),
        prediction.panoptic_semantic[cell].astype(np.int64),
        prediction.panoptic[cell].astype(np.int64),
        tuple(members),
        prediction.classes,
        prediction.scores,
    )
