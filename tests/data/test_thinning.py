"""Thinning against a dictionary of cubes, and labels back to every point."""

import numpy as np
import pytest

from oneformer3d.data.thinning import keep_all, thin_points
from oneformer3d.inference.predictions import ScanPrediction, scatter_to_points


def test_means_of_cubes_equal_a_dictionary() -> None:
    points = np.random.default_rng(0).uniform(-3, 5, (500, 6)).astype(np.float32)
    thinned = thin_points(points, 1.5)
    cubes: dict[tuple, list] = {}
    for index, point in enumerate(points.astype(np.float64)):
        cube = tuple(np.floor((point[:3] - points[:, :3].min(0).astype(np.float64)) / 1.5))
        cubes.setdefault(cube, []).append(index)
    assert len(thinned.points) == len(cubes) < 500
    for row, cube in enumerate(sorted(cubes)):
        np.testing.assert_array_equal(np.flatnonzero(thinned.cell_of_point == row), cubes[cube])
        mean = points[cubes[cube]].astype(np.float64).mean(0)
        np.testing.assert_allclose(thinned.points[row], mean, rtol=1e-5, atol=1e-6)


def test_far_from_the_origin_nothing_is_lost() -> None:
    points = np.zeros((4, 6), np.float32)
    points[:, 0] = [5000.0, 5000.25, 5000.5, 5000.25]
    np.testing.assert_array_equal(thin_points(points, 0.2).cell_of_point, [0, 1, 2, 1])


def test_labels_go_back_to_every_point() -> None:
    points = np.zeros((5, 6), np.float32)
    points[:, 0] = [0.0, 1.0, 0.1, 2.0, 1.1]
    thinned = thin_points(points, 0.5)
    prediction = ScanPrediction(
        semantic=np.array([3, 4, 5]),
        panoptic_semantic=np.array([3, 4, 4]),
        panoptic=np.array([3, 9, 9]),
        members=(np.array([1]), np.array([1, 2]), np.array([], int)),
        classes=np.array([4, 4, 4]),
        scores=np.array([0.9, 0.5, 0.1]),
    )
    carried = scatter_to_points(prediction, thinned)
    np.testing.assert_array_equal(carried.semantic, [3, 4, 3, 5, 4])
    np.testing.assert_array_equal(carried.panoptic, [3, 9, 3, 9, 9])
    for got, wanted in zip(carried.members, [[1, 4], [1, 3, 4], []], strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_keep_all() -> None:
    points = np.random.default_rng(0).random((7, 6)).astype(np.float32)
    thinned = keep_all(points)
    np.testing.assert_array_equal(thinned.points[thinned.cell_of_point], points)


@pytest.mark.parametrize('voxel_size', [0.0, -1.0, float('nan'), 1e-7])
def test_bad_voxel_size(voxel_size: float) -> None:
    points = np.array([[0.0] * 6, [5000.0] * 6], np.float32)
    with pytest.raises(ValueError, match='voxel_size'):
        thin_points(points, voxel_size)
