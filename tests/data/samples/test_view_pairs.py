"""Which points a view sees: how it is tested, and what is remembered."""

import torch

from oneformer3d.data.samples.views import LoadPosedViews
from tests.helpers.view_samples import dataset, pair_set, views_of


def test_occlusion(tiny_rooms, store):
    def pairs(**settings) -> set:
        return pair_set(views_of(tiny_rooms, LoadPosedViews(str(store), **settings)).pairs)

    depth, zbuffer, none = (pairs(occlusion=how) for how in ('depth', 'zbuffer', 'none'))
    assert depth < none
    assert zbuffer < none
    assert pairs() == depth
    assert len(depth & zbuffer) > 0.75 * len(depth)
    assert pairs(edge_reject=True) < depth
    assert pairs(instance_suffix='.instance.png') < depth


def test_pairs_are_cached_for_the_same_points_only(tiny_rooms, store):
    transform = LoadPosedViews(str(store))
    draw = {'type': 'SamplePoints', 'num_points': 500, 'replace': False}
    whole = dataset(tiny_rooms, transform)
    first, again = whole[0]['views'], whole[0]['views']
    assert torch.equal(first.pairs.uv, again.pairs.uv)
    entries = len(transform.view_pairs.cache)
    assert entries == first.num_views
    assert dataset(tiny_rooms, draw, transform)[0]['views'].pairs.point.max() < 500
    assert len(transform.view_pairs.cache) == 2 * entries


def test_cache_keeps_to_its_bytes(tiny_rooms, store):
    every = LoadPosedViews(str(store))
    expected = views_of(tiny_rooms, every).pairs
    num_bytes = every.view_pairs.cache.num_bytes
    assert num_bytes == len(expected) * (8 + 8 + 8 + 4)
    small = LoadPosedViews(str(store), cache_bytes=num_bytes // 2)
    for _ in range(2):
        found = views_of(tiny_rooms, small).pairs
        assert torch.equal(found.point, expected.point)
        assert torch.equal(found.uv, expected.uv)
        assert 0 < small.view_pairs.cache.num_bytes <= num_bytes // 2
