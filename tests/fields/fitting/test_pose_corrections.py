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
from tests.helpers.small_scenes import box_scene, quick_settings


def disturbed(scene, views, shift=0.03, turn=0.02, seed=0):
    """The scene with random errors of the poses of some views, and those errors (V, 6)."""
    generator = torch.Generator().manual_seed(seed)
    errors = torch.randn(len(views), 6, generator=generator)
    errors = errors * torch.tensor([turn] * 3 + [shift] * 3) / 3**0.5
    errors = errors - errors.mean(0)  # the scene as a whole stays
    return replace(scene, camera=corrected_camera(scene.camera, errors, views)), errors


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
    exact = box_scene(12)
    learnt, _ = exact.split(4)
    scene, errors = disturbed(exact, learnt)
    settings = quick_settings(
        steps=100, optimize_cameras=True, camera_learning_rate=2e-3, surface_pixels=512
    )
    fitted = fit_field(scene, settings, tmp_path)
    left = errors + (fitted.poses - fitted.poses.mean(0)).detach()
    before, after = errors.norm(dim=-1).mean(), left.norm(dim=-1).mean()
    assert after < 0.6 * before, (before, after)

    # the file has them, and what was observed is seen from the corrected cameras
    again, _ = load_field(tmp_path)
    assert torch.equal(again.poses, fitted.poses.detach())
    seen = again.observations.camera
    expected = corrected_camera(scene.camera, fitted.poses.detach(), learnt)[learnt]
    torch.testing.assert_close(seen.world_from_cam, expected.world_from_cam)


def test_cameras_are_taken_as_they_are_unless_asked():
    fitted = fit_field(box_scene(4), quick_settings(steps=1))
    assert fitted.poses is None
