"""Scores of a labelled scan: closed forms, and a loop over pairs of sets."""

import numpy as np
import pytest

from oneformer3d.metrics.labelled_scan import (
    ScanLabels,
    agnostic_scores,
    calibration_error,
    name_ious,
    names_of_classes,
    recall_of,
)

NAMES = ('wall', 'floor', 'table', 'plant')


@pytest.fixture
def labels() -> ScanLabels:
    """A wall of 20 points, a floor of 20, two tables of 15 and 25, a plant of 10, 10 unlabeled."""
    semantic = np.repeat([0, 1, 2, 2, 3, 255], [20, 20, 15, 25, 10, 10])
    instance = np.repeat([-1, -1, 0, 1, 2, -1], [20, 20, 15, 25, 10, 10])
    return ScanLabels(NAMES, semantic, instance)


def masks_of(labels: ScanLabels, *ids: int) -> np.ndarray:
    return np.stack([labels.instance == identity for identity in ids])


def test_iou_equals_sets(labels) -> None:
    predicted = np.random.default_rng(0).integers(0, 5, len(labels.semantic))
    known = {i for i, k in enumerate(labels.semantic) if k < 4}
    for index, iou in enumerate(name_ious(labels, predicted)):
        true = {i for i in known if labels.semantic[i] == index}
        found = {i for i in known if predicted[i] == index}
        assert iou == pytest.approx(len(true & found) / len(true | found))


def test_a_name_that_is_not_there_has_no_score(labels) -> None:
    walls = labels.rows(labels.semantic == 0)
    assert np.isnan(name_ious(walls, np.zeros(20, int))[1:]).all()
    assert np.isnan(recall_of(walls, np.zeros(20, int), 'floor'))
    assert np.isnan(recall_of(walls, np.zeros(20, int), 'ceiling'))
    assert recall_of(walls, np.repeat([0, 1], 10), 'wall') == 0.5


def test_true_masks_are_perfect_whatever_lies_on_void(labels) -> None:
    everything = masks_of(labels, 0, 1, 2)
    void = np.isin(labels.semantic, [0, 1, 255])
    junk = np.stack([void, labels.semantic == 0])
    scores = agnostic_scores(labels, np.concatenate([everything, junk]), np.ones(5))
    assert (scores.ap50, scores.ap25, scores.num_instances) == (1.0, 1.0, 3)
    assert scores.calibration_error == 0.0


def test_only_wanted_names_count(labels) -> None:
    tables = masks_of(labels, 0, 1)
    every = agnostic_scores(labels, tables, np.ones(2))
    wanted = agnostic_scores(labels, tables, np.ones(2), ['table'])
    assert (every.num_instances, wanted.num_instances) == (3, 2)
    # with two of three found and nothing wrong, precision is 1 up to a recall of 2/3
    assert every.ap50 < wanted.ap50 == 1.0
    # a mask of an unwanted kind is not held against anyone
    assert agnostic_scores(labels, masks_of(labels, 0, 1, 2), np.ones(3), ['table']).ap50 == 1.0


def test_small_instances_are_not_asked_for(labels) -> None:
    assert agnostic_scores(labels, masks_of(labels, 1), np.ones(1), min_points=20).ap50 == 1.0


def test_some_of_the_points(labels) -> None:
    half = labels.rows(np.flatnonzero(labels.instance != 0))
    assert sorted(set(half.instance.tolist())) == [-1, 0, 1]
    assert len(half.semantic) == 85


def test_calibration_error_of_known_bins() -> None:
    scores = np.array([0.05, 0.05, 0.85, 0.85, 0.85, 0.85])
    hits = np.array([False, True, True, True, True, False])
    # |0.5 − 0.05| · 2/6 + |0.75 − 0.85| · 4/6
    assert calibration_error(scores, hits) == pytest.approx(0.45 / 3 + 0.1 * 2 / 3)
    assert np.isnan(calibration_error(np.zeros(0), np.zeros(0, bool)))


def test_names_of_the_model_are_those_of_the_labels() -> None:
    model = ('wall', 'desk', 'table', 'bed')
    assert names_of_classes(NAMES, model, {}).tolist() == [0, 4, 2, 4]
    joined = names_of_classes(NAMES, model, {'table': ['table', 'desk']})
    assert joined.tolist() == [0, 2, 2, 4]
    # a name that the labels have too goes where the mapping says
    both = names_of_classes((*NAMES, 'desk'), model, {'table': ['table', 'desk']})
    assert both.tolist() == [0, 2, 2, 5]


@pytest.mark.parametrize(
    ('mapping', 'words'),
    [
        ({'lamp': ['bed']}, 'no class lamp'),
        ({'table': ['stool']}, 'no class stool'),
        ({'table': ['bed'], 'plant': ['bed']}, 'bed would mean two'),
    ],
)
def test_faulty_mappings_are_named(mapping, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        names_of_classes(NAMES, ('wall', 'table', 'bed'), mapping)
