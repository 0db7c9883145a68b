"""What a fit remembers of how its scene was read."""

import math

import torch

from oneformer3d.fields.scene.geometry import geometry_differences, view_geometry
from tests.helpers.small_scenes import K, box_scene, box_views


def test_each_number_follows_what_it_is_of() -> None:
    geometry = view_geometry(box_scene(4), 1)
    views = box_views(4)
    assert geometry['intrinsics'] == [18.0, 18.0, 15.5, 11.5]
    assert math.isclose(geometry['depth'][0], float(views['depth'][1].median()), rel_tol=1e-4)
    pose = torch.tensor(geometry['pose']).view(3, 4)
    torch.testing.assert_close(pose, views['world_from_cam'][1][:3], rtol=1e-4, atol=1e-5)


def test_only_what_changed_is_named() -> None:
    before = view_geometry(box_scene(4), 0)
    assert geometry_differences(before, view_geometry(box_scene(4), 0)) == []

    in_feet = box_scene(4, depth=[3.28 * depth for depth in box_views(4)['depth']])
    (difference,) = geometry_differences(before, view_geometry(in_feet, 0))
    assert difference.startswith('depth of the first view was')

    other = box_scene(4, intrinsics=[K * torch.tensor([[2.0], [2], [1]])] * 4)
    (difference,) = geometry_differences(before, view_geometry(other, 0))
    assert difference.endswith('now 36 36 31 23')

    (difference,) = geometry_differences(before, view_geometry(box_scene(4, depth=None), 0))
    assert difference.endswith('now none')
