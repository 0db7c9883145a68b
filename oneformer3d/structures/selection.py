"""Some objects of a segmented scan, as a scan of their own.

Enters: a ``Segmentation`` of N points and rows of its K instances. Leaves: a ``Segmentation`` of
the points that these instances have.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .instances import make_instance
from .segmentation import Segmentation


def select_instances(result: Segmentation, rows: Sequence[int]) -> Segmentation:
    """Keep some instances, and no point that none of them has.

    Args:
        result: of K instances.
        rows: which of them, each in 0…K−1; they keep the order of the scan.

    Raises:
        ValueError: no rows, or one that is no instance.
    """
    num_instances = len(result.instances)
    if not rows or not all(0 <= row < num_instances for row in rows):
        raise ValueError(f'expected rows of {num_instances} instances, got {list(rows)}')

    chosen = [result.instances[row] for row in sorted(set(rows))]
    keep = np.zeros(len(result.points), dtype=bool)  # (N,)
    for instance in chosen:
        keep[instance.members] = True

    row_of_point = np.cumsum(keep) - 1
    upright = result.upright[keep]  # (n, 3)
    instances = tuple(
        make_instance(one.name, one.label, one.score, row_of_point[one.members], upright)
        for one in chosen
    )
    return replace(
        result,
        points=result.points[keep],
        semantic=result.semantic[keep],
        panoptic=result.panoptic[keep],
        panoptic_semantic=result.panoptic_semantic[keep],
        instances=instances,
    )
