"""Tiles cover a scene, and what they find becomes one result."""

import numpy as np
import pytest

from oneformer3d.inference.tiling import Tile, gather_core, merge_masks, split_tiles

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('margin', [0.0, 0.5])
@pytest.mark.parametrize('max_points', [150, 400, 5000])
def test_cores_part_the_scene_and_margins_surround_them(max_points: int, margin: float) -> None:
    points = RNG.uniform([0, 0, 0], [12, 9, 2], (2000, 3))
    tiles = split_tiles(points, max_points, margin)
    cores = np.concatenate([tile.core for tile in tiles])
    np.testing.assert_array_equal(np.sort(cores), np.arange(2000))
    assert (len(tiles) == 1) == (max_points == 5000)
    for tile in tiles:
        assert len(tile.members) <= max_points
        core = points[tile.core, :2]
        # Everything within the margin of the core's box is there.
        low, high = core.min(0) - margin * 0.99, core.max(0) + margin * 0.99
        near = ((points[:, :2] >= low) & (points[:, :2] <= high)).all(1)
        assert set(np.flatnonzero(near)) <= set(tile.members)


def test_piles_of_points_cannot_be_split() -> None:
    with pytest.raises(ValueError, match='thin the cloud'):
        split_tiles(np.zeros((100, 3)), 50, 0.5)


def strip(num: int = 100) -> tuple[np.ndarray, list[Tile]]:
    """Points on a line 0…10 m in two tiles with a metre of margin."""
    points = np.zeros((num, 3))
    points[:, 0] = np.arange(num) / num * 10
    tiles = split_tiles(points, 70, 1.0)
    assert [len(tile.core) for tile in tiles] == [50, 50]
    return points, tiles


def masks_of(tiles: list[Tile], spans: list[list[tuple[float, float]]], points) -> list:
    return [
        np.array([(points[t.members, 0] >= a) & (points[t.members, 0] < b) for a, b in tile_spans])
        for t, tile_spans in zip(tiles, spans)
    ]


def test_object_on_the_seam_becomes_one_and_others_stay() -> None:
    points, tiles = strip()
    # Seam at 5 m; the first tile sees 0…6, the second 4…10.
    masks = masks_of(tiles, [[(1, 2), (4.2, 5.9)], [(4.2, 5.6), (8, 9)]], points)
    members, labels, scores = merge_masks(
        tiles,
        masks,
        [np.array([3, 7]), np.array([7, 3])],
        [np.array([0.5, 0.6]), np.array([0.9, 0.4])],
    )
    spans = [(points[m, 0].min(), points[m, 0].max()) for m in members]
    np.testing.assert_allclose(spans, [(1, 1.9), (4.2, 5.5), (8, 8.9)], atol=1e-9)
    np.testing.assert_array_equal(labels, [3, 7, 3])
    np.testing.assert_allclose(scores, [0.5, 0.9, 0.4])


def test_other_class_or_little_agreement_stays_apart_without_sharing_points() -> None:
    points, tiles = strip()
    for second_label, second_span in ((8, (4.2, 5.9)), (7, (5.4, 6.5))):
        masks = masks_of(tiles, [[(4.2, 5.9)], [second_span]], points)
        members, _, _ = merge_masks(
            tiles,
            masks,
            [np.array([7]), np.array([second_label])],
            [np.ones(1), np.ones(1)],
        )
        assert len(members) == 2
        assert not set(members[0]) & set(members[1])


def test_what_only_a_margin_saw_is_left_out() -> None:
    points, tiles = strip()
    masks = [masks_of(tiles, [[(5.2, 5.9)], []], points)[0], np.zeros((0, len(tiles[1].members)))]
    members, labels, scores = merge_masks(
        tiles, masks, [np.array([1]), np.zeros(0, int)], [np.ones(1), np.ones(0)]
    )
    assert members == []
    assert len(labels) == len(scores) == 0


def test_two_instances_do_not_merge_through_one_partner() -> None:
    points, tiles = strip()
    masks = masks_of(tiles, [[(4.2, 5.9), (4.3, 5.9)], [(4.2, 5.9)]], points)
    members, _, _ = merge_masks(
        tiles,
        masks,
        [np.array([1, 1]), np.array([1])],
        [np.array([0.9, 0.2]), np.ones(1)],
    )
    assert len(members) == 2
    assert points[members[0], 0].max() == pytest.approx(5.9, abs=0.11)
    assert points[members[1], 0].max() < 5


def test_gather_takes_each_point_from_its_own_tile() -> None:
    points, tiles = strip()
    values = [np.full(len(tile.members), k) for k, tile in enumerate(tiles)]
    np.testing.assert_array_equal(gather_core(tiles, values, 100), points[:, 0] >= 5)


def test_chain_over_three_tiles() -> None:
    points = np.zeros((300, 3))
    points[:, 0] = np.arange(300) / 10
    tiles = split_tiles(points, 110, 1.0)
    assert len(tiles) > 3
    long = [np.ones((1, len(tile.members)), bool) for tile in tiles]
    ones = [np.ones(1) for _ in tiles]
    members, _, _ = merge_masks(tiles, long, ones, ones)
    assert len(members) == 1
    np.testing.assert_array_equal(members[0], np.arange(300))
