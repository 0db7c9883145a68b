"""Augmentations of partial and uneven scans: what stays together, what is left out."""

import numpy as np
import pytest

from oneformer3d.data.samples.scan_transforms import (
    AddStrayPoint,
    CropScene,
    CutAbove,
    DriftPoints,
    DropPoints,
    SurfaceColorGain,
)


@pytest.fixture
def scene() -> dict:
    """Points whose colour and masks follow from their row."""
    rng = np.random.default_rng(0)
    num = 2000
    points = np.concatenate([rng.uniform(0, 4, (num, 3)), np.zeros((num, 3))], 1)
    points[:, 3], points[:, 4] = np.arange(num) % 251, np.arange(num) // 251
    return {
        'points': points.astype(np.float32),
        'sp_pts_mask': np.arange(num) // 20,
        'pts_semantic_mask': np.arange(num) % 7,
        'pts_instance_mask': np.where(np.arange(num) < 500, -1, np.arange(num) // 100),
    }


@pytest.mark.parametrize(
    'transform',
    [CutAbove(prob=1.0), CropScene(700), CropScene(5000, prob=1.0), DropPoints((0.2, 0.3))],
)
@pytest.mark.parametrize('seed', range(4))
def test_points_and_masks_stay_together(scene, transform, seed) -> None:
    np.random.seed(seed)
    result = transform(scene)
    row = (result['points'][:, 3] + 251 * result['points'][:, 4]).astype(int)
    assert 0 < len(row) < 2000
    np.testing.assert_array_equal(result['pts_semantic_mask'], row % 7)
    for key, old in (('sp_pts_mask', row // 20), ('pts_instance_mask', row // 100)):
        new = result[key]
        old = np.where(row < 500, -1, old) if key == 'pts_instance_mask' else old
        assert set(new[new >= 0]) == set(range(len(set(old[old >= 0]))))
        assert len(set(zip(new, old, strict=True))) == len(set(old))
    assert len(scene['points']) == 2000


def test_nothing_above_the_cut(scene) -> None:
    result = CutAbove((1.0, 1.0), prob=1.0)(scene)
    assert result['points'][:, 2].max() < 1.0 + np.percentile(scene['points'][:, 2], 1)
    assert CutAbove(prob=0.0)(scene) is scene


def test_crops_are_as_large_as_asked(scene) -> None:
    assert len(CropScene(700, prob=0.0)(scene)['points']) == 700
    assert CropScene(2000, prob=0.0)(scene) is scene


def test_drift_is_smooth_and_as_strong_as_asked(scene) -> None:
    np.random.seed(0)
    bent = DriftPoints((0.02, 0.02), noise=(0, 0))(scene)['points'] - scene['points']
    assert 0.008 < bent[:, :3].std() < 0.04
    assert (bent[:, 3:] == 0).all()
    near = np.linalg.norm(scene['points'][:, :3] - scene['points'][0, :3], axis=1) < 0.15
    assert np.abs(bent[near, :3] - bent[0, :3]).max() < 0.04
    shaken = DriftPoints((0, 0), noise=(0.01, 0.01))(scene)['points'] - scene['points']
    assert shaken[:, :3].std() == pytest.approx(0.01, rel=0.1)


def test_a_surface_has_one_gain(scene) -> None:
    np.random.seed(0)
    scene['points'][:, 3:] = 100
    colors = SurfaceColorGain(scene=0.0, surface=0.1, gray=0.0)(scene)['points'][:, 3:]
    for patch in range(5):
        assert np.ptp(colors[scene['sp_pts_mask'] == patch], axis=0).max() < 1e-3
    shades = np.log(colors[::20] / 100)
    assert 0.06 < shades.std() < 0.16


def test_scenes_with_views_are_refused(scene) -> None:
    scene['views'] = object()
    for transform in (CropScene(10), DriftPoints()):
        with pytest.raises(ValueError, match=r'views|points alone'):
            transform(scene)


def test_a_stray_point_is_last_below_and_unlabeled(scene) -> None:
    truth = {key: mask for key, mask in scene.items() if key != 'points'}
    given = {**scene, 'class_table': 'synthetic', 'eval_ann_info': truth}
    result = AddStrayPoint(below=0.4)(given)
    np.testing.assert_array_equal(result['points'][:-1], scene['points'])
    lowest = scene['points'][:, 2].min()
    assert result['points'][-1, 2] == pytest.approx(lowest - 0.4, abs=1e-6)
    for masks in (result, result['eval_ann_info']):
        assert {key: masks[key][-1] for key in truth} == {
            'sp_pts_mask': 100,
            'pts_semantic_mask': 16,
            'pts_instance_mask': -1,
        }
        for key in truth:
            np.testing.assert_array_equal(masks[key][:-1], scene[key])
    assert len(truth['sp_pts_mask']) == len(scene['points']) == 2000


def test_a_stray_point_comes_before_the_views(scene) -> None:
    with pytest.raises(ValueError, match='before the views'):
        AddStrayPoint()({**scene, 'class_table': 'synthetic', 'views': []})
    with pytest.raises(ValueError, match='below must be positive'):
        AddStrayPoint(below=0)
