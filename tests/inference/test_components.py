"""Connected components as instances, against a search that walks from point to point."""

import numpy as np
import pytest

from oneformer3d.inference.components import MIN_POINTS, connect, instances_from_components
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


def test_instances_are_the_large_pieces_of_things(generator):
    xyz = generator.uniform(0, 1, (600, 3))
    semantic = generator.choice([0, 1, 2, 4], 600)
    stuff = (0, 1)
    found = instances_from_components(prediction_of(semantic), xyz, stuff, 0.16)

    things = [p for p in walk(xyz, semantic, 0.16) if semantic[min(p)] not in stuff]
    large = {p for p in things if len(p) >= MIN_POINTS}
    assert large
    assert {frozenset(rows) for rows in found.members} == large
    assert [semantic[rows[0]] for rows in found.members] == found.classes.tolist()
    assert (np.diff(found.scores) <= 0).all()
    assert all((np.diff(rows) > 0).all() for rows in found.members)

    is_stuff = np.isin(semantic, stuff)
    assert (found.panoptic[is_stuff] == semantic[is_stuff]).all()
    assert len(np.unique(found.panoptic[~is_stuff])) == len(things)
    assert found.panoptic[~is_stuff].min() > max(stuff)


@pytest.mark.parametrize('count', [0, 5])
def test_without_things_there_are_no_instances(count):
    found = instances_from_components(
        prediction_of(np.zeros(count, int)), np.zeros((count, 3)), (0, 1), 0.1
    )
    assert found.members == ()
    assert (found.panoptic == 0).all()
