"""Depth drawn from a scan's own points, against the exact depth of a box room."""

from dataclasses import replace

import torch

from oneformer3d.fields.asking.query import query_nerf_at_points
from oneformer3d.fields.fitting.loop import fit_field
from oneformer3d.fields.scene.drawn_depth import draw_depth, point_spacing, with_drawn_depth
from oneformer3d.fields.scene.extent import observe
from oneformer3d.fields.scene.labelled_points import LabelledPoints
from oneformer3d.lifting import Camera
from tests.helpers.small_scenes import SIZE, K, box_scene, box_views, quick_settings, wall_points


def test_walls_have_their_exact_depth():
    views = box_views(8)
    points, _ = wall_points(20_000)
    spacing = point_spacing(points)
    for pose, exact in zip(views['world_from_cam'], views['depth'], strict=True):
        depth = draw_depth(points, Camera(K, pose, SIZE), spacing)
        known = depth > 0
        assert known.float().mean() > 0.9
        error = (depth - exact)[known].abs()
        assert error.median() < 0.01
        assert error.quantile(0.99) < 0.1


def test_what_is_near_hides_what_is_behind():
    side = torch.linspace(-1, 1, 60)
    near = torch.cartesian_prod(0.3 * side, 0.3 * side, torch.tensor([1.0]))
    far = torch.cartesian_prod(3 * side, 3 * side, torch.tensor([3.0]))
    camera = Camera(
        torch.tensor([[40.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]]), torch.eye(4), (48, 64)
    )
    points = torch.cat((near, far))
    depth = draw_depth(points, camera, 0.1)

    v, u = torch.meshgrid(torch.arange(48), torch.arange(64), indexing='ij')
    inside = ((u - 31.5).abs() < 40 * 0.3 - 2) & ((v - 23.5).abs() < 40 * 0.3 - 2)
    beyond = ((u - 31.5).abs() > 40 * 0.3 + 6) | ((v - 23.5).abs() > 40 * 0.3 + 6)
    torch.testing.assert_close(depth[inside], torch.ones(int(inside.sum())))
    torch.testing.assert_close(depth[beyond], torch.full((int(beyond.sum()),), 3.0))
    # between: one of the two or nothing, never a depth where nothing is
    rest = depth[~inside & ~beyond]
    assert (((rest - 1).abs() < 0.01) | ((rest - 3).abs() < 0.01) | (rest == 0)).all()


def test_a_gap_between_points_and_no_points_are_unknown():
    camera = Camera(K, torch.eye(4), SIZE)
    assert not draw_depth(torch.zeros(0, 3), camera, 0.1).any()
    behind = torch.rand(50, 3) - torch.tensor([0.5, 0.5, 3.0])
    assert not draw_depth(behind, camera, 0.1).any()
    side = torch.linspace(-1, 1, 30)
    half = torch.cartesian_prod(side[:15], side, torch.tensor([2.0]))  # x < 0 alone
    depth = draw_depth(half, camera, point_spacing(half))
    assert depth[12, 8] > 1.99
    assert not depth[:, 20:].any()


def test_depth_that_is_there_is_left_alone():
    scene = box_scene(3)
    points = LabelledPoints(wall_points(50)[0])
    assert with_drawn_depth(replace(scene, points=points)).read is scene.read
    bare = box_scene(3, depth=None)
    assert with_drawn_depth(bare) is bare
    sparse = replace(bare, points=points)  # tell little: all else would count as empty
    assert with_drawn_depth(sparse) is sparse
    enough = replace(bare, points=LabelledPoints(wall_points(5000)[0]))
    assert with_drawn_depth(enough).has_depth


def test_a_scan_and_photos_of_it_are_enough():
    """Without one depth image the points that depth images show are answered, and rightly."""
    scene = box_scene(8, depth=None, features=None, instances=None)
    scan, _ = wall_points(8000)
    scene = replace(scene, points=LabelledPoints(scan))
    fitted = fit_field(scene, quick_settings(steps=40, holdout_every=0))
    points, wall = wall_points(1000, seed=1)
    found = query_nerf_at_points(fitted, points)
    shown = observe(box_scene(8), range(8)).observed(points)
    assert (found['observed'] == shown).float().mean() > 0.95
    assert (found['labels'] == wall)[found['observed']].float().mean() > 0.9
