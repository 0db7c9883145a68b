"""Greedy choice of views, by hand and in the data pipeline."""

import itertools

import numpy as np
import pytest
import torch

from oneformer3d.data.samples.view_selection import greedy_coverage
from oneformer3d.data.samples.views import LoadPosedViews
from oneformer3d.lifting import PixelPairs
from tests.helpers.view_samples import STAMP, dataset, infos_of, views_of


def view(*points: int) -> PixelPairs:
    count = len(points)
    return PixelPairs(
        torch.tensor(points, dtype=torch.int64),
        torch.zeros(count, dtype=torch.int64),
        torch.zeros(count, 2),
        torch.ones(count),
    )


def test_each_choice_adds_most():
    views = [view(0, 1, 2), view(2, 3, 4, 5), view(0, 1), view(6), view()]
    assert greedy_coverage(views, 7, 1) == [1]
    assert greedy_coverage(views, 7, 2) == [1, 0]
    assert greedy_coverage(views, 7, 5) == [1, 0, 2, 3, 4]  # a second look at two is worth one
    assert greedy_coverage(views, 7, 0) == []
    assert greedy_coverage([], 7, 3) == []


def test_ties_go_to_the_earlier_view():
    assert greedy_coverage([view(0), view(1), view(2)], 3, 2) == [0, 1]


def test_reaches_what_greedy_choice_promises():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        views = [
            view(*(torch.rand(30, generator=generator) < 0.2).nonzero()[:, 0].tolist())
            for _ in range(7)
        ]

        def value(chosen, views=views):
            times = torch.zeros(30)
            for index in chosen:
                times[views[index].point] += 1
            return float((2 - 2 * 0.5**times).sum())

        best = max(value(chosen) for chosen in itertools.combinations(range(7), 3))
        assert value(greedy_coverage(views, 30, 3)) >= (1 - 1 / np.e) * best


def seen_points(views) -> int:
    return len(views.pairs.point.unique())


def test_the_pipeline_takes_the_views_that_see_most(tiny_rooms, store):
    for index in range(2):
        settings = {'num_views': 2, 'select': 'coverage'}
        chosen = views_of(tiny_rooms, LoadPosedViews(str(store), **settings), index=index)
        again = views_of(tiny_rooms, LoadPosedViews(str(store), **settings), index=index)
        even = views_of(tiny_rooms, LoadPosedViews(str(store), num_views=2), index=index)
        assert chosen.num_views == 2
        assert chosen.frames == again.frames
        assert chosen.frames == tuple(sorted(chosen.frames))
        assert seen_points(chosen) >= seen_points(even)
        assert chosen.intrinsics.shape == (3, 3)


def test_candidates(tiny_rooms, store):
    frames = [image['frame'] for image in infos_of(tiny_rooms)[0]['images'][:-1]]
    few = LoadPosedViews(str(store), num_views=2, select='coverage', candidates=2)
    assert views_of(tiny_rooms, few).frames == (frames[0], frames[-1])
    np.random.seed(0)
    scenes = dataset(
        tiny_rooms,
        LoadPosedViews(
            str(store), num_views=2, select='coverage', candidates=3, random_candidates=True
        ),
    )
    assert len({scenes[0]['views'].frames for _ in range(8)}) > 1
    with pytest.raises(ValueError, match='candidates'):
        LoadPosedViews(candidates=0)
    assert STAMP.channels == scenes[0]['views'].feat.shape[1]
