"""Visibility against plain per-point loops, closed forms and the order of the points."""

import math

import pytest
import torch

from oneformer3d.lifting import (
    Visibility,
    drop_depth_edges,
    majority_instance,
    project,
    project_pairs,
    project_visible,
    visible_mask,
    zbuffer,
)
from tests.helpers.lifting_scenes import make_camera, room_depth, room_points

NAN, INF = math.nan, math.inf


def _loop_visible(uv, z, image_size, depth, near=0.05, abs_tol=0.05, rel_tol=0.01):
    """The definition, one point at a time in Python numbers."""
    height, width = image_size
    result = []
    for (u, v), depth_z in zip(uv.tolist(), z.tolist()):
        seen = depth_z > near and -0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5
        if seen and depth is not None:
            measured = float(depth[math.floor(v + 0.5), math.floor(u + 0.5)])
            seen = measured > 0 and abs(depth_z - measured) <= abs_tol + rel_tol * measured
        result.append(seen)
    return torch.tensor(result)


@pytest.mark.parametrize('with_depth', [False, True])
def test_equals_a_loop_over_points(with_depth):
    camera = make_camera(3)
    depth = room_depth(camera) if with_depth else None
    uv, z = camera.project(room_points(600))
    visible = visible_mask(uv, z, camera.image_size, depth)
    for view in range(3):
        expected = _loop_visible(
            uv[view], z[view], camera.image_size, depth[view] if with_depth else None
        )
        assert torch.equal(visible[view], expected)
    assert 0.02 < visible.float().mean() < 0.5


def test_limits_of_the_image():
    uv = torch.tensor([[-0.5, 0.0], [-0.51, 0.0], [63.49, 47.49], [63.5, 0.0], [0.0, 47.5]])
    assert visible_mask(uv, torch.ones(5), (48, 64)).tolist() == [True, False, True, False, False]


def test_limits_of_the_depth():
    depth = torch.full((48, 64), 2.0)
    uv = torch.full((6, 2), 10.0)
    z = torch.tensor([2.0, 2.069, 2.071, 1.931, 1.929, 0.04])
    expected = [True, True, False, True, False, False]
    assert visible_mask(uv, z, (48, 64), depth).tolist() == expected
    assert not visible_mask(uv, z, (48, 64), torch.zeros(48, 64)).any()
    assert visible_mask(uv, z, (48, 64), depth, visibility=Visibility(near=2.01)).sum() == 1
    assert visible_mask(uv, z, (48, 64), depth, visibility=Visibility(abs_tol=0.2)).sum() == 5
    assert visible_mask(uv, z, (48, 64)).tolist() == [True] * 5 + [False]


@pytest.mark.parametrize('bad', [NAN, INF, -INF])
def test_values_that_are_not_finite_are_invisible(bad):
    uv = torch.tensor([[bad, 3.0], [3.0, bad], [3.0, 3.0], [3.0, 3.0]])
    z = torch.tensor([1.0, 1.0, bad, 1.0])
    depth = torch.ones(48, 64)
    assert visible_mask(uv, z, (48, 64), depth).tolist() == [False, False, False, True]
    depth[3, 3] = bad
    assert not visible_mask(uv, z, (48, 64), depth).any()


def test_depth_map_of_another_resolution():
    """Each pixel reads the coarse cell that it lies in."""
    depth = torch.arange(1.0, 13.0).reshape(3, 4)
    v, u = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing='ij')
    uv = torch.stack((u, v), -1).reshape(-1, 2)
    cells = depth.repeat_interleave(16, 0).repeat_interleave(16, 1).reshape(-1)
    assert visible_mask(uv, cells, (48, 64), depth).all()
    assert not visible_mask(uv, cells + 0.5, (48, 64), depth).any()


def test_edges_are_dropped_and_slanted_surfaces_kept():
    depth = torch.full((8, 10), 2.0)
    depth[:, 5:] = 3.0
    depth[0, 0] = 0
    kept = drop_depth_edges(depth) > 0
    expected = torch.ones(8, 10, dtype=torch.bool)
    expected[:, 4:6] = False
    expected[0, 0] = False
    assert torch.equal(kept, expected)
    slanted = 2 + 0.02 * torch.arange(10.0).expand(8, 10)
    assert torch.equal(drop_depth_edges(slanted), slanted)
    uv, z = torch.tensor([[4.0, 4.0], [2.0, 4.0]]), torch.tensor([2.0, 2.0])
    assert visible_mask(uv, z, (8, 10), depth).tolist() == [True, True]
    visibility = Visibility(edge_reject=True)
    assert visible_mask(uv, z, (8, 10), depth, visibility=visibility).tolist() == [False, True]


@pytest.mark.parametrize('point_size', [1, 3, 5])
def test_zbuffer_equals_a_loop(point_size):
    camera = make_camera(2)
    uv, z = camera.project(room_points(300))
    depth = zbuffer(uv, z, camera.image_size, point_size)
    height, width = camera.image_size
    radius = point_size // 2
    for view in range(2):
        expected = torch.full((height, width), INF, dtype=torch.float64)
        for (u, v), depth_z in zip(uv[view].tolist(), z[view].tolist()):
            if depth_z <= 0.05:
                continue
            column, row = math.floor(u + 0.5), math.floor(v + 0.5)
            for y in range(max(0, row - radius), min(height, row + radius + 1)):
                for x in range(max(0, column - radius), min(width, column + radius + 1)):
                    expected[y, x] = min(expected[y, x], depth_z)
        expected[expected == INF] = 0
        assert torch.equal(depth[view], expected)
    assert (depth > 0).any()


def test_zbuffer_is_the_minimum_whatever_the_order():
    """Not merely of neighbouring rows: the nearest of many points at one pixel wins."""
    z = torch.rand(1000, dtype=torch.float64) + 1
    uv = torch.full((1000, 2), 2.0, dtype=torch.float64)
    for order in (torch.arange(1000), z.argsort(), z.argsort(descending=True)):
        depth = zbuffer(uv, z[order], (5, 5))
        assert depth[2, 2] == z.min()
        assert (depth > 0).sum() == 1


def test_zbuffer_hides_what_is_behind():
    camera = make_camera(1)[0]
    near_wall = camera.resize((96, 128)).unproject(torch.full((96, 128), 1.5).double())
    near_wall = near_wall.reshape(-1, 3)
    behind = camera.unproject(torch.full((48, 64), 2.5).double()).reshape(-1, 3)
    points = torch.cat((behind, near_wall))
    uv, z = camera.project(points)
    depth = zbuffer(uv, z, camera.image_size, point_size=3)
    visible = visible_mask(uv, z, camera.image_size, depth)
    assert not visible[: len(behind)].any()
    assert visible[len(behind) :].all()
    assert visible_mask(uv, z, camera.image_size).all()


def test_zbuffer_skips_bad_points():
    uv = torch.tensor([[1.0, 1.0], [NAN, 1.0], [1e30, 2.0], [2.0, 2.0]])
    z = torch.tensor([NAN, 1.0, 1.0, -3.0])
    assert not zbuffer(uv, z, (4, 4), 3).any()


def _loop_majority(view, segment, instance):
    votes: dict = {}
    for key_view, key_segment, ident in zip(view, segment, instance):
        if key_segment >= 0 and ident >= 0:
            counts = votes.setdefault((key_view, key_segment), {})
            counts[ident] = counts.get(ident, 0) + 1
    keep = []
    for key_view, key_segment, ident in zip(view, segment, instance):
        if key_segment < 0 or ident < 0:
            keep.append(True)
            continue
        counts = votes[key_view, key_segment]
        keep.append(ident == min(counts, key=lambda x: (-counts[x], x)))
    return keep


def test_majority_equals_a_loop():
    view = torch.randint(0, 3, (400,))
    segment = torch.randint(-1, 6, (400,))
    instance = torch.randint(-1, 4, (400,)) * 1000
    keep = majority_instance(view, segment, instance)
    assert keep.tolist() == _loop_majority(view.tolist(), segment.tolist(), instance.tolist())
    assert 0 < keep.sum() < 400


def test_majority_ties_unknown_and_empty():
    def keep(view, segment, instance):
        return majority_instance(*(torch.tensor(x) for x in (view, segment, instance))).tolist()

    assert keep([0, 0, 0, 0], [5, 5, 5, 5], [7, 3, 7, 3]) == [False, True, False, True]
    assert keep([0, 1, 1], [5, 5, 5], [7, 3, 3]) == [True, True, True]  # views apart
    assert keep([0, 0, 0], [5, 5, 5], [-1, 2, 2]) == [True, True, True]  # unknown is kept
    assert keep([0, 0, 0], [-1, -1, 2], [4, 5, 6]) == [True, True, True]
    assert keep([0, 0, 0], [2, 2, 2], [0, 0, 9]) == [True, True, False]  # 0 is an id
    empty = torch.zeros(0, dtype=torch.int64)
    assert majority_instance(empty, empty, empty).shape == (0,)


def test_mask_aware_visibility():
    """A segment that leaks over another 2D instance loses the pixels there."""
    instance_map = torch.zeros(1, 48, 64, dtype=torch.int32)
    instance_map[:, :, 20:] = 4
    uv = torch.stack((torch.tensor([5.0, 10.0, 15.0, 30.0, 40.0]), torch.full((5,), 9.0)), -1)
    segments = torch.tensor([0, 0, 0, 0, 1])
    visible = visible_mask(
        uv[None], torch.ones(1, 5), (48, 64), instance_map=instance_map, segments=segments
    )
    assert visible.tolist() == [[True, True, True, False, True]]


def test_wrong_shapes_are_named():
    uv, z = torch.zeros(4, 2), torch.ones(4)
    with pytest.raises(ValueError, match='uv: expected'):
        visible_mask(uv, z[:3], (4, 4))
    with pytest.raises(ValueError, match='image_size'):
        visible_mask(uv, z, (0, 4))
    with pytest.raises(ValueError, match='depth must have the leading dimensions'):
        visible_mask(uv, z, (4, 4), torch.ones(2, 4, 4))
    with pytest.raises(ValueError, match='together'):
        visible_mask(uv, z, (4, 4), segments=torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match='point_size must be odd'):
        zbuffer(uv, z, (4, 4), point_size=2)


def test_a_point_behind_the_camera_is_never_seen():
    camera = make_camera(1)[0]
    pose = camera.world_from_cam
    behind = (pose[:3, 3] - 2 * pose[:3, 2])[None]
    uv, z = project(behind, camera.intrinsics, pose)
    depth = torch.full((48, 64), 2.0, dtype=torch.float64)
    assert not visible_mask(uv, z, camera.image_size).any()
    assert not visible_mask(uv, z, camera.image_size, depth).any()


def test_settings_are_checked_once():
    assert Visibility() == Visibility(0.05, 0.05, 0.01, False, None, 3)
    for change, match in (
        ({'near': -0.1}, 'near must not be negative'),
        ({'abs_tol': float('nan')}, 'abs_tol must not be negative'),
        ({'rel_tol': -1}, 'rel_tol must not be negative'),
        ({'occlusion': 'depth'}, 'occlusion must be one of'),
        ({'point_size': 2}, 'point_size must be odd'),
    ):
        with pytest.raises(ValueError, match=match):
            Visibility(**change)


def test_a_zbuffer_of_the_points_is_drawn_where_it_is_wanted():
    camera, points = make_camera(2), room_points(200)
    drawn = Visibility(occlusion='zbuffer', point_size=5)
    uv, z = camera.project(points)
    depth = zbuffer(uv, z, camera.image_size, 5)
    expected = visible_mask(uv, z, camera.image_size, depth)
    assert torch.equal(visible_mask(uv, z, camera.image_size, visibility=drawn), expected)
    assert torch.equal(project_visible(points, camera, visibility=drawn)[2], expected)
    assert len(project_pairs(points, camera, visibility=drawn)) == expected.sum()
    for call in (
        lambda: visible_mask(uv, z, camera.image_size, depth, visibility=drawn),
        lambda: project_visible(points, camera, depth, visibility=drawn),
        lambda: project_pairs(points, camera, depth, visibility=drawn),
    ):
        with pytest.raises(ValueError, match='without depth'):
            call()
