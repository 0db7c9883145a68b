"""Augmentations: cameras stay with the points, the elastic field equals a slow twin."""

import time

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import convolve

from oneformer3d.data.samples.transforms import (
    ElasticDistortion,
    NormalizeColor,
    RandomFlipBEV,
    RandomRotScaleTrans,
    elastic_offsets,
    move_scene,
)
from oneformer3d.lifting.camera import project


def a_scene(num_points: int = 500, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    points = np.empty((num_points, 6), dtype=np.float32)
    points[:, :3] = rng.uniform((-3, -2, 0), (3, 4, 2.5), (num_points, 3))
    points[:, 3:] = rng.integers(0, 256, (num_points, 3))
    return {'points': points, 'augmented_from_original': np.eye(4)}


def look_at_scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Intrinsics, and a camera at the side of the scene looking into it."""
    eye, forward = np.array([5.0, -6.0, 2.0]), np.array([-0.6, 0.8, -0.1])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    world_from_cam = np.eye(4)
    world_from_cam[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    world_from_cam[:3, 3] = eye
    intrinsics = torch.tensor([[577.0, 0, 319.5], [0, 578.0, 239.5], [0, 0, 1]]).double()
    return intrinsics, torch.from_numpy(world_from_cam)


AUGMENTATIONS = [
    RandomFlipBEV(1.0, 0.0),
    RandomFlipBEV(0.0, 1.0),
    RandomRotScaleTrans(),
    RandomRotScaleTrans((0, 0), (0.9, 1.1), (0.0, 0.0, 0.0)),
]


@pytest.mark.parametrize('seed', range(3))
def test_projections_do_not_change(seed: int) -> None:
    np.random.seed(seed)
    original = a_scene()
    augmented = original
    for augmentation in AUGMENTATIONS:
        augmented = augmentation(augmented)
    assert np.abs(augmented['points'][:, :3] - original['points'][:, :3]).max() > 0.5
    intrinsics, world_from_cam = look_at_scene()
    transform = torch.from_numpy(augmented['augmented_from_original'])
    expected = project(
        torch.from_numpy(original['points'][:, :3]).double(), intrinsics, world_from_cam
    )
    assert (expected[1] > 0).all()

    points = torch.from_numpy(augmented['points'][:, :3]).double()
    moved_camera = project(points, intrinsics, transform @ world_from_cam)
    back = torch.linalg.inv(transform)
    moved_back = project(points @ back[:3, :3].T + back[:3, 3], intrinsics, world_from_cam)
    for uv, depth in (moved_camera, moved_back):
        torch.testing.assert_close(uv, expected[0], atol=2e-3, rtol=0)  # float32 points
        torch.testing.assert_close(depth, expected[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize('augmentation', [*AUGMENTATIONS, ElasticDistortion(0.05, prob=1)])
def test_same_seed_same_result_and_arguments_kept(augmentation: object) -> None:
    results = a_scene()
    before = results['points'].copy()
    np.random.seed(5)
    first = augmentation(results)
    np.random.seed(5)
    second = augmentation(results)
    assert set(results) == {'points', 'augmented_from_original'}
    assert np.array_equal(results['points'], before)
    assert np.array_equal(results['augmented_from_original'], np.eye(4))
    for key in first:
        assert np.array_equal(first[key], second[key])
        assert first[key].dtype == second[key].dtype
    assert first['points'].dtype == np.float32
    assert np.array_equal(first['points'][:, 3:], before[:, 3:])


def test_flip_frequency() -> None:
    np.random.seed(0)
    scene = a_scene(1)
    flips = [
        np.diag(RandomFlipBEV(0.5, 0.25)(scene)['augmented_from_original'])[:2] < 0
        for _ in range(2000)
    ]
    assert np.allclose(np.mean(flips, axis=0), (0.5, 0.25), atol=0.04)
    # The two axes are drawn independently.
    assert abs(np.mean(np.all(flips, axis=1)) - 0.125) < 0.03


def test_similarity_ranges() -> None:
    np.random.seed(0)
    scene = a_scene(1)
    augmentation = RandomRotScaleTrans((-0.5, 0.25), (0.8, 1.2), (0.1, 0.2, 0.0))
    matrices = np.stack([augmentation(scene)['augmented_from_original'] for _ in range(2000)])
    scales = np.cbrt(np.linalg.det(matrices[:, :3, :3]))
    angles = np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0])
    assert (scales.min() >= 0.8) & (scales.max() <= 1.2)
    assert abs(scales.mean() - 1) < 0.01
    assert (angles.min() >= -0.5) & (angles.max() <= 0.25)
    assert abs(angles.mean() + 0.125) < 0.02
    assert np.allclose(matrices[:, :3, 3].std(axis=0), (0.1, 0.2, 0), atol=0.01)
    assert np.allclose(matrices[:, 2, :2], 0)


def test_moving_after_distortion_is_an_error() -> None:
    scene = ElasticDistortion(0.05, prob=0)(a_scene())
    with pytest.raises(ValueError, match='elastic distortion must come after'):
        move_scene(scene, np.eye(4))


# --- elastic distortion -------------------------------------------------------------------


def slow_offsets(coords: np.ndarray, granularity: float, noise: np.ndarray) -> np.ndarray:
    """The whole grid, dense 3-D convolutions and scipy's own interpolator."""
    num_nodes = noise.shape[1:]
    axes = [np.linspace(-(n - 1) * granularity, (n - 1) * granularity, n) for n in num_nodes]
    offsets = []
    for field in noise.astype(np.float64):
        for axis in (0, 1, 2, 0, 1, 2):
            shape = [1, 1, 1]
            shape[axis] = 3
            field = convolve(field, np.full(shape, 1 / 3), mode='constant', cval=0)
        interpolate = RegularGridInterpolator(axes, field, bounds_error=False, fill_value=0)
        offsets.append(interpolate(coords))
    return np.stack(offsets, axis=1)


@pytest.mark.parametrize('shift', [(0, 0, 0), (90, -40, 0), (200, 200, 200)])
@pytest.mark.parametrize('granularity', [6, 20])
def test_elastic_twin(granularity: int, shift: tuple) -> None:
    rng = np.random.default_rng(granularity)
    coords = rng.uniform(-60, 60, (300, 3)) * (1, 0.5, 0.3) + shift
    num_nodes = (np.abs(coords).max(axis=0) // granularity).astype(int) + 3
    noise = rng.standard_normal((3, *num_nodes)).astype(np.float32)
    expected = slow_offsets(coords, granularity, noise)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(elastic_offsets(coords, granularity, noise), expected, atol=1e-5)


def test_elastic_statistics() -> None:
    """Inside, each node is a mean of normals: variance (19/81)³ at the nodes."""
    np.random.seed(0)
    nodes = np.stack(np.meshgrid(*[np.arange(-20, 21, 2.0)] * 3), axis=-1).reshape(-1, 3) * 10
    far = np.full((1, 3), 405.0)  # widens the grid: its border is far and n is odd
    coords = np.concatenate([nodes, far])
    offsets = np.concatenate([elastic_offsets(coords, 10)[:-1] for _ in range(4)])
    assert abs(offsets.mean()) < 0.01
    assert abs(offsets.std() / np.sqrt((19 / 81) ** 3) - 1) < 0.05


def test_elastic_moves_no_point() -> None:
    np.random.seed(0)
    scene = a_scene()
    distorted = ElasticDistortion(0.05, prob=1)(scene)
    assert distorted['points'] is scene['points']
    assert distorted['augmented_from_original'] is scene['augmented_from_original']
    voxels = scene['points'][:, :3] / 0.05
    assert distorted['elastic_coords'].dtype == np.float32
    assert np.abs(distorted['elastic_coords'] - voxels).max() > 5
    untouched = ElasticDistortion(0.05, prob=0)(scene)
    np.testing.assert_allclose(untouched['elastic_coords'], voxels, rtol=1e-6)


def test_elastic_one_draw_for_all_fields(monkeypatch) -> None:
    np.random.seed(0)
    calls = []
    monkeypatch.setattr(
        'oneformer3d.data.samples.transforms.elastic_offsets',
        lambda coords, granularity: calls.append(granularity) or np.zeros_like(coords),
    )
    scene, num_runs = a_scene(4), 400
    for _ in range(num_runs):
        ElasticDistortion(0.02)(scene)
    assert calls == [6, 20] * (len(calls) // 2)
    assert abs(len(calls) / 2 / num_runs - 0.5) < 0.08


def test_elastic_far_from_origin_costs_no_more() -> None:
    scene = a_scene(1000)
    scene['points'][:, :3] += 4000.0
    start = time.perf_counter()
    coords = ElasticDistortion(0.02, prob=1)(scene)['elastic_coords']
    assert np.isfinite(coords).all()
    assert time.perf_counter() - start < 3  # the full grid would have 10¹³ nodes


@pytest.mark.parametrize('num_points', [1, 2])
def test_elastic_of_tiny_clouds(num_points: int) -> None:
    scene = ElasticDistortion(0.02, prob=1)(a_scene(num_points))
    assert np.isfinite(scene['elastic_coords']).all()
    zero = {'points': np.zeros((num_points, 6), np.float32)}
    assert np.isfinite(ElasticDistortion(0.02, prob=1)(zero)['elastic_coords']).all()


def test_normalize_color() -> None:
    scene = a_scene()
    normalized = NormalizeColor()(scene)['points']
    np.testing.assert_allclose(normalized[:, 3:] * 127.5 + 127.5, scene['points'][:, 3:], atol=1e-4)
    assert np.array_equal(normalized[:, :3], scene['points'][:, :3])
    mean, std = (0.4779 * 255, 0.4303 * 255, 0.375 * 255), (72.2, 70.3, 68.9)
    normalized = NormalizeColor(mean, std)(scene)['points']
    expected = (scene['points'][:, 3:].astype(np.float64) - mean) / std
    np.testing.assert_allclose(normalized[:, 3:], expected, atol=1e-5)
    assert scene['points'][:, 3:].max() > 200


@pytest.mark.parametrize(
    ('make', 'fault'),
    [
        (lambda: RandomFlipBEV(prob_x=1.5), 'prob_x must be within 0…1'),
        (lambda: RandomRotScaleTrans(rot_range=(1, 0)), r'rot_range must be \(low, high\)'),
        (lambda: RandomRotScaleTrans(scale_ratio_range=(0, 1)), 'must be positive'),
        (lambda: RandomRotScaleTrans(translation_std=(0.1, 0.1)), 'three numbers'),
        (lambda: ElasticDistortion(0), 'voxel_size and granularity must be positive'),
        (lambda: ElasticDistortion(0.02, (6,), (1, 2)), 'as many magnitudes'),
        (lambda: ElasticDistortion(0.02, prob=-1), 'prob must be within'),
        (lambda: NormalizeColor(std=0), 'std must be positive'),
    ],
)
def test_arguments(make, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        make()
