"""Connected components as instances, against a search that walks from point to point."""

from dataclasses import replace

import numpy as np
import pytest

from oneformer3d.inference.components import (
    MIN_POINTS,
    SOURCES,
    connect,
    joined,
    with_instances,
)
from oneformer3d.inference.predictions import ScanPrediction


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def walk(xyz, labels, radius):
    """Components as sets of rows, found one step at a time."""
    left, found = set(range(len(xyz))), set()
    while left:
        piece, border = set(), {min(left)}
        while border:
            row = border.pop()
            piece.add(row)
            near = np.linalg.norm(xyz - xyz[row], axis=1) <= radius
            border |= set(np.flatnonzero(near & (labels == labels[row]))) - piece
        left -= piece
        found.add(frozenset(piece))
    return found


def prediction_of(semantic):
    return ScanPrediction(semantic, semantic, semantic, (), np.zeros(0, int), np.zeros(0))


def test_components_are_those_that_a_walk_finds(generator):
    xyz = generator.uniform(0, 1, (400, 3))
    labels = generator.integers(0, 3, 400)
    component = connect(xyz, labels, 0.12)
    pieces = {frozenset(np.flatnonzero(component == k)) for k in range(component.max() + 1)}

    assert 3 < len(pieces) < 400
    assert pieces == walk(xyz, labels, 0.12)


def test_pieces_are_of_what_is_no_stuff_and_have_its_most_frequent_class(generator):
    xyz = generator.uniform(0, 1, (600, 3))
    semantic = generator.choice([0, 1, 2, 4], 600)
    stuff = (0, 1)
    found = with_instances(prediction_of(semantic), xyz, stuff, 'components', 0.11)

    is_stuff = np.isin(semantic, stuff)
    rows_of_things = np.flatnonzero(~is_stuff)
    walked = walk(xyz[~is_stuff], np.zeros(len(rows_of_things)), 0.11)
    large = {frozenset(rows_of_things[list(p)]) for p in walked if len(p) >= MIN_POINTS}
    assert large
    assert {frozenset(rows) for rows in found.members} == large
    for rows, label in zip(found.members, found.classes):
        assert (semantic[rows] == label).sum() == np.bincount(semantic[rows]).max()
    assert (np.diff(found.scores) <= 0).all()
    assert all((np.diff(rows) > 0).all() for rows in found.members)
    assert found.semantic is found.panoptic is semantic


@pytest.mark.parametrize('count', [0, 5])
@pytest.mark.parametrize('source', SOURCES)
def test_without_things_there_are_no_instances(count, source):
    nothing = prediction_of(np.zeros(count, int))
    found = with_instances(nothing, np.zeros((count, 3)), (0, 1), source, 0.1)
    assert found.members == ()
    assert len(found.scores) == len(found.classes) == 0


def instances(semantic, *rows, scores):
    """A prediction with these instances."""
    classes = np.array([semantic[r[0]] for r in rows], np.int64)
    return replace(
        prediction_of(semantic),
        members=tuple(np.array(r) for r in rows),
        classes=classes,
        scores=np.array(scores),
    )


def test_of_one_object_the_better_scored_stays():
    semantic = np.arange(20)
    first = instances(semantic, range(10), range(12, 16), scores=[0.5, 0.4])
    # more than half of the first; exactly half of the second; equal to the first with its score
    second = instances(semantic, range(1, 10), range(12, 20), range(10), scores=[0.9, 0.3, 0.5])
    found = joined(first, second)
    assert [rows.tolist() for rows in found.members] == [
        list(range(1, 10)),
        list(range(12, 16)),
        list(range(12, 20)),
    ]
    assert found.scores.tolist() == [0.9, 0.4, 0.3]
    assert found.classes.tolist() == [1, 12, 12]


def test_joined_is_greedy_suppression(generator):
    """Against a loop over pairs of sets."""
    semantic = np.zeros(40, int)
    rows = [generator.choice(40, generator.integers(5, 30), replace=False) for _ in range(30)]
    scores = generator.permutation(30) / 30
    found = joined(
        instances(semantic, *map(sorted, rows[:12]), scores=scores[:12]),
        instances(semantic, *map(sorted, rows[12:]), scores=scores[12:]),
    )
    kept = []
    for row in np.argsort(-scores):
        mine = set(rows[row].tolist())
        if all(len(mine & other) / len(mine | other) <= 0.5 for other in kept):
            kept.append(mine)
    assert [set(m.tolist()) for m in found.members] == kept
    assert 1 < len(kept) < 30
