"""Views of a batch stacked once: whose rows they are, and what an empty batch is."""

from dataclasses import replace

import pytest
import torch

from oneformer3d.lifting.sampling import gather_pairs
from oneformer3d.structures import ViewBatch, views_of
from tests.helpers.fusion_scenes import CHANNELS, IMAGE_SIZE, scene
from tests.helpers.fusion_scenes import views_of as random_views


def three_samples():
    """Views of three samples, the second without any."""
    first, last = scene(0, num_points=300)[1], scene(1, num_points=200, num_views=2)[1]
    return [first, None, last], (300, 50, 200)


def test_rows_are_those_of_the_batch():
    views, num_points = three_samples()
    batch = ViewBatch.of_maps(views, CHANNELS, 'cpu', num_points)
    assert batch.maps.dtype == torch.float32
    assert torch.equal(batch.maps, torch.cat([views[0].feat, views[2].feat]).float())
    assert (batch.num_points, batch.num_views) == (num_points, (3, 0, 2))
    assert batch.first_view == (0, 3, 3)

    # every sample reads from the batch what it reads from its own maps
    together, _ = gather_pairs(batch.maps, batch.pairs, batch.grid, num_points=550)
    assert not together[300:350].any()
    for sample, rows in ((views[0], together[:300]), (views[2], together[350:])):
        alone, _ = gather_pairs(sample.feat, sample.pairs, IMAGE_SIZE, num_points=sample.num_points)
        torch.testing.assert_close(rows, alone, atol=1e-5, rtol=1e-4)


def test_masked_views_keep_their_maps():
    views, num_points = three_samples()
    views[2] = replace(views[2], pixels_masked=True)
    batch = ViewBatch.of_maps(views, CHANNELS, 'cpu', num_points)
    assert batch.masked.tolist() == [False] * 3 + [True] * 2
    assert batch.maps[3:].any()
    assert torch.equal(batch.visible_maps()[:3], batch.maps[:3])
    assert not batch.visible_maps()[3:].any()


@pytest.mark.parametrize('views', [[None], [None, None]])
def test_a_batch_without_views_is_one_masked_view_of_nobody(views):
    maps, images = ViewBatch.of_maps(views, CHANNELS, 'cpu'), ViewBatch.of_images(views, 'cpu')
    for batch, channels in ((maps, CHANNELS), (images, 3)):
        assert batch.maps.shape[:2] == (1, channels)
        assert not batch.maps.any()
        assert batch.masked.tolist() == [True]
        assert len(batch.pairs) == 0
        assert batch.num_views == (0,) * len(views)


def test_no_views_at_all_and_views_of_nothing_are_the_same():
    points = torch.rand(20, 6)
    none = ViewBatch.of_maps([random_views(points, num_views=0)], CHANNELS, 'cpu')
    assert none.num_points == (20,)
    assert none.maps.shape == ViewBatch.of_maps([None], CHANNELS, 'cpu').maps.shape


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'feat': None}, r'sample 2 \(scene1\): its 2 views have no feature maps'),
        ({'feat': torch.zeros(2, 5, 5, 6)}, r'maps: expected \(V, C, h, w\) with V=2, C=12'),
        ({'feat': torch.zeros(1, CHANNELS, 5, 6)}, 'maps: expected'),
        ({'feat': torch.zeros(2, CHANNELS, 5, 7)}, r'share one size, got \(5, 7\) and \(5, 6\)'),
        ({'num_points': 199}, 'views of 199 points, got 200'),
        ({'scene_id': '', 'feat': None}, 'sample 2: its'),
    ],
)
def test_views_that_do_not_fit_are_named(changes, message):
    views, num_points = three_samples()
    views[2] = replace(views[2], **changes)
    with pytest.raises(ValueError, match=message):
        ViewBatch.of_maps(views, CHANNELS, 'cpu', num_points)


def test_images_stay_as_they_were_loaded():
    views, _ = three_samples()
    images = torch.randint(0, 256, (3, 3, *IMAGE_SIZE), dtype=torch.uint8)
    batch = ViewBatch.of_images([replace(views[0], images=images), None], 'cpu')
    assert torch.equal(batch.maps, images)
    assert batch.grid == IMAGE_SIZE
    torch.testing.assert_close(batch.pairs.uv, views[0].pairs.uv)


def test_views_of_inputs():
    views, _ = three_samples()
    points = [torch.zeros(1, 6)] * 3
    assert views_of({'points': points, 'views': views}) == views
    assert views_of({'points': points}) == [None] * 3
    assert views_of({'points': points, 'views': None}) == [None] * 3
