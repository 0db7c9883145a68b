"""Masks as memberships, against plain loops over booleans."""

import numpy as np
import pytest

from oneformer3d.open_vocabulary.members import (
    MaskMembers,
    add_uncovered,
    best_mask_of_points,
    members_of_lists,
    members_of_masks,
)


@pytest.fixture
def masks():
    return np.random.default_rng(0).random((7, 40)) < 0.3


def test_rows_and_lists_are_the_same_members(masks):
    by_rows = members_of_masks(masks)
    shuffled = [np.random.default_rng(1).permutation(np.flatnonzero(row)) for row in masks]
    by_lists = members_of_lists(shuffled, 40)

    assert (by_rows.mask == by_lists.mask).all()
    assert (by_rows.point == by_lists.point).all()
    assert (by_rows.sizes == masks.sum(1)).all()
    for row, mask in enumerate(masks):
        assert (by_rows.points_of(row) == np.flatnonzero(mask)).all()


def test_each_point_gets_its_best_mask(masks):
    scores = np.random.default_rng(2).random(7)
    best = best_mask_of_points(members_of_masks(masks), scores)
    for point, mask in enumerate(best):
        has_it = np.flatnonzero(masks[:, point])
        expected = has_it[scores[has_it].argmax()] if len(has_it) else -1
        assert mask == expected


def test_of_equal_masks_the_first_wins():
    both = members_of_masks(np.ones((2, 3), bool))
    assert (best_mask_of_points(both, np.array([0.5, 0.5])) == 0).all()


def test_superpoints_that_no_mask_covers_become_masks(masks):
    superpoints = np.random.default_rng(3).integers(0, 9, 40)
    members = add_uncovered(members_of_masks(masks), superpoints)

    expected = list(masks)
    for superpoint in range(9):
        inside = superpoints == superpoint
        if inside.any() and masks.any(0)[inside].mean() < 0.5:
            expected.append(inside)
    assert members.num_masks == len(expected)
    for row, mask in enumerate(expected):
        assert (members.points_of(row) == np.flatnonzero(mask)).all()


def test_without_masks_every_superpoint_is_one():
    none = members_of_lists([], 6)
    members = add_uncovered(none, np.array([0, 0, 1, 2, 2, 2]))
    assert members.sizes.tolist() == [2, 1, 3]
    assert best_mask_of_points(none, np.empty(0)).tolist() == [-1] * 6


@pytest.mark.parametrize(
    ('mask', 'point', 'message'),
    [
        ([0, 2], [0, 0], 'mask: rows 0 … 2, but there are 2'),
        ([0, 1], [0, 3], 'point: rows 0 … 3, but there are 3'),
        ([1, 0], [0, 0], 'sorted'),
        ([0, 0], [1, 1], 'each once'),
        ([0, 1], [1], 'point: expected'),
    ],
)
def test_wrong_members_are_refused(mask, point, message):
    with pytest.raises(ValueError, match=message):
        MaskMembers(np.array(mask), np.array(point), 2, 3)
