"""Ground truth of points to ground truth of superpoints.

Enters: of one sample, superpoint ids, semantic and instance labels of N points. Leaves: a
``SceneTargets`` with masks over S superpoints. Letters as in ``structures``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from oneformer3d.structures import SceneTargets


def superpoint_targets(
    superpoints: Tensor,
    semantic: Tensor,
    instance: Tensor,
    num_semantic_classes: int,
    instance_classes: Sequence[int],
) -> SceneTargets:
    """Masks and labels a criterion compares with; the arguments are only read.

    A superpoint belongs to an instance, or to a class, that holds more than half of its points.
    An instance has the class of most of its points. Left out are instances of classes without
    instances, and those without a superpoint.

    Args:
        superpoints: (N,) int64 dense ids 0…S−1.
        semantic: (N,) int64 labels 0…C, where C means unlabeled.
        instance: (N,) int64, −1 for none, else 0…I−1.
        num_semantic_classes: C.
        instance_classes: the semantic class of each instance class.

    Raises:
        ValueError: lengths differ, or labels lie outside their range.

    Example:
        >>> superpoints = torch.tensor([0, 0, 1, 1, 1])
        >>> semantic = torch.tensor([0, 0, 1, 1, 2])  # of 2 classes; 2 is unlabeled
        >>> instance = torch.tensor([-1, -1, 0, 0, -1])
        >>> targets = superpoint_targets(superpoints, semantic, instance, 2, [1])
        >>> targets.labels_3d  # the instance is of the first instance class; then all classes
        tensor([0, 0, 1, 2])
        >>> targets.sp_masks.int()
        tensor([[0, 1],
                [1, 0],
                [0, 1],
                [0, 0]], dtype=torch.int32)
    """
    _check_labels(superpoints, semantic, instance, num_semantic_classes)
    num_rows = num_semantic_classes + 1
    num_superpoints = int(superpoints.max()) + 1
    sizes = torch.bincount(superpoints, minlength=num_superpoints)  # (S,)

    # a superpoint has the class of more than half of its points, or none
    class_counts = count_pairs(semantic, superpoints, num_rows, num_superpoints)  # (C + 1, S)
    semantic_masks = 2 * class_counts > sizes
    semantic_masks[-1] |= ~semantic_masks.any(0)

    # likewise for instances
    is_member = instance >= 0
    members, member_semantic = instance[is_member], semantic[is_member]
    num_instances = int(members.max()) + 1 if len(members) else 0
    counts = count_pairs(members, superpoints[is_member], num_instances, num_superpoints)
    instance_masks = 2 * counts > sizes  # (I, S)

    # the class of an instance is that of most of its points
    votes = count_pairs(members, member_semantic, num_instances, num_rows)  # (I, C + 1)
    class_of = torch.as_tensor(tuple(instance_classes), dtype=torch.int64, device=semantic.device)
    instance_class_of = semantic.new_full((num_rows,), -1)
    instance_class_of[class_of] = torch.arange(len(class_of), device=semantic.device)
    labels = instance_class_of[votes.argmax(1)]  # (I,)

    keep = (labels >= 0) & instance_masks.any(1)
    return SceneTargets(
        labels_3d=torch.cat([labels[keep], torch.arange(num_rows, device=labels.device)]),
        sp_masks=torch.cat([instance_masks[keep], semantic_masks]),
    )


def count_pairs(rows: Tensor, columns: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """(num_rows, num_columns) int64: how often each pair of ``rows`` and ``columns`` (N,) is."""
    counts = rows.new_zeros(num_rows * num_columns)
    counts = counts.index_add(0, rows * num_columns + columns, torch.ones_like(rows))
    return counts.view(num_rows, num_columns)


def _check_labels(superpoints: Tensor, semantic: Tensor, instance: Tensor, num: int) -> None:
    lengths = len(superpoints), len(semantic), len(instance)
    if len(set(lengths)) != 1 or lengths[0] == 0:
        raise ValueError(
            'expected superpoint, semantic and instance labels of the same points, got '
            f'{lengths[0]}, {lengths[1]} and {lengths[2]}'
        )

    low, high = int(semantic.min()), int(semantic.max())
    if low < 0 or high > num:
        raise ValueError(f'semantic labels: expected 0…{num}, got {low}…{high}')
    if int(superpoints.min()) < 0:
        raise ValueError(f'superpoint ids: expected none negative, got {int(superpoints.min())}')
