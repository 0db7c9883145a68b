"""Instances that others cover, against sets."""

import numpy as np

from oneformer3d.inference.predictions import ScanPrediction, drop_covered


def test_covered_instances_equal_those_of_sets() -> None:
    rng = np.random.default_rng(0)
    members = tuple(np.flatnonzero(rng.random(40) < rng.uniform(0, 0.4)) for _ in range(30))
    none = np.zeros(40, int)
    prediction = ScanPrediction(none, none, none, members, np.arange(30), np.linspace(1, 0, 30))

    seen: set[int] = set()
    expected = []
    for row, points in enumerate(members):
        if set(points.tolist()) - seen:
            expected.append(row)
        seen |= set(points.tolist())

    kept = drop_covered(prediction)
    assert 0 < len(expected) < 30
    assert kept.classes.tolist() == expected
    np.testing.assert_array_equal(kept.scores, prediction.scores[expected])
    assert [m.tolist() for m in kept.members] == [members[row].tolist() for row in expected]


def test_nothing_to_drop() -> None:
    none = np.zeros(4, int)
    prediction = ScanPrediction(none, none, none, (), np.zeros(0, int), np.zeros(0))
    assert drop_covered(prediction).members == ()
