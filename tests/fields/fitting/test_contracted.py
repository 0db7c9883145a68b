"""A room with a door to a wall far behind: the box of a contracted field is around what is near."""

import pytest
import torch

from oneformer3d.fields.fitting.field_file import load_field
from oneformer3d.fields.fitting.loop import fit_field
from tests.helpers.small_scenes import quick_settings
from tools.benchmarks._door_room import FAR, NEAR, door_scene


@pytest.mark.parametrize('contracted', [False, True])
def test_what_is_far_lies_outside_of_the_box_but_is_answered(contracted, tmp_path):
    options = dict(num_levels=3, log2_hashmap_size=10, max_resolution=32, contracted=contracted)
    settings = quick_settings(steps=2, batch_rays=64, far=30.0, field_options=options)
    fit_field(door_scene(5), settings, tmp_path)
    field = load_field(tmp_path)[0].field
    assert field.contracted is contracted

    behind, wall = torch.tensor([[0.0, 0.0, FAR]]), torch.tensor([[1.0, 0.0, NEAR]])
    box = field.scene_box
    assert bool(box.contains(box.to_unit(wall)))
    assert bool(box.contains(box.to_unit(behind))) is not contracted
    assert field.world_density(behind) > 0  # the far wall can be learnt in either
    # cells of the same number are finer where the box is smaller
    assert (float(box.scale) > 0.3) is contracted
