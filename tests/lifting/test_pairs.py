"""Visible pairs against the dense masks, budgets, and empty input."""

import pytest
import torch

from oneformer3d.lifting import (
    Camera,
    PixelPairs,
    Visibility,
    nearest_view,
    project_pairs,
    project_visible,
    reproject_pairs,
    resize_intrinsics,
    visible_mask,
    zbuffer,
    zbuffer_views,
)
from tests.helpers.lifting_scenes import make_camera, room_depth, room_points

BUDGETS = [1, 5000, 100_000]


def _fields(pairs: PixelPairs) -> tuple[torch.Tensor, ...]:
    return pairs.point, pairs.view, pairs.uv, pairs.depth_z


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('with_depth', [False, True])
@pytest.mark.parametrize('edge_reject', [False, True])
def test_pairs_equal_the_dense_mask(dtype, with_depth, edge_reject):
    camera = make_camera(5, dtype)
    points = room_points(700, dtype)
    depth = room_depth(camera) if with_depth else None
    visibility = Visibility(edge_reject=edge_reject)
    pairs = project_pairs(points, camera, depth, visibility=visibility)
    uv, z, visible = project_visible(points, camera, depth, visibility=visibility)
    point, view = visible.t().nonzero(as_tuple=True)
    assert torch.equal(pairs.point, point)
    assert torch.equal(pairs.view, view)
    assert torch.equal(pairs.uv, uv[view, point])
    assert torch.equal(pairs.depth_z, z[view, point])
    assert len(pairs) > 50


@pytest.mark.parametrize('byte_budget', BUDGETS)
def test_the_budget_changes_nothing(byte_budget):
    camera = make_camera(3, torch.float32)
    points = room_points(301, torch.float32)
    depth = room_depth(camera)
    whole = project_pairs(points, camera, depth)
    cut = project_pairs(points, camera, depth, byte_budget=byte_budget)
    for a, b in zip(_fields(whole), _fields(cut)):
        assert torch.equal(a, b)
    dense = project_visible(points, camera, depth)
    for a, b in zip(dense, project_visible(points, camera, depth, byte_budget=byte_budget)):
        assert torch.equal(a, b)
    drawn = zbuffer_views(points, camera)
    assert torch.equal(drawn, zbuffer_views(points, camera, byte_budget=byte_budget))
    assert torch.equal(drawn, zbuffer(dense[0], dense[1], camera.image_size, 3))


def test_float32_agrees_with_float64():
    camera, points = make_camera(5), room_points(2000)
    single = project_pairs(points.float(), camera)
    double = project_pairs(points, camera)
    assert single.uv.dtype == torch.float32
    dense = torch.zeros(2, 2000, 5, dtype=torch.bool)
    for row, pairs in zip(dense, (single, double)):
        row[pairs.point, pairs.view] = True
    assert (dense[0] != dense[1]).sum() <= 2  # pixels exactly on the border
    both = dense.all(0)
    uv = [p.uv[both[p.point, p.view]].double() for p in (single, double)]
    torch.testing.assert_close(uv[0], uv[1], atol=1e-3, rtol=0)


def test_views_together_equal_views_alone():
    camera, points = make_camera(4), room_points(200)
    depth = room_depth(camera)
    together = project_pairs(points, camera, depth)
    for index in range(4):
        alone = project_pairs(points, camera[index : index + 1], depth[index : index + 1])
        keep = together.view == index
        assert torch.equal(together.point[keep], alone.point)
        assert torch.equal(together.uv[keep], alone.uv)


def test_depth_camera_with_its_own_intrinsics():
    """Colour and depth of different focal lengths: the depth test uses the depth's pixels."""
    camera, points = make_camera(4), room_points(800)
    wide = camera.intrinsics.clone()
    wide[:, 0, 0] *= 0.6
    wide[:, 1, 1] *= 0.6
    depth_camera = Camera(wide, camera.world_from_cam, camera.image_size).resize((60, 80))
    depth = room_depth(depth_camera)
    pairs = project_pairs(points, camera, depth, depth_camera=depth_camera)
    in_colour = project_visible(points, camera)[2]
    in_depth = project_visible(points, depth_camera, depth, visibility=Visibility(near=0.0))[2]
    point, view = (in_colour & in_depth).t().nonzero(as_tuple=True)
    assert torch.equal(pairs.point, point)
    assert torch.equal(pairs.view, view)
    same = project_pairs(points, camera, room_depth(camera), depth_camera=camera)
    for a, b in zip(_fields(same), _fields(project_pairs(points, camera, room_depth(camera)))):
        assert torch.equal(a, b)


def test_mask_aware_pairs_equal_the_dense_filter():
    camera, points = make_camera(3), room_points(500)
    maps = torch.randint(0, 3, (3, 12, 16))
    segments = torch.arange(500) % 20
    pairs = project_pairs(points, camera, instance_maps=maps, segments=segments)
    uv, z = camera.project(points)
    visible = visible_mask(uv, z, camera.image_size, instance_map=maps, segments=segments)
    point, view = visible.t().nonzero(as_tuple=True)
    assert torch.equal(pairs.point, point)
    assert torch.equal(pairs.view, view)
    assert 0 < len(pairs) < len(project_pairs(points, camera))


@pytest.mark.parametrize(('num_points', 'num_views'), [(0, 3), (5, 0), (0, 0)])
def test_nothing_to_project(num_points, num_views):
    camera, points = make_camera(num_views), room_points(num_points)
    depth = torch.ones(num_views, 6, 8, dtype=torch.float64)
    pairs = project_pairs(points, camera, depth, visibility=Visibility(edge_reject=True))
    assert len(pairs) == 0
    assert pairs.uv.shape == (0, 2)
    assert pairs.point.dtype == pairs.view.dtype == torch.int64
    uv, z, visible = project_visible(points, camera, depth)
    assert uv.shape == (num_views, num_points, 2)
    assert z.shape == visible.shape == (num_views, num_points)
    assert not zbuffer_views(points, camera).any()
    assert nearest_view(pairs, num_points).tolist() == [-1] * num_points


def test_bad_points_and_poses_make_no_pairs():
    camera, points = make_camera(2), room_points(200)
    points[1::2] = torch.nan
    points[3] = torch.inf
    pairs = project_pairs(points, camera, room_depth(camera))
    assert torch.isfinite(pairs.uv).all()
    assert (pairs.point % 2 == 0).all()
    assert len(pairs) > 0
    at_centre = camera.world_from_cam[:1, :3, 3]
    assert (project_pairs(at_centre, camera).view != 0).all()


def test_projection_ignores_autocast():
    camera, points = make_camera(2, torch.float32), room_points(100, torch.float32)
    uv, z = camera.project(points)
    with torch.autocast('cpu', torch.bfloat16):
        uv_autocast, z_autocast = camera.project(points)
    assert torch.equal(uv, uv_autocast)
    assert torch.equal(z, z_autocast)


def test_reprojected_pairs_carry_gradients():
    camera, points = make_camera(3), room_points(12)
    pairs = project_pairs(points, camera)
    again = reproject_pairs(points, camera, pairs)
    assert torch.equal(again.uv, pairs.uv)
    assert torch.equal(again.depth_z, pairs.depth_z)

    def pixels(points, poses):
        moved = Camera(camera.intrinsics, poses, camera.image_size)
        return reproject_pairs(points, moved, pairs).uv

    inputs = points.requires_grad_(), camera.world_from_cam.clone().requires_grad_()
    assert torch.autograd.gradcheck(pixels, inputs)


def test_nearest_view():
    point = torch.tensor([0, 0, 2, 2, 2])
    view = torch.tensor([1, 3, 0, 2, 4])
    depth_z = torch.tensor([2.0, 1.0, 3.0, 1.5, 1.5])
    pairs = PixelPairs(point, view, torch.zeros(5, 2), depth_z)
    assert nearest_view(pairs, 4).tolist() == [3, -1, 2, -1]


def test_select_and_move():
    camera, points = make_camera(3), room_points(60)
    pairs = project_pairs(points, camera)
    kept = pairs.to('cpu').select(pairs.view != 1)
    without = project_pairs(points, camera[torch.tensor([0, 2])])
    assert torch.equal(kept.point, without.point)
    assert torch.equal(kept.uv, without.uv)


def test_camera_resize_crop_and_checks():
    camera, points = make_camera(2), room_points(30)
    uv, z = camera.project(points)
    cropped = camera.crop(top=4, left=10, height=20, width=30)
    uv_cropped, z_cropped = cropped.project(points)
    torch.testing.assert_close(uv_cropped, uv - uv.new_tensor([10.0, 4.0]))
    assert torch.equal(z_cropped, z)
    assert cropped.image_size == (20, 30)
    resized = camera.resize((24, 16))
    torch.testing.assert_close(
        resized.intrinsics, resize_intrinsics(camera.intrinsics, (48, 64), (24, 16))
    )
    assert resized.image_size == (24, 16)
    assert resized.to(dtype=torch.float32).intrinsics.dtype == torch.float32
    with pytest.raises(ValueError, match=r'depth: expected .*H=48, W=64'):
        camera.unproject(torch.ones(2, 5, 5).double())
    with pytest.raises(ValueError, match='image_size'):
        camera.crop(0, 0, 0, 5)
    with pytest.raises(ValueError, match='no batch dimension'):
        camera[0][0]


def test_wrong_input_is_named():
    camera, points = make_camera(2), room_points(5)
    with pytest.raises(ValueError, match=r'points: expected \(N, 3\), got'):
        project_pairs(points[None], camera)
    with pytest.raises(ValueError, match='camera must hold views'):
        project_pairs(points, camera[0])
    with pytest.raises(ValueError, match=r'depth: expected \(V, h, w\) with V=2, got'):
        project_pairs(points, camera, torch.ones(3, 4, 4))
    with pytest.raises(ValueError, match='byte_budget'):
        project_pairs(points, camera, byte_budget=0)
    with pytest.raises(ValueError, match='together'):
        project_pairs(points, camera, segments=torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r'pairs\.uv: expected'):
        PixelPairs(torch.zeros(2), torch.zeros(2), torch.zeros(2, 3), torch.zeros(2))
