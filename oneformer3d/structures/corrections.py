"""Labels corrected by hand: an object renamed, joined with others, or taken away.

Enters: a ``Segmentation`` of N points and rows of its K instances. Leaves: a new ``Segmentation``;
the one that entered is as it was. A point belongs to the best instance that has it, as in
``Segmentation.instance``; points without any label left have class C, which is none.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .instances import instance_map, make_instance
from .segmentation import Segmentation

NO_SEGMENT = -1


def rename_instance(result: Segmentation, row: int, label: int) -> Segmentation:
    """Give an object and the points that belong to it another class.

    Args:
        result: of K instances and C classes.
        row: of the instance.
        label: 0…C−1.

    Raises:
        ValueError: no such instance, or no such class.
    """
    _check_rows(result, [row])
    if not 0 <= label < len(result.class_names):
        raise ValueError(f'expected a class below {len(result.class_names)}, got {label}')

    mine = result.instance == row  # (N,)
    renamed = replace(result.instances[row], name=result.class_names[label], label=label)
    instances = [renamed if k == row else one for k, one in enumerate(result.instances)]
    return replace(
        result,
        instances=tuple(instances),
        semantic=np.where(mine, label, result.semantic),
        panoptic_semantic=np.where(mine, label, result.panoptic_semantic),
    )


def merge_instances(result: Segmentation, rows: Sequence[int]) -> Segmentation:
    """Join objects; the class is that of the first.

    The joined object stands where the best of them stood, with its score.

    Args:
        result: of K instances.
        rows: at least two of them, each once.

    Raises:
        ValueError: no such instances, or fewer than two.
    """
    _check_rows(result, rows)
    if len(set(rows)) < 2:
        raise ValueError(f'expected two instances or more, got {list(rows)}')
    first, best = result.instances[rows[0]], min(rows)
    score = result.instances[best].score
    members = np.unique(np.concatenate([result.instances[row].members for row in rows]))
    joined = make_instance(first.name, first.label, score, members, result.upright)

    kept = [
        joined if k == best else one
        for k, one in enumerate(result.instances)
        if k == best or k not in rows
    ]
    mine = np.isin(result.instance, rows)  # (N,)
    segments = result.panoptic[result.instance == rows[0]]
    segment = segments[0] if len(segments) else NO_SEGMENT
    return replace(
        result,
        instances=tuple(kept),
        semantic=np.where(mine, first.label, result.semantic),
        panoptic=np.where(mine, segment, result.panoptic),
        panoptic_semantic=np.where(mine, first.label, result.panoptic_semantic),
    )


def delete_instance(result: Segmentation, row: int) -> Segmentation:
    """Take an object away; its points go to the next instance that has them, else they have none.

    Args:
        result: of K instances.
        row: of the instance.

    Raises:
        ValueError: no such instance.
    """
    _check_rows(result, [row])
    kept = tuple(one for k, one in enumerate(result.instances) if k != row)
    heirs = instance_map(kept, len(result.points))  # (N,)
    mine = result.instance == row

    none = len(result.class_names)
    label_of_heir = np.array([*(one.label for one in kept), none])[heirs]
    segment_of_heir = np.full(len(kept) + 1, NO_SEGMENT)
    segment_of_heir[heirs[~mine]] = result.panoptic[~mine]
    segment_of_heir[-1] = NO_SEGMENT
    return replace(
        result,
        instances=kept,
        semantic=np.where(mine, label_of_heir, result.semantic),
        panoptic=np.where(mine, segment_of_heir[heirs], result.panoptic),
        panoptic_semantic=np.where(mine, label_of_heir, result.panoptic_semantic),
    )


def _check_rows(result: Segmentation, rows: Sequence[int]) -> None:
    num_instances = len(result.instances)
    wrong = [row for row in rows if not 0 <= row < num_instances]
    if wrong:
        raise ValueError(f'expected rows of {num_instances} instances, got {wrong[0]}')
