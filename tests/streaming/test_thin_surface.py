"""One layer of points, against the rule point by point."""

import numpy as np
import pytest

from oneformer3d.streaming.thin_surface import thin_surface


def one_by_one(xyz: np.ndarray, counts: np.ndarray, spacing: float) -> np.ndarray:
    kept: list[int] = []
    for row in np.lexsort((np.arange(len(xyz)), -counts)):
        if all(np.linalg.norm(xyz[row] - xyz[k]) > spacing for k in kept):
            kept.append(int(row))
    return np.sort(kept)


@pytest.mark.parametrize('seed', range(3))
def test_is_the_rule_point_by_point(seed):
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(0, 1, (400, 3)) * (1, 1, 0.1)
    counts = rng.integers(1, 5, 400)
    standing = thin_surface(xyz, counts, 0.1)
    np.testing.assert_array_equal(standing.rows, one_by_one(xyz, counts, 0.1))


def test_every_point_has_one_within_the_spacing_that_stands_for_it():
    rng = np.random.default_rng(0)
    xyz = rng.normal(size=(500, 3))
    standing = thin_surface(xyz, np.ones(500, int), 0.3)
    kept = xyz[standing.rows]
    assert (np.linalg.norm(xyz - kept[standing.of_point], axis=1) <= 0.3).all()
    gaps = np.linalg.norm(kept[:, None] - kept[None], axis=2)[np.triu_indices(len(kept), 1)]
    assert gaps.min() > 0.3


def test_a_wall_in_two_layers_of_voxels_becomes_one():
    """Noise about a face between two voxels fills both; as many stay as the surface has."""
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(0, 2, (40_000, 2)), rng.normal(0, 0.01, 40_000)])
    keys, inverse, counts = np.unique(
        np.floor(points / 0.05), axis=0, return_inverse=True, return_counts=True
    )
    mean = np.stack([np.bincount(inverse.ravel(), c) / counts for c in points.T], axis=1)
    assert len(keys) == 2 * 40 * 40
    assert 0.5 < len(thin_surface(mean, counts, 0.05).rows) / (40 * 40) < 1.1


def test_nothing_and_one_point():
    assert [len(part) for part in thin_surface(np.zeros((0, 3)), np.zeros(0, int), 1.0)] == [0, 0]
    assert thin_surface(np.zeros((1, 3)), np.ones(1, int), 1.0).rows.tolist() == [0]
