"""A room with a door to a wall far behind: the box of a contracted field is around what is near."""

import math

import pytest
import torch

from oneformer3d.fields.fitting.field_file import load_field
from oneformer3d.fields.fitting.loop import fit_field
from oneformer3d.fields.scene.arrays import scene_from_arrays
from tests.helpers.small_scenes import SIZE, K, quick_settings

NEAR, FAR = 2.0, 24.0  # z of the wall with the door, and of the wall behind it


def door_scene(num_views=5):
    """Views along z of a patterned wall with a hole in its middle, and of a wall far behind."""
    v, u = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing='ij')
    rays = torch.stack((u, v, torch.ones_like(u)), dim=-1).float() @ torch.linalg.inv(K).T
    images, depths, poses = [], [], []
    for view in range(num_views):
        pose = torch.eye(4)
        angle = 2 * math.pi * view / num_views
        pose[:2, 3] = 0.4 * torch.tensor([math.cos(angle), math.sin(angle)])
        points = pose[:3, 3] + rays * NEAR
        is_door = (points[..., 0].abs() < 0.6) & (points[..., 1].abs() < 0.7)
        depth = torch.where(is_door, FAR, NEAR)
        points = pose[:3, 3] + rays * depth[..., None]
        images.append(0.5 + 0.4 * torch.sin(5 * points))
        depths.append(depth)
        poses.append(pose)
    return scene_from_arrays(images, [K] * num_views, poses, depth=depths)


@pytest.mark.parametrize('contracted', [False, True])
def test_what_is_far_lies_outside_of_the_box_but_is_answered(contracted, tmp_path):
    options = dict(num_levels=3, log2_hashmap_size=10, max_resolution=32, contracted=contracted)
    settings = quick_settings(steps=2, batch_rays=64, far=30.0, field_options=options)
    fit_field(door_scene(), settings, tmp_path)
    field = load_field(tmp_path)[0].field
    assert field.contracted is contracted

    behind, wall = torch.tensor([[0.0, 0.0, FAR]]), torch.tensor([[1.0, 0.0, NEAR]])
    box = field.scene_box
    assert bool(box.contains(box.to_unit(wall)))
    assert bool(box.contains(box.to_unit(behind))) is not contracted
    assert field.world_density(behind) > 0  # the far wall can be learnt in either
    # cells of the same number are finer where the box is smaller
    assert (float(box.scale) > 0.3) is contracted
