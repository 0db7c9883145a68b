"""Rays against the shared cameras and closed forms."""

import pytest
import torch

from oneformer3d.fields import Rays, SceneBox, clip_to_box, pixel_rays, sample_rays
from oneformer3d.fields.rendering.rays import (
    distance_to_z,
    image_rays,
    scene_normalisation,
    unit_positions,
    z_to_distance,
)
from tests.helpers.analytic_fields import look_around, random_rays


def test_points_along_pixel_rays_project_onto_their_pixels_at_their_depth() -> None:
    camera = look_around(3)
    view, uv = torch.randint(3, (50,)), torch.rand(50, 2) * 20 - 4
    rays = pixel_rays(camera, view, uv)
    depth = torch.rand(50) * 3 + 0.2
    points = rays.positions(z_to_distance(depth, rays)[:, None])
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(50))
    for i in range(50):
        found, z = camera[int(view[i])].project(points[i])
        torch.testing.assert_close(found[0], uv[i], atol=1e-3, rtol=0)
        torch.testing.assert_close(z[0], depth[i], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(distance_to_z(z_to_distance(depth, rays), rays), depth)


def test_image_rays_meet_the_unprojected_depth_map() -> None:
    camera = look_around(1)[0]
    depth = torch.rand(12, 16) + 0.5
    rays = image_rays(camera)
    points = rays.positions(z_to_distance(depth.flatten(), rays)[:, None])
    torch.testing.assert_close(points.view(12, 16, 3), camera.unproject(depth))
    uv, _ = camera.project(rays.origins + rays.directions)
    torch.testing.assert_close(uv[17], torch.tensor([1.0, 1.0]), atol=1e-4, rtol=0)


def test_scaled_poses_keep_depth_in_the_camera_s_metres() -> None:
    camera = look_around(1)
    scaled = torch.diag(torch.tensor([3.0, 3, 3, 1])) @ camera.world_from_cam
    rays = image_rays(type(camera)(camera.intrinsics, scaled, camera.image_size)[0])
    torch.testing.assert_close(rays.z_scale, 3 * image_rays(camera[0]).z_scale)


def test_one_similarity_serves_points_depth_and_poses() -> None:
    camera = look_around(3)
    box = scene_normalisation(torch.randn(100, 3) * 2 + 5, camera.world_from_cam)
    uv, depth = torch.rand(4, 2) * 10, torch.rand(4) + 1
    points = pixel_rays(camera, torch.full((4,), 1), uv)
    world = points.positions(z_to_distance(depth, points)[:, None])[:, 0]
    unit_camera = type(camera)(
        camera.intrinsics, box.pose_to_unit(camera.world_from_cam), camera.image_size
    )
    rays = pixel_rays(unit_camera, torch.full((4,), 1), uv)
    unit = rays.positions(z_to_distance(box.length_to_unit(depth), rays)[:, None])[:, 0]
    torch.testing.assert_close(unit, box.to_unit(world), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(box.to_world(unit), world, atol=1e-4, rtol=1e-5)


def test_rays_are_moved_into_the_box_as_their_points_are() -> None:
    box = scene_normalisation(torch.randn(100, 3) * 2 + 5)
    rays, distances = random_rays(30), torch.rand(30, 4) * 5
    expected = box.to_unit(rays.positions(distances))
    torch.testing.assert_close(unit_positions(rays, distances, box), expected, atol=1e-5, rtol=1e-5)


def test_normalisation_centres_the_scene_and_keeps_its_shape() -> None:
    box = scene_normalisation(bounds=torch.tensor([[0.0, 0, 0], [4, 2, 1]]), margin=0.0)
    corners = box.to_unit(torch.tensor([[0.0, 0, 0], [4, 2, 1]]))
    torch.testing.assert_close(corners, torch.tensor([[-1, -0.5, -0.25], [1, 0.5, 0.25]]))
    torch.testing.assert_close(box.half_extent, corners[1])
    assert float(box.scale) == pytest.approx(0.5)
    assert box.contains(torch.tensor([[0, 0.4, 0.2], [0, 0.6, 0]])).tolist() == [True, False]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({}, 'needs points'),
        ({'bounds': torch.zeros(2, 3)}, 'no volume'),
        ({'points': torch.tensor([[0.0, 0, 0], [1, float('nan'), 1]])}, 'no volume'),
        ({'world_from_cam': torch.full((1, 4, 4), float('inf'))}, 'finite rigid'),
    ],
)
def test_normalisation_refuses_what_has_no_box(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        scene_normalisation(**arguments)


def test_clipping_ends_rays_where_they_leave_the_box() -> None:
    box = SceneBox(torch.diag(torch.tensor([0.5, 0.5, 0.5, 1])), torch.tensor([1.0, 0.5, 0.25]))
    ones = torch.ones(3)
    rays = Rays(
        torch.tensor([[0.0, 0, 0], [-10, 0, 0], [0, 5, 0]]),
        torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0]]),
        0.1 * ones,
        100 * ones,
        ones,
    )
    clipped = clip_to_box(rays, box)
    torch.testing.assert_close(clipped.near, torch.tensor([0.1, 8, 0.1]))
    torch.testing.assert_close(clipped.far, torch.tensor([2, 12, 0.1]))
    inside = clip_to_box(random_rays(200), box)
    ends = box.to_unit(inside.positions(inside.far[:, None]))[:, 0]
    torch.testing.assert_close((ends.abs() / box.half_extent).amax(-1), torch.ones(200))


def test_sampled_rays_carry_their_pixels_colour_and_label() -> None:
    camera = look_around(1)[0]
    row, column = torch.meshgrid(torch.arange(12), torch.arange(16), indexing='ij')
    image = torch.stack((row, column, row * 0), -1).to(torch.uint8)
    generator = torch.Generator().manual_seed(3)
    origins, directions, colours, labels = sample_rays(
        image, row * 16 + column, camera.intrinsics, camera.world_from_cam, 64, generator
    )
    uv = torch.stack((colours[:, 1], colours[:, 0]), -1) * 255
    found, _ = camera.project(origins + directions)
    torch.testing.assert_close(found, uv, atol=1e-3, rtol=0)
    assert torch.equal(labels, (uv[:, 1].round() * 16 + uv[:, 0].round()).long())
    assert labels.unique().numel() > 30


def test_bad_rays_are_refused() -> None:
    camera = look_around(2)
    one, uv = torch.zeros(1, dtype=torch.long), torch.zeros(1, 2)
    with pytest.raises(ValueError, match='view indices'):
        pixel_rays(camera, one + 2, uv)
    with pytest.raises(ValueError, match='near < far'):
        pixel_rays(camera, one, uv, near=2, far=1)
    with pytest.raises(ValueError, match='semantics_2d'):
        sample_rays(torch.zeros(4, 5, 3), torch.zeros(5, 4), torch.eye(3), torch.eye(4), 2)
    with pytest.raises(ValueError, match='near: expected'):
        Rays(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3), torch.zeros(2), torch.zeros(2))
