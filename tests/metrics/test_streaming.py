"""Causal scores of scenes whose right answer can be counted by hand."""

import numpy as np
import pytest

from oneformer3d.metrics.streaming import CausalEvaluator, TrackMap, latency, slope

# three objects of 200 points, 10 m apart
POINTS = np.concatenate([np.linspace([x, 0, 0], [x + 1, 0, 0], 200) for x in (0, 10, 20)])
INSTANCE = np.repeat([0, 1, 2], 200)
LABELS = np.array([0, 0, 0])


def evaluator(**settings) -> CausalEvaluator:
    return CausalEvaluator(POINTS, INSTANCE, LABELS, 1, **settings)


def found(tracks: np.ndarray, rows: slice = slice(None), ids=None) -> TrackMap:
    """Tracks of the true points themselves."""
    ids = np.unique(tracks[tracks >= 0]) if ids is None else np.array(ids)
    scores = 1 - np.arange(len(ids)) / 100
    return TrackMap(POINTS[rows], tracks, ids, np.zeros(len(ids), np.int64), scores)


def test_surface_that_was_not_seen_is_left_out_and_counted():
    judge = evaluator()
    judge.see(POINTS[:200])
    moment = judge.observe(0, found(INSTANCE[:200], slice(0, 200)))
    assert moment.ap == pytest.approx(1)
    assert (moment.num_unseen, moment.num_bare) == (400, 0)
    # the other protocol lets unseen objects inherit the label of what lies nearest
    assert judge.nearest_without_limit(found(INSTANCE[:200], slice(0, 200))).ap == 0.0


def test_labels_are_carried_five_centimetres_and_no_farther():
    judge = evaluator()
    judge.see(POINTS)
    near = TrackMap(POINTS + np.array([0, 0.04, 0]), INSTANCE, np.arange(3), LABELS, np.ones(3))
    far = TrackMap(POINTS + np.array([0, 0.06, 0]), INSTANCE, np.arange(3), LABELS, np.ones(3))
    assert judge.observe(0, near).ap == pytest.approx(1)
    moment = judge.observe(1, far)
    assert (moment.ap, moment.num_bare) == (0.0, 600)


def test_area_is_the_mean_over_time_without_the_time_before_anything_was_seen():
    judge = evaluator()
    nothing = TrackMap(POINTS[:0], INSTANCE[:0], *(np.zeros(0, t) for t in (int, int, float)))
    assert np.isnan(judge.observe(0, nothing).ap50)
    judge.see(POINTS)
    judge.observe(1, nothing)
    judge.observe(2, found(INSTANCE))
    scores = judge.scores()
    assert scores.area_ap50 == pytest.approx(0.5)
    assert scores.final.ap50 == pytest.approx(1)
    assert scores.frames_until_right == 1.0


def test_switches_and_fragments_per_object():
    judge = evaluator()
    judge.see(POINTS)
    judge.observe(0, found(INSTANCE))
    swapped = np.choose(INSTANCE, [5, 1, 2])  # object 0 becomes track 5
    judge.observe(1, found(swapped))
    judge.observe(2, found(INSTANCE))  # and track 0 again
    assert judge.scores().switches == pytest.approx(2 / 3)
    assert judge.scores().fragments == 0

    broken = INSTANCE.copy()
    broken[150:200] = 7  # a quarter of object 0 is a track of its own
    judge.observe(3, found(broken))
    scores = judge.scores()
    assert scores.fragments == pytest.approx(1 / 3)
    assert scores.switches == pytest.approx(2 / 3)  # the larger part kept its track


def test_an_object_that_is_never_right_is_counted():
    judge = evaluator()
    judge.see(POINTS)
    judge.observe(4, found(np.where(INSTANCE == 2, -1, INSTANCE)))
    scores = judge.scores()
    assert scores.num_never_right == 1
    assert scores.final.ap50 == pytest.approx(2 / 3)


def test_tracks_in_any_order_of_ids():
    judge = evaluator()
    judge.see(POINTS)
    judge.observe(0, found(np.choose(INSTANCE, [9, 4, 6]), ids=[6, 9, 4]))
    assert judge.scores().final.ap == pytest.approx(1)
    assert judge.scores().num_never_right == 0


def test_latency_and_slope_in_closed_form():
    assert latency(np.arange(101)) == (50.0, 95.0)
    assert slope(3 + 0.25 * np.arange(50)) == pytest.approx(0.25)


def test_nothing_to_judge_is_refused():
    with pytest.raises(ValueError, match='at least one'):
        CausalEvaluator(POINTS[:0], INSTANCE[:0], LABELS, 1)
    with pytest.raises(ValueError, match='nothing was observed'):
        evaluator().scores()
