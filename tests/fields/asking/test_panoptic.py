"""Panoptic quality of a field's points and views, against counts by hand and an exact field."""

from dataclasses import replace

import pytest
import torch

from oneformer3d.fields.asking.evaluate import evaluate_view_instances, panoptic_report
from oneformer3d.fields.asking.instances import query_classes
from oneformer3d.fields.fitting.field_file import load_field, save_field
from oneformer3d.fields.fitting.fitted import FittedField
from oneformer3d.fields.fitting.loop import fit_field
from oneformer3d.fields.fitting.recipe import build_field, make_recipe
from oneformer3d.fields.fitting.surfaces import learnt_camera, with_colors
from oneformer3d.fields.rendering.rays import scene_normalisation
from oneformer3d.fields.scene.extent import observe
from tests.fields.asking.test_query import box_field
from tests.helpers.small_scenes import HALF, SIZE, box_scene, quick_settings, wall_points


@pytest.fixture(scope='module')
def exact():
    """The box room known exactly; walls across x and y are things, floor and ceiling stuff."""
    scene = box_scene(6)
    return FittedField(
        field=box_field(scene_normalisation(bounds=torch.stack((-1.1 * HALF, 1.1 * HALF)))),
        settings=quick_settings(view_coarse_samples=48, view_fine_samples=16),
        recipe={},
        class_names=('x', 'y', 'z'),
        things=(0, 1),
        observations=observe(scene, range(6)),
    )


def test_quality_is_that_of_its_definition(exact):
    """Class 0: one instance of 10 points found by 8 of them: IoU 0.8, one more missed, so
    RQ = 1 / (1 + ½); class 2 is stuff, whole. Ids of stuff do not matter."""
    true = torch.tensor([0] * 14 + [2] * 6)
    true_ids = torch.tensor([5] * 10 + [6] * 4 + [1, 2, 3, 4, 5, 6])
    ids = torch.tensor([1] * 8 + [-1] * 6 + [0] * 6)
    found = panoptic_report([(true, ids, true, true_ids)], exact)
    assert found['pq_things'] == pytest.approx(100 * 0.8 / 1.5)
    assert found['pq_stuff'] == pytest.approx(100)
    assert found['pq'] == pytest.approx((100 * 0.8 / 1.5 + 100) / 2)


def test_one_instance_in_two_halves_is_no_match(exact):
    """Where purity would say 100 %."""
    true, ids = torch.zeros(10, dtype=torch.int64), torch.tensor([0] * 5 + [1] * 5)
    found = panoptic_report([(true, ids, true, torch.zeros_like(true))], exact)
    assert found == {'pq': 0.0, 'pq_things': 0.0}


def test_an_exact_field_scores_in_every_view(exact):
    scene = box_scene(6)
    found = evaluate_view_instances(exact, scene, range(6), step=1)
    assert found['pq_things'] > 85
    assert found['pq_stuff'] > 85
    # walls of one class made one instance: nothing of two walls is found any more
    field = box_field(exact.field.scene_box, instances=lambda x: torch.eye(4)[:1].expand(len(x), 4))
    merged = evaluate_view_instances(replace(exact, field=field), scene, range(6), step=1)
    assert merged['pq_things'] <= found['pq_things']
    assert evaluate_view_instances(exact, box_scene(2, instances=None), [0]) == {}
    points, _ = wall_points(50)
    assert 'instances' in query_classes(exact, points)


def test_colours_and_image_size_are_saved_with_the_field(tmp_path):
    scene = box_scene(4)
    settings = quick_settings(steps=2, method='feature_field', holdout_every=0)
    fitted = fit_field(scene, settings, tmp_path)
    assert set(fitted.colors) == {'features'}
    loaded, _ = load_field(tmp_path)
    rows = torch.randn(20, fitted.field.head_nets['features'].feature_dim).numpy()
    assert (loaded.colors['features'](rows) == fitted.colors['features'](rows)).all()
    assert loaded.image_size == SIZE
    assert learnt_camera(loaded, 1).image_size == SIZE
    torch.testing.assert_close(learnt_camera(loaded, 1).intrinsics, scene.camera[1].intrinsics)


def test_a_field_without_either_reads_as_before(tmp_path):
    settings = quick_settings()
    recipe = make_recipe(settings, num_classes=2)
    old = FittedField(
        build_field(recipe), settings, recipe, observations=observe(box_scene(2), [0])
    )
    save_field(tmp_path / 'field.pth', old)
    content = torch.load(tmp_path / 'field.pth', weights_only=True)
    del content['colors'], content['image_size']
    torch.save(content, tmp_path / 'field.pth')
    loaded, _ = load_field(tmp_path)
    assert (loaded.colors, loaded.image_size) == ({}, None)
    assert learnt_camera(loaded, 0).image_size == loaded.observations.camera.image_size
    assert with_colors(loaded) is loaded  # no features, no instances
