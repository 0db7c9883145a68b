"""Connected components as instances, against a search that walks from point to point."""

from dataclasses import replace

import numpy as np
import pytest

from oneformer3d.inference.components import (
    MIN_POINTS,
    SOURCES,
    absorb_parts,
    connect,
    joined,
    pairs_within,
    voted,
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
    component = connect(len(xyz), pairs_within(xyz, 0.12), labels)
    pieces = {frozenset(np.flatnonzero(component == k)) for k in range(component.max() + 1)}

    assert 3 < len(pieces) < 400
    assert pieces == walk(xyz, labels, 0.12)


def test_pieces_are_of_what_is_no_stuff_and_have_its_most_frequent_class(generator):
    xyz = generator.uniform(0, 1, (600, 3))
    semantic = generator.choice([0, 1, 2, 4], 600)
    stuff = (0, 1)
    found = with_instances(prediction_of(semantic), xyz, stuff, 'components', 0.11)

    assert found.members
    assert (semantic[np.concatenate(found.members)] > 1).all()
    assert len(np.unique(np.concatenate(found.members))) == sum(map(len, found.members))
    assert min(map(len, found.members)) >= MIN_POINTS
    for rows, label in zip(found.members, found.classes):
        assert (semantic[rows] == label).sum() == np.bincount(semantic[rows]).max()
    assert (np.diff(found.scores) <= 0).all()
    assert all((np.diff(rows) > 0).all() for rows in found.members)
    assert found.semantic is found.panoptic is semantic


def plate(start, size):
    """A flat grid of points 5 cm apart."""
    u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing='ij')
    flat = np.stack([u.ravel(), v.ravel(), np.zeros(u.size)], 1) * 0.05
    return flat + np.array(start)


def test_touching_things_of_two_classes_are_two_pieces_and_crumbs_are_none():
    """A table beside a cabinet; a stripe of the table, and a point of it, are called a chair."""
    table, cabinet = plate((0, 0, 0), (20, 10)), plate((1.0, 0, 0), (12, 10))
    semantic = np.r_[np.full(200, 2), np.full(120, 3)]
    semantic[:20] = 4
    semantic[105] = 4
    xyz = np.concatenate([table, cabinet])
    found = with_instances(prediction_of(semantic), xyz, (0, 1), 'components', 0.06)
    assert [rows.tolist() for rows in found.members] == [[*range(200)], [*range(200, 320)]]
    assert found.classes.tolist() == [2, 3]


def test_votes_are_those_of_a_loop(generator):
    xyz, labels = generator.uniform(0, 1, (60, 3)), generator.choice([2, 3, 7], 60)
    for row, label in enumerate(voted(xyz, labels)):
        near = labels[np.linalg.norm(xyz - xyz[row], axis=1).argsort()[:9]]
        assert label == np.bincount(near).argmax()


def test_small_pieces_join_what_they_touch_most():
    piece = np.repeat([0, 1, 2, 3, 4, 5], [9, 2, 6, 1, 1, 3])
    first = {k: int(np.flatnonzero(piece == k)[0]) for k in range(6)}

    def touch(a, b, times=1):
        return [(first[a], first[b])] * times

    # 1 touches 2 once and 0 twice; 3 and 4 touch each other, then 4 touches 2; 5 touches nothing
    pairs = np.array([*touch(1, 2), *touch(1, 0, 2), *touch(3, 4), *touch(4, 2)])
    absorbed = absorb_parts(piece, pairs, part_points=4)
    assert [set(absorbed[piece == k]) for k in (1, 3, 4)] == [
        set(absorbed[piece == k]) for k in (0, 2, 2)
    ]
    assert len(np.unique(absorbed)) == 3
    assert np.array_equal(absorb_parts(piece, pairs, part_points=1), piece)


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
