"""Vectors and best views of masks, against loops over points and views."""

import itertools

import numpy as np
import pytest
import torch

from oneformer3d.lifting.pairs import PixelPairs
from oneformer3d.lifting.sampling import sample_map
from oneformer3d.open_vocabulary.members import members_of_lists, members_of_masks
from oneformer3d.open_vocabulary.vectors import best_views, mask_vectors

IMAGE_SIZE = (12, 16)


@pytest.fixture
def scene():
    """Maps of five views, pairs of thirty points, and four masks."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(5, 6, 3, 4, generator=generator)
    visible = torch.rand(30, 5, generator=generator) < 0.4
    visible[:3] = False  # points that no view sees
    point, view = visible.nonzero(as_tuple=True)
    uv = torch.rand(len(point), 2, generator=generator) * torch.tensor([15.0, 11.0])
    pairs = PixelPairs(point, view, uv, torch.ones(len(point)))
    masks = np.random.default_rng(0).random((4, 30)) < 0.4
    masks[3] = np.arange(30) < 3
    return maps, pairs, masks


def slow_vectors(maps, pairs, masks, confidence):
    """The definition, one point after the other."""
    directions = torch.nn.functional.normalize(maps, dim=1)
    vectors = []
    for mask in masks:
        total = torch.zeros(maps.shape[1])
        for point in np.flatnonzero(mask):
            rows = (pairs.point == point).nonzero()[:, 0].tolist()
            seen = [
                confidence[row]
                * sample_map(directions[pairs.view[row]], pairs.uv[row][None], IMAGE_SIZE)[0]
                for row in rows
            ]
            if seen:
                total += sum(seen) / sum(confidence[row] for row in rows)
        vectors.append(total / max(total.norm().item(), 1e-12))
    return torch.stack(vectors).numpy()


@pytest.mark.parametrize('byte_budget', [1 << 28, 400])
@pytest.mark.parametrize('weighted', [False, True])
def test_vectors_are_their_definition_in_chunks_of_any_size(scene, byte_budget, weighted):
    maps, pairs, masks = scene
    confidence = torch.linspace(0.2, 1, len(pairs)) if weighted else torch.ones(len(pairs))
    vectors = mask_vectors(
        maps,
        pairs,
        IMAGE_SIZE,
        members_of_masks(masks),
        confidence if weighted else None,
        byte_budget=byte_budget,
    )
    np.testing.assert_allclose(vectors, slow_vectors(maps, pairs, masks, confidence), atol=1e-5)
    assert not vectors[3].any()  # its points are not seen


def test_length_of_features_and_repeated_views_do_not_matter(scene):
    maps, pairs, masks = scene
    members = members_of_masks(masks)
    once = mask_vectors(maps, pairs, IMAGE_SIZE, members)

    scale = torch.rand(5, 1, 3, 4) + 0.5
    np.testing.assert_allclose(
        mask_vectors(maps * scale, pairs, IMAGE_SIZE, members), once, atol=1e-6
    )
    twice = PixelPairs(*(x.repeat_interleave(2, 0) for x in vars(pairs).values()))
    np.testing.assert_allclose(mask_vectors(maps, twice, IMAGE_SIZE, members), once, atol=1e-5)


def test_confidence_of_zero_is_as_if_unseen(scene):
    maps, pairs, masks = scene
    members = members_of_masks(masks)
    confidence = (pairs.view != 2).float()
    without = mask_vectors(maps, pairs.select(pairs.view != 2), IMAGE_SIZE, members)
    np.testing.assert_allclose(
        mask_vectors(maps, pairs, IMAGE_SIZE, members, confidence), without, atol=1e-6
    )


def test_no_pairs_and_no_masks(scene):
    maps, pairs, masks = scene
    unseen = mask_vectors(maps, pairs.select(slice(0)), IMAGE_SIZE, members_of_masks(masks))
    assert unseen.shape == (4, 6)
    assert not unseen.any()
    assert mask_vectors(maps, pairs, IMAGE_SIZE, members_of_lists([], 30)).shape == (0, 6)


def test_best_views_add_the_most_new_points(scene):
    _, pairs, masks = scene
    views = best_views(pairs, members_of_masks(masks), num_best=3)
    for row, mask in enumerate(masks):
        shown: set[int] = set()
        for slot, chosen in enumerate(views.view[row]):
            new = [
                {int(p) for p in pairs.point[pairs.view == view] if mask[p]} - shown
                for view in range(5)
            ]
            gains = [len(points) for points in new]
            if max(gains) == 0:
                assert chosen == -1
                assert views.num_new[row, slot] == 0
                continue
            assert gains[chosen] == max(gains) == views.num_new[row, slot]
            shown |= new[chosen]


def test_the_pixel_of_a_best_view_shows_the_mask(scene):
    _, pairs, masks = scene
    views = best_views(pairs, members_of_masks(masks))
    for row, slot in itertools.product(range(4), range(5)):
        if views.view[row, slot] < 0:
            continue
        of_mask = torch.from_numpy(masks[row])[pairs.point] & (pairs.view == views.view[row, slot])
        assert (pairs.uv[of_mask].numpy() == views.uv[row, slot]).all(1).any()
