"""Ground truth of superpoints against a loop over superpoints."""

import pytest
import torch

from oneformer3d.segmentor.targets import superpoint_targets

NUM_CLASSES = 5
INSTANCE_CLASSES = (2, 3, 4)


def targets_by_loop(superpoints, semantic, instance):
    """Slow twin: instance rows and labels, then class rows."""
    masks, labels = [], []
    ids = range(int(superpoints.max()) + 1)
    for i in range(int(instance.max()) + 1):
        mask = torch.stack([(instance[superpoints == s] == i).float().mean() > 0.5 for s in ids])
        label = int(semantic[instance == i].mode().values)
        if label in INSTANCE_CLASSES and mask.any():
            masks.append(mask)
            labels.append(INSTANCE_CLASSES.index(label))
    for c in range(NUM_CLASSES + 1):
        rows = [(semantic[superpoints == s] == c).float().mean() > 0.5 for s in ids]
        masks.append(torch.stack(rows))
    unlabeled = ~torch.stack(masks[-NUM_CLASSES - 1 :]).any(0)
    masks[-1] = masks[-1] | unlabeled
    return torch.tensor([*labels, *range(NUM_CLASSES + 1)]), torch.stack(masks)


def random_labels(num_points=200, num_superpoints=25, num_instances=9):
    superpoints = torch.arange(num_points) % num_superpoints
    group = superpoints // 3
    instance = torch.where(torch.rand(num_points) < 0.7, group % num_instances, -1)
    semantic = torch.where(torch.rand(num_points) < 0.8, group % (NUM_CLASSES + 1), 1)
    return superpoints, semantic, instance


def test_agrees_with_a_loop():
    for _ in range(5):
        labels = random_labels()
        targets = superpoint_targets(*labels, NUM_CLASSES, INSTANCE_CLASSES)
        expected_labels, expected_masks = targets_by_loop(*labels)
        assert len(expected_labels) > NUM_CLASSES + 1
        assert torch.equal(targets.labels_3d, expected_labels)
        assert torch.equal(targets.sp_masks, expected_masks)


def test_labels_are_not_written_to():
    labels = random_labels()
    copies = [label.clone() for label in labels]
    superpoint_targets(*labels, NUM_CLASSES, INSTANCE_CLASSES)
    assert all(torch.equal(label, copy) for label, copy in zip(labels, copies))


def test_semantic_rows_are_one_hot():
    targets = superpoint_targets(*random_labels(), NUM_CLASSES, INSTANCE_CLASSES)
    assert (targets.sp_masks[-NUM_CLASSES - 1 :].sum(0) == 1).all()


def test_half_of_a_superpoint_is_not_enough():
    superpoints = torch.tensor([0, 0, 1, 1, 1])
    semantic = torch.tensor([2, 3, 3, 3, 2])
    instance = torch.tensor([0, -1, 1, 1, 0])
    targets = superpoint_targets(superpoints, semantic, instance, NUM_CLASSES, INSTANCE_CLASSES)
    assert targets.labels_3d.tolist() == [1, 0, 1, 2, 3, 4, 5]
    assert targets.sp_masks[0].tolist() == [False, True]
    assert targets.sp_masks[-1].tolist() == [True, False]


def test_instances_of_stuff_and_unlabeled_points_are_left_out():
    superpoints = torch.tensor([0, 1, 2])
    targets = superpoint_targets(
        superpoints, torch.tensor([0, 5, 4]), torch.tensor([0, 1, 2]), 5, INSTANCE_CLASSES
    )
    assert targets.labels_3d.tolist()[:-6] == [2]
    assert targets.sp_masks[0].tolist() == [False, False, True]


def test_no_instances_and_no_unlabeled_points():
    superpoints = torch.zeros(4, dtype=torch.long)
    none = torch.full((4,), -1)
    targets = superpoint_targets(superpoints, superpoints, none, 5, INSTANCE_CLASSES)
    assert targets.sp_masks.shape == (6, 1)
    assert targets.sp_masks[:, 0].tolist() == [True, False, False, False, False, False]


def test_queries_are_columns_of_the_masks():
    targets = superpoint_targets(*random_labels(), NUM_CLASSES, INSTANCE_CLASSES)
    query_ids = torch.tensor([7, 3])
    chosen = targets.with_queries(query_ids)
    assert torch.equal(chosen.query_masks, targets.sp_masks[:, [7, 3]])
    assert targets.query_masks is None


def test_bad_labels_are_refused():
    superpoints, semantic, instance = random_labels()
    with pytest.raises(ValueError, match='same points, got 200, 199 and 200'):
        superpoint_targets(superpoints, semantic[1:], instance, 5, INSTANCE_CLASSES)
    with pytest.raises(ValueError, match=r'expected 0…5, got .*…7'):
        superpoint_targets(superpoints, semantic.clamp(min=7), instance, 5, INSTANCE_CLASSES)
    with pytest.raises(ValueError, match='none negative'):
        superpoint_targets(superpoints - 1, semantic, instance, 5, INSTANCE_CLASSES)
