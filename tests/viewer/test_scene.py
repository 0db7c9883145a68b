"""What a page shows: counts of the whole cloud, drawn points that keep their labels."""

import numpy as np
import pytest

from oneformer3d.viewer.scene import view_scene
from oneformer3d.visualization.palette import instance_colors
from tests.viewer.scenes import CLASSES, PALETTE, small_asked, small_segmentation


def test_all_that_is_known_of_a_scene():
    result, asked = small_segmentation(), small_asked()
    scene = view_scene('room', result.upright, result.rgb, result, asked)

    assert [one.name for one in scene.classes] == list(CLASSES)
    assert [one.num_points for one in scene.classes] == [2000, 600, 400]
    assert [one.color for one in scene.classes] == [tuple(color) for color in PALETTE.tolist()]
    assert [(one.name, one.score) for one in scene.objects] == [('chair', 0.9), ('lamp', 0.6)]
    np.testing.assert_array_equal(scene.instance, result.instance)
    np.testing.assert_array_equal(scene.semantic, result.semantic)
    np.testing.assert_array_equal(
        scene.panoptic_colors[scene.panoptic], instance_colors(result.panoptic)
    )
    chair, harmful = scene.answers
    assert chair.found
    assert chair.ranked[0].name == 'chair'
    assert not harmful.found
    assert harmful.ranked == ()


def test_a_cloud_alone():
    result = small_segmentation()
    scene = view_scene('room', result.upright, result.rgb)
    assert (scene.classes, scene.objects, scene.answers) == ((), (), ())
    for labels in (scene.semantic, scene.instance, scene.panoptic, scene.mask):
        assert (labels == -1).all()


def test_a_large_cloud_is_thinned_and_its_counts_are_not():
    result, asked = small_segmentation(), small_asked()
    scene = view_scene('room', result.upright, result.rgb, result, asked, max_drawn=500)
    assert scene.num_points == 3000
    assert len(scene.rows) == len(np.unique(scene.rows)) == 500
    assert (np.diff(scene.rows) > 0).all()
    np.testing.assert_array_equal(scene.xyz, result.upright[scene.rows])
    np.testing.assert_array_equal(scene.mask, asked.index.mask_of_point[scene.rows])
    assert [one.num_points for one in scene.classes] == [2000, 600, 400]
    # drawn evenly: each class has its share, up to chance (5 standard deviations)
    shares = np.bincount(scene.semantic) / 500
    np.testing.assert_allclose(shares, [2 / 3, 1 / 5, 2 / 15], atol=0.11)


def test_labels_that_are_no_class_are_none():
    result = small_segmentation()
    semantic = result.semantic.copy()
    semantic[:100] = 3  # unlabelled
    changed = type(result)(**{**vars(result), 'semantic': semantic})
    scene = view_scene('room', changed.upright, changed.rgb, changed)
    assert (scene.semantic[:100] == -1).all()
    assert scene.classes[0].num_points == 1900


def test_ceiling():
    rng = np.random.default_rng(0)
    room = rng.uniform((0, 0, 0), (4, 4, 1.5), (4000, 3))
    ceiling = rng.uniform((0, 0, 2.48), (4, 4, 2.5), (4000, 3))
    cloud = np.concatenate([room, ceiling]).astype(np.float32)
    rgb = np.zeros((8000, 3), np.uint8)
    assert 1.4 < view_scene('room', cloud, rgb).ceiling < 2.48
    assert view_scene('room', cloud[:4000], rgb[:4000]).ceiling is None


def test_what_does_not_fit():
    result, asked = small_segmentation(), small_asked()
    with pytest.raises(ValueError, match='no point'):
        view_scene('room', np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    with pytest.raises(ValueError, match='segmentation'):
        view_scene('room', result.upright[:9], result.rgb[:9], result)
    with pytest.raises(ValueError, match='mask_of_point'):
        view_scene('room', result.upright[:9], result.rgb[:9], None, asked)
