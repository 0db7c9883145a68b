"""Which points a view sees: how it is tested, and what is remembered."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oneformer3d.data.samples.views import LoadPosedViews
from tests.helpers.view_samples import dataset, infos_of, pair_set, views_of


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


def test_objects_of_pairs_are_those_of_the_masks(tiny_rooms, store):
    views = views_of(tiny_rooms, LoadPosedViews(str(store), object_suffix='.instance.png'))
    assert views_of(tiny_rooms, LoadPosedViews(str(store))).pair_objects is None
    seen_in = {}
    scene = infos_of(tiny_rooms)[0]
    for view, frame in enumerate(views.frames):
        (image,) = (image for image in scene['images'] if image['frame'] == frame)
        name = Path(image['img_path']).with_suffix('.instance.png')
        ids = np.asarray(Image.open(tiny_rooms / 'posed_images' / name))
        rows = views.pairs.view == view
        u, v = (views.pairs.uv[rows] + 0.5).floor().long().unbind(-1)
        truth = ids[v.clamp(0, ids.shape[0] - 1), u.clamp(0, ids.shape[1] - 1)]
        objects = views.pair_objects[rows].numpy()
        np.testing.assert_array_equal(objects >= 0, truth > 0)
        assert len(set(zip(truth, objects))) == len(set(truth[truth > 0])) + (0 in truth)
        for key in set(objects[objects >= 0].tolist()):
            assert seen_in.setdefault(key, view) == view
    assert len(seen_in) > views.num_views

    with pytest.raises(FileNotFoundError, match='no such instance map'):
        views_of(tiny_rooms, LoadPosedViews(str(store), object_suffix='.absent.npz'))


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
