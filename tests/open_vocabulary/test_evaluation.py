"""Scores of names, compared with scikit-learn and with cases that are known."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from oneformer3d.open_vocabulary.evaluation import false_alarms, naming_scores, ranking_precision


def test_a_ranking_scores_as_in_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, relevant = rng.random(40), rng.random(40) < 0.3
        expected = average_precision_score(relevant, scores)
        assert ranking_precision(scores, relevant) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(ranking_precision(rng.random(5), np.zeros(5, bool)))


def test_names_score_as_in_scikit_learn():
    rng = np.random.default_rng(1)
    true, similarity = rng.integers(0, 4, 60), rng.random((60, 5))
    named = np.where(rng.random(60) < 0.5, true, rng.integers(-1, 5, 60))
    scores = naming_scores(named, true, similarity)
    assert scores.top1 == pytest.approx((named == true).mean())
    expected = np.mean([(named == true)[true == k].mean() for k in range(4)])
    assert scores.balanced == pytest.approx(expected)
    # scikit-learn's balanced accuracy knows no name that is no class
    known = np.where(np.isin(named, range(4)), named, (true + 1) % 4)
    assert scores.balanced == pytest.approx(balanced_accuracy_score(true, known))
    # the class that no mask has is not asked for
    expected = [average_precision_score(true == k, similarity[:, k]) for k in range(4)]
    assert scores.retrieval == pytest.approx(np.mean(expected))


def test_nothing_to_count():
    none = naming_scores(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 3)))
    assert np.isnan([none.top1, none.balanced, none.retrieval]).all()
    assert np.isnan(false_alarms(np.ones(2, bool), np.ones(2, bool)))


def test_false_alarms_count_what_is_absent_only():
    found, there = np.array([1, 0, 1, 1], bool), np.array([1, 1, 0, 0], bool)
    assert false_alarms(found, there) == 1
    assert false_alarms(found[:2], ~there[:2]) == 0.5
