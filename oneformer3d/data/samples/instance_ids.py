"""Instance ids on disk → one number per object, also where the ids break the rule.

Enters: ids (N,) as they stand on disk and the class of every point. Leaves: 0…I−1, −1 for none, and
what had to be doubted, with counts. The rule: 0 is no instance, an id is one object of one class.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..class_tables import ClassTable

# Points of another class within an object are labels that ran over its rim, unless they are so many
# that they must be an object themselves.
_OBJECT_POINTS = 100
_OBJECT_SHARE = 0.05
# Where this many ids stand for several objects they are unique per class only, all of them.
_PER_CLASS_IDS = 2
_RIM_POINTS = 10  # then these few points still are a rim
_DOUBTFUL_SHARE = 0.01  # of points of thing classes without an instance


def contiguous_instances(
    raw: NDArray, semantic: NDArray, table: ClassTable, source: str | Path = 'instances'
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Instance ids on disk (N,) → 0…I−1 dense, −1 where there is no instance.

    A point has one where the id is above 0 and its class is among the table's
    ``instance_classes``: walls and unlabeled points lose theirs. An id that stands for objects
    of several classes (ids unique per class only) is split by class; where id 0 holds nothing
    but points of one such class, ids count from 0 and it is an object too.

    Args:
        raw: (N,) 0 = none.
        semantic: (N,) contiguous labels.
        table: the class table.
        source: what messages begin with.

    Returns:
        The ids, and what was split, taken for an object, or left without one.

    Raises:
        ValueError: negative ids.

    Example:
        >>> from oneformer3d.data.class_tables import get_class_table
        >>> raw, chairs_and_tables = np.array([1, 1, 1, 1]), np.array([4, 4, 6, 6])
        >>> contiguous_instances(raw, chairs_and_tables, get_class_table('scannet'), 'room')
        (array([0, 0, 1, 1]), ('room: 1 instance ids stand for objects of several classes (unique \
per class only) and were split: 1 → 2 instances',))
    """
    if raw.min() < 0:
        raise ValueError(f'{source}: instance id {raw.min()} is negative, 0 means no instance')
    has_instances = np.zeros(table.num_classes + 1, dtype=bool)
    has_instances[list(table.instance_classes)] = True
    is_thing = has_instances[semantic]  # (N,)

    counts_from_zero, doubt = _judge_zero(raw, semantic, is_thing, table)
    member = is_thing & (raw >= (0 if counts_from_zero else 1))
    doubts = [doubt] if doubt else []

    # (id, class) pairs in the order of ids; P pairs
    ids, id_of_point = np.unique(raw[member], return_inverse=True)
    width, num_ids = table.num_classes + 1, len(ids)
    pairs, pair_of_point, sizes = np.unique(
        id_of_point * width + semantic[member], return_inverse=True, return_counts=True
    )
    id_of_pair = pairs // width  # (P,)
    instance_of_pair = _split(id_of_pair, sizes, num_ids)
    num_instances = int(instance_of_pair.max(initial=-1)) + 1
    if num_instances > num_ids:
        split = np.bincount(np.unique(np.stack([id_of_pair, instance_of_pair]), axis=1)[0]) > 1
        doubts.append(
            f'{split.sum()} instance ids stand for objects of several classes (unique per class '
            f'only) and were split: {num_ids} → {num_instances} instances'
        )

    instance = np.full(len(raw), -1, dtype=np.int64)
    instance[member] = instance_of_pair[pair_of_point]
    return instance, tuple(f'{source}: {text}' for text in doubts)


def _split(id_of_pair: NDArray, sizes: NDArray, num_ids: int) -> NDArray[np.int64]:
    """Instance (P,) of each pair of id and class: its own if it is large, else its id's largest."""
    id_sizes = np.bincount(id_of_pair, sizes, minlength=num_ids)[id_of_pair]  # (P,)
    largest = np.zeros(num_ids, dtype=np.int64)
    for pair in np.argsort(sizes, kind='stable'):
        largest[id_of_pair[pair]] = pair

    is_object = (sizes >= _OBJECT_POINTS) | (sizes >= _OBJECT_SHARE * id_sizes)
    is_object[largest] = True
    objects_of_id = np.bincount(id_of_pair[is_object], minlength=num_ids)
    if (objects_of_id > 1).sum() >= min(_PER_CLASS_IDS, num_ids):
        is_object |= sizes >= _RIM_POINTS
    owner = np.where(is_object, np.arange(len(sizes)), largest[id_of_pair])
    return np.unique(owner, return_inverse=True)[1].reshape(-1)


def _judge_zero(
    raw: NDArray, semantic: NDArray, is_thing: NDArray, table: ClassTable
) -> tuple[bool, str | None]:
    """Whether id 0 is an object, and what is odd about it."""
    zero, lost = raw == 0, (raw == 0) & is_thing
    if not lost.any() or not (is_thing & (raw > 0)).any():
        return False, None

    classes = np.unique(semantic[lost])
    if len(classes) == 1 and lost.sum() == zero.sum():
        return True, (
            f'id 0 holds {zero.sum()} points of class {table.classes[classes[0]]} and nothing '
            'else: ids count from 0, and it was taken for an object'
        )
    if lost.sum() >= _DOUBTFUL_SHARE * is_thing.sum():
        names = ', '.join(table.classes[k] for k in classes)
        return False, f'{lost.sum()} points of {names} have id 0 and so belong to no instance'
    return False, None
