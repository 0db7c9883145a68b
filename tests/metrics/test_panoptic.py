"""Panoptic quality against mmdet3d's panoptic_seg_eval and hand-counted cases."""

import numpy as np
import pytest
from mmdet3d.evaluation import panoptic_seg_eval

from oneformer3d.metrics.panoptic import (
    PanopticScores,
    dense_index,
    match_segments,
    panoptic_scores,
)

C = 6
STUFF, THINGS = (0, 1), (2, 3, 4, 5)
NAMES = [f'class{label}' for label in range(C)] + ['unlabeled']

Labels = dict[str, np.ndarray]


def random_pair(rng: np.random.Generator, num_points: int = 500) -> tuple[Labels, Labels]:
    """Ground truth in runs of points, and a prediction that shifts, relabels and splits it."""
    cuts = np.sort(rng.integers(0, num_points, size=rng.integers(1, 20)))
    runs = np.searchsorted(cuts, np.arange(num_points))
    gt_semantic = rng.integers(0, C + 1, size=len(cuts) + 1)[runs]
    gt_ids = rng.integers(-1, 8, size=len(cuts) + 1)[runs]
    shift = rng.integers(-15, 16)
    semantic, ids = np.roll(gt_semantic, shift), np.roll(gt_ids, shift)
    wrong = rng.random(num_points) < rng.choice([0, 0.02, 0.3])
    semantic = np.where(wrong | (semantic == C), rng.integers(0, C, num_points), semantic)
    ids = np.where(runs % 5 == 4, ids + 30 * (np.arange(num_points) % 2), ids)
    gt = {'pts_semantic_mask': gt_semantic, 'pts_instance_mask': gt_ids}
    return gt, {'pts_semantic_mask': semantic, 'pts_instance_mask': ids}


def ours(pairs: list[tuple[Labels, Labels]], min_num_points: int = 1) -> PanopticScores:
    names = 'pts_semantic_mask', 'pts_instance_mask'
    counts = [
        match_segments(*(pred[k] for k in names), *(gt[k] for k in names), C, min_num_points)
        for gt, pred in pairs
    ]
    return panoptic_scores(counts, THINGS, STUFF)


def reference(pairs: list[tuple[Labels, Labels]], min_num_points: int = 1) -> dict[str, float]:
    return panoptic_seg_eval(
        [gt for gt, _ in pairs],
        [pred for _, pred in pairs],
        NAMES,
        [NAMES[k] for k in THINGS],
        [NAMES[k] for k in STUFF],
        min_num_points,
        2**16,
        dict(enumerate(NAMES)),
        [C],
        logger='silent',
    )


@pytest.mark.parametrize('min_num_points', [1, 10, 40])
@pytest.mark.parametrize('seed', range(15))
def test_random_scenes_equal_panoptic_seg_eval(seed: int, min_num_points: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [random_pair(rng) for _ in range(4)]
    got, expected = ours(pairs, min_num_points).means_mmdet3d, reference(pairs, min_num_points)
    renamed = {'pq': 'PQ', 'sq_mean': 'SQ', 'rq_mean': 'RQ'}
    renamed |= {f'{x}_{g}': f'{x.upper()}_{g}' for x in ('pq', 'sq', 'rq') for g in GROUPS}
    assert set(renamed.values()) == set(got)
    for theirs, name in renamed.items():
        assert got[name] == pytest.approx(expected[theirs], rel=1e-12), name
    assert got['PQ'] > 0


GROUPS = ('things', 'stuff')


def one_scene(
    gt_semantic: list[int], gt_ids: list[int], semantic: list[int], ids: list[int]
) -> PanopticScores:
    labels = [np.array(x) for x in (semantic, ids, gt_semantic, gt_ids)]
    return panoptic_scores([match_segments(*labels, C)], THINGS, STUFF)


def test_hand_counted_scene() -> None:
    """Class 2: one match with IoU 3/4 and one missed segment; class 3: one false segment."""
    got = one_scene(
        [2, 2, 2, 2, 2, 2, C], [0, 0, 0, 0, 1, 1, 5], [2, 2, 2, 3, 3, 3, 2], [7, 7, 7, 1, 1, 1, 7]
    )
    assert got.sq[2] == 3 / 4
    assert got.rq[2] == 1 / 1.5
    assert got.pq[2] == pytest.approx(0.5)
    assert got.pq[3] == 0
    assert got.means['PQ_things'] == pytest.approx(0.5 / 2)
    assert got.means['PQ'] == pytest.approx(0.5 / 2)
    assert np.isnan(got.means['PQ_stuff'])
    assert got.means_mmdet3d['PQ_things'] == pytest.approx(0.5 / 4)
    assert got.means_mmdet3d['PQ'] == pytest.approx(0.5 / 6)


@pytest.mark.parametrize('classes', [[0], [2], [0, 3], [0, 1, 2, 3, 4, 5]])
def test_perfect_prediction_of_some_classes_scores_one(classes: list[int]) -> None:
    labels = list(np.repeat(classes, 5))
    got = one_scene(labels, labels, labels, labels)
    assert [got.means[name] for name in ('PQ', 'SQ', 'RQ')] == [1, 1, 1]
    assert got.means_mmdet3d['PQ'] == pytest.approx(len(classes) / C)


def test_iou_of_one_half_is_no_match() -> None:
    assert one_scene([2, 2], [0, 0], [2, 3], [0, 0]).pq[2] == 0
    assert one_scene([2, 2, 2], [0, 0, 0], [2, 2, 3], [0, 0, 0]).sq[2] == 2 / 3


def test_segment_ids_may_be_large_and_permuted() -> None:
    rng = np.random.default_rng(0)
    gt, pred = random_pair(rng)
    renamed = np.append(rng.permutation(1000) + 2**31, -1)[pred['pts_instance_mask']]
    moved = {**pred, 'pts_instance_mask': renamed}
    assert ours([(gt, pred)]).means == pytest.approx(ours([(gt, moved)]).means, rel=1e-12)


def test_all_void_scene_has_no_score() -> None:
    got = one_scene([C, C], [0, 1], [2, 3], [0, 1])
    assert np.isnan(list(got.means.values())).all()
    assert set(got.means_mmdet3d.values()) == {0.0}


def test_empty_group_is_nan_and_no_scene_is_an_error() -> None:
    counts = match_segments(*(np.array([2, 2]),) * 4, C)
    assert np.isnan(panoptic_scores([counts], THINGS, ()).means['PQ_stuff'])
    with pytest.raises(ValueError, match='at least one scene'):
        panoptic_scores([], THINGS, STUFF)


def test_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match='one length'):
        match_segments(*(np.zeros(3, int),) * 3, np.zeros(4, int), C)


@pytest.mark.parametrize('values', [[], [3], [5, 0, 5, 2], [7, 2**40, 7], [0, 0]])
def test_dense_index_is_unique(values: list[int]) -> None:
    values = np.array(values, dtype=np.int64)
    for got, expected in zip(dense_index(values), np.unique(values, return_inverse=True)):
        np.testing.assert_array_equal(got, expected)
