"""Maps of a frozen network: computed once, kept in memory or in a store that many may read."""

from dataclasses import replace

import pytest
import torch

from oneformer3d.backbones.fpn import FeaturePyramid
from oneformer3d.mvpnet.frozen_maps import FrozenMaps
from tests.mvpnet.test_lift_views import C, image_views, points_of


@pytest.fixture(scope='module')
def pyramid() -> FeaturePyramid:
    torch.manual_seed(0)
    return FeaturePyramid('resnet18', channels=C, frozen=True)


class CountingPyramid(FeaturePyramid):
    """Counts the images that it sees."""

    num_images = 0

    def forward(self, images):
        self.num_images += len(images)
        return super().forward(images)


@pytest.mark.parametrize('with_store', [False, True])
def test_kept_maps_are_computed_once(tmp_path, with_store):
    torch.manual_seed(0)
    pyramid = CountingPyramid('resnet18', channels=C, frozen=True)
    maps_of = FrozenMaps(pyramid, tmp_path if with_store else None)
    views = image_views(points_of(), 4)
    first = maps_of(views)
    assert pyramid.num_images == 4
    exact = pyramid(views.images)
    torch.testing.assert_close(first.maps[0], exact.maps[0], atol=2e-3, rtol=2e-3)
    assert first.covered == exact.covered
    pyramid.num_images = 0
    order = [2, 0]
    some = replace(views, images=views.images[order], frames=tuple(views.frames[i] for i in order))
    torch.testing.assert_close(maps_of(some).maps[0], first.maps[0][order], atol=0, rtol=0)
    assert pyramid.num_images == 0
    if with_store:  # and by the next process
        maps_of.close()
        again = FrozenMaps(pyramid, tmp_path)
        torch.testing.assert_close(again(some).maps[0], first.maps[0][order], atol=0, rtol=0)
        assert pyramid.num_images == 0
        again.close()
    # other weights, other maps
    with torch.no_grad():
        pyramid.projectors[0].bias.add_(1.0)
    changed = maps_of(views).maps[0]
    assert pyramid.num_images == 4
    assert (changed - first.maps[0]).abs().max() > 1e-2
    maps_of.close()
    assert len(list(tmp_path.iterdir())) == (2 if with_store else 0)


def test_memory_is_bounded(pyramid):
    views = image_views(points_of(), 4)
    map_bytes = 8 * 16 * C * 2
    maps_of = FrozenMaps(pyramid, max_bytes=2 * map_bytes)
    expected = maps_of(views).maps[0]
    assert maps_of.memory.num_bytes <= 2 * map_bytes
    torch.testing.assert_close(maps_of(views).maps[0], expected, atol=2e-3, rtol=2e-3)


def test_views_without_names_are_computed(pyramid):
    views = image_views(points_of(), 2, scene_id='', frames=())
    maps_of = FrozenMaps(pyramid)
    assert maps_of(views).maps[0].shape == (2, C, 8, 16)
    assert len(maps_of.memory) == 0


def test_what_is_kept_is_read_beside_another_process_that_writes(tmp_path):
    torch.manual_seed(0)
    pyramid = CountingPyramid('resnet18', channels=C, frozen=True)
    writes = FrozenMaps(pyramid, tmp_path)
    views = image_views(points_of(), 3)
    expected = writes(views).maps[0]
    reads = FrozenMaps(pyramid, tmp_path)  # the first one is still open
    assert torch.equal(reads(views).maps[0], expected)
    assert pyramid.num_images == 3
    writes.close()
    # and the reader may go on to write what it misses
    more = image_views(points_of(), 3, seed=1)
    reads(more)
    assert pyramid.num_images == 6
    assert torch.equal(reads(views).maps[0], expected)
    reads.close()


def test_bad_input(pyramid):
    with pytest.raises(ValueError, match='frozen'):
        FrozenMaps(FeaturePyramid('resnet18', channels=C))
    with pytest.raises(ValueError, match='max_bytes'):
        FrozenMaps(pyramid, max_bytes=-1)
