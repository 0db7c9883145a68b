"""Points that stand alone, against a search through all pairs, and what a scan is without them."""

import numpy as np
import pytest

from oneformer3d.data.isolated import find_isolated
from oneformer3d.data.thinning import thin_points, thin_scan


def surface(generator, count=900, size=3.0):
    """Points (count, 6) of a floor and a wall."""
    a, b = generator.uniform(0, size, (2, count))
    on_wall = generator.random(count) < 0.4
    xyz = np.stack([np.where(on_wall, 0, a), b, np.where(on_wall, a, 0)], 1)
    xyz += generator.normal(0, 0.01, xyz.shape)
    return np.concatenate([xyz, generator.uniform(0, 255, xyz.shape)], 1).astype(np.float32)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_isolated_points_are_those_that_all_pairs_say(generator):
    points = np.concatenate([surface(generator), generator.uniform(-3, 6, (40, 6))])
    distance = np.linalg.norm(points[:, None, :3] - points[None, :, :3], axis=-1)
    np.fill_diagonal(distance, np.inf)
    spacing = np.median(distance.min(1))
    expected = (distance <= 5 * spacing).sum(1) < 3

    assert 20 < expected.sum() <= 45
    assert (find_isolated(points) == expected).all()


def test_unit_and_place_do_not_matter(generator):
    points = np.concatenate([surface(generator), generator.uniform(-3, 6, (40, 6))])
    isolated = find_isolated(points)
    assert (find_isolated(1000 * points + 7) == isolated).all()


@pytest.mark.parametrize('count', [0, 1, 2, 3])
def test_of_few_points_none_is_isolated(generator, count):
    assert not find_isolated(generator.uniform(0, 1, (count, 3))).any()


def test_identical_points_and_points_all_alone_are_kept():
    assert not find_isolated(np.zeros((50, 3))).any()
    far_apart = np.stack([10.0 ** np.arange(12), np.zeros(12), np.zeros(12)], 1)
    assert find_isolated(far_apart).sum() < 12


@pytest.mark.parametrize('voxel_size', [0.0, 0.1])
def test_a_scan_is_thinned_as_if_outliers_were_not_there(generator, voxel_size):
    clean = surface(generator)
    outliers = np.zeros((3, 6), np.float32)
    outliers[:, :3] = [[1, 1, -2.03], [1, 9, 1], [-5, 1, 4]]
    alone, together = (
        thin_scan(cloud, voxel_size) for cloud in (clean, np.concatenate([clean, outliers]))
    )

    assert (together.num_isolated, alone.num_isolated) == (3, 0)
    np.testing.assert_array_equal(together.points, alone.points)
    np.testing.assert_array_equal(together.cell_of_point[:-3], alone.cell_of_point)

    # the nearest stands for each of them
    distance = np.linalg.norm(outliers[:, None, :3] - alone.points[None, :, :3], axis=-1)
    assert (together.cell_of_point[-3:] == distance.argmin(1)).all()


def test_a_scan_without_outliers_is_thinned_as_before(generator):
    points = surface(generator)
    scan, plain = thin_scan(points, 0.1), thin_points(points, 0.1)
    np.testing.assert_array_equal(scan.points, plain.points)
    np.testing.assert_array_equal(scan.cell_of_point, plain.cell_of_point)
