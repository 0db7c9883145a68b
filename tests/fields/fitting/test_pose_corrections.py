"""Corrections of cameras: what they do to rays, and that a fit brings disturbed poses back."""

from dataclasses import replace

import torch

from oneformer3d.fields.fitting.field_file import load_field
from oneformer3d.fields.fitting.loop import fit_field
from oneformer3d.fields.fitting.pose_corrections import (
    corrected_camera,
    corrected_rays,
    rotation_matrix,
)
from oneformer3d.fields.rendering.rays import image_rays
from oneformer3d.lifting import Camera
from tests.helpers.small_scenes import SIZE, K, box_scene, box_views, quick_settings


def disturbed(scene, views, shift, turn):
    """The scene with random errors of the poses of some views, a shift and a turn on average."""
    generator = torch.Generator().manual_seed(0)
    errors = torch.randn(len(views), 6, generator=generator)
    errors = errors * torch.tensor([turn] * 3 + [shift] * 3) / 3**0.5
    errors = errors - errors.mean(0)  # the scene as a whole stays
    return replace(scene, camera=corrected_camera(scene.camera, errors, views))


def patterned_box():
    """The box room with walls of waves, which tell where a view is."""
    views = box_views(12)
    cameras = [Camera(K, pose, SIZE) for pose in views['world_from_cam']]
    points = [camera.unproject(z) for camera, z in zip(cameras, views['depth'], strict=True)]
    return box_scene(12, images=[0.5 + 0.4 * torch.sin(4 * xyz) for xyz in points])


def surfaces_off(exact, camera, views):
    """Mean distance between where surfaces are and where a camera puts them, metres."""
    depths = [exact.read(view).depth for view in views]
    return torch.stack([
        (camera[view].unproject(z) - exact.camera[view].unproject(z)).norm(dim=-1).mean()
        for view, z in zip(views, depths, strict=True)
    ]).mean()  # fmt: skip


def test_rotations_are_rotations_and_turn_as_their_vector_says():
    vectors = torch.randn(5, 3, dtype=torch.float64)
    matrices = rotation_matrix(vectors)
    eye = torch.eye(3, dtype=torch.float64).expand(5, 3, 3)
    torch.testing.assert_close(matrices @ matrices.mT, eye)
    torch.testing.assert_close((matrices @ vectors[..., None])[..., 0], vectors)  # the axis stays
    angle = ((matrices.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).acos()
    torch.testing.assert_close(angle.cos(), vectors.norm(dim=-1).cos())
    small = torch.zeros(3, requires_grad=True)
    rotation_matrix(small)[1, 0].backward()
    torch.testing.assert_close(small.grad, torch.tensor([0.0, 0.0, 1.0]))


def test_rays_and_cameras_move_alike():
    scene = box_scene(4)
    corrections = 0.1 * torch.randn(3, 6)
    camera = corrected_camera(scene.camera, corrections, [0, 2, 3])
    assert torch.equal(camera.world_from_cam[1], scene.camera.world_from_cam[1])
    for row, view in enumerate([0, 2, 3]):
        rays = image_rays(scene.camera[view], 0.1, 5.0)
        moved = corrected_rays(rays, corrections, torch.full((len(rays),), row))
        expected = image_rays(camera[view], 0.1, 5.0)
        torch.testing.assert_close(moved.origins, expected.origins, atol=1e-5, rtol=0)
        torch.testing.assert_close(moved.directions, expected.directions, atol=1e-5, rtol=0)
        torch.testing.assert_close(moved.z_scale, expected.z_scale, atol=1e-5, rtol=0)


def test_a_fit_brings_disturbed_poses_back(tmp_path):
    exact = patterned_box()
    learnt, _ = exact.split(4)
    scene = disturbed(exact, learnt, shift=0.1, turn=0.06)
    settings = quick_settings(
        steps=100, optimize_cameras=True, camera_learning_rate=3e-3, batch_rays=128,
        surface_pixels=1024,
    )  # fmt: skip
    fitted = fit_field(scene, settings, tmp_path)
    corrected = corrected_camera(scene.camera, fitted.poses.detach(), learnt)
    before = surfaces_off(exact, scene.camera, learnt)
    assert surfaces_off(exact, corrected, learnt) < 0.8 * before

    # the file has them, and what was observed is seen from the corrected cameras
    again, _ = load_field(tmp_path)
    assert torch.equal(again.poses, fitted.poses.detach())
    seen = again.observations.camera
    torch.testing.assert_close(seen.world_from_cam, corrected.world_from_cam[learnt])


def test_cameras_are_taken_as_they_are_unless_asked():
    fitted = fit_field(box_scene(4), quick_settings(steps=1))
    assert fitted.poses is None
