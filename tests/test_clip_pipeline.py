"""From a posed RGB-D frame to features at its points, on real frames."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oneformer3d.clip_utils import build_uv_index, sample_img_feat
from oneformer3d.lifting import Camera, project_pairs


def _load_frame(folder: Path, frame: int) -> tuple[torch.Tensor, torch.Tensor, Camera]:
    """Colours (3, H, W) in 0–1, depth (H, W) in metres with 0 for missing, camera."""
    stem = folder / f'frame-{frame:06d}'
    colours = np.asarray(Image.open(f'{stem}.color.jpg').convert('RGB'))
    depth = np.asarray(Image.open(f'{stem}.depth.png')).astype(np.float32)
    camera = Camera(
        torch.from_numpy(np.loadtxt(folder / 'camera-intrinsics.txt')).float(),
        torch.from_numpy(np.loadtxt(f'{stem}.pose.txt')).float(),
        depth.shape,
    )
    colours = torch.from_numpy(colours.copy()).permute(2, 0, 1).float() / 255
    return colours, torch.from_numpy(depth) / 1000, camera


def _points(depth: torch.Tensor, camera: Camera) -> torch.Tensor:
    return camera.unproject(depth)[depth > 0]


@pytest.mark.parametrize('frame', [0, 2, 4])
def test_a_frame_sees_its_own_points(real_frames, frame):
    colours, depth, camera = _load_frame(real_frames, frame)
    points = _points(depth, camera)
    uv, valid = build_uv_index(
        points, camera.intrinsics, camera.world_from_cam, camera.image_size, depth
    )
    assert len(points) > 100_000
    assert valid.float().mean() >= 0.97
    v, u = torch.nonzero(depth > 0, as_tuple=True)
    assert (uv - torch.stack((u, v), -1)).abs().max() < 0.01
    sampled = sample_img_feat(colours, uv, camera.image_size)
    assert (sampled - colours[:, v, u].T)[valid].abs().max() < 0.01


def test_random_points_reproject_within_a_pixel(real_frames):
    """Through the inverse of the pose by another library, in float64."""
    _, depth, camera = _load_frame(real_frames, 1)
    points = _points(depth, camera)
    points = points[torch.randperm(len(points))[:500]]
    uv, valid = build_uv_index(
        points, camera.intrinsics, camera.world_from_cam, camera.image_size, depth
    )
    cam_from_world = np.linalg.inv(camera.world_from_cam.double().numpy())
    in_cam = points.double().numpy() @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    pixels = in_cam @ camera.intrinsics.double().numpy().T
    error = np.linalg.norm(uv.numpy() - pixels[:, :2] / pixels[:, 2:], axis=1)
    assert error.max() < 1
    assert valid.all()


def test_other_frames_see_the_points_in_the_same_colours(real_frames):
    """Poses and depth test hold across frames; the inverse poses see next to nothing."""
    colours, depth, camera = _load_frame(real_frames, 3)
    points = _points(depth, camera)[::50]
    own = colours[:, depth > 0].T[::50]
    frames = [_load_frame(real_frames, frame) for frame in (2, 4)]
    views = Camera(
        torch.stack([f[2].intrinsics for f in frames]),
        torch.stack([f[2].world_from_cam for f in frames]),
        camera.image_size,
    )
    depths = torch.stack([f[1] for f in frames])
    pairs = project_pairs(points, views, depths)
    assert len(pairs) > 0.4 * 2 * len(points)
    errors, shuffled = [], []
    for view, frame in enumerate(frames):
        keep = pairs.view == view
        seen = sample_img_feat(frame[0], pairs.uv[keep], views.image_size)
        errors.append((seen - own[pairs.point[keep]]).abs().mean(1))
        shuffled.append((seen - own[pairs.point[keep]].roll(1000, 0)).abs().mean(1))
    median = torch.cat(errors).median()
    assert median < 0.06
    assert median < 0.4 * torch.cat(shuffled).median()
    inverted = Camera(views.intrinsics, torch.linalg.inv(views.world_from_cam), views.image_size)
    assert len(project_pairs(points, inverted, depths)) < 0.5 * len(pairs)
