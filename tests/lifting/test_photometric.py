"""Real frames agree: colours lifted to the points of other frames are those points' own colours."""

import itertools

import pytest
import torch

from oneformer3d.data.posed_rgbd import load_posed_rgbd, read_images
from oneformer3d.lifting import (
    Camera,
    Visibility,
    lift_features_to_points,
    render_depth_from_pointcloud,
)

NEAR_BY, FAR = 1, 3  # frames from one to the other


@pytest.fixture(scope='module')
def views(real_frames):
    """Colour and depth cameras, colours (V, 3, H, W) in 0…255 and depth (V, H, W) in metres."""
    sequence = load_posed_rgbd(real_frames)
    frames = sequence.frames
    pictures = [read_images(frame) for frame in frames]
    colors = torch.stack([torch.from_numpy(x[0].copy()) for x in pictures]).permute(0, 3, 1, 2)
    depth = torch.stack([torch.from_numpy(x[1]) for x in pictures])
    poses = torch.stack([torch.from_numpy(frame.world_from_cam) for frame in frames])
    cameras = [
        Camera(torch.from_numpy(K).expand(len(poses), 3, 3), poses, tuple(depth.shape[-2:]))
        for K in (sequence.color_intrinsics, sequence.depth_intrinsics)
    ]
    return *cameras, colors.float(), depth


def _errors(views, gap, tested=False, **options):
    """Median colour error, share of gross ones, share of visible points; frames ``gap`` apart."""
    camera, depth_camera, colors, depth = views
    errors, shares = [], []
    pairs = itertools.permutations(range(len(colors)), 2)
    for source, target in ((a, b) for a, b in pairs if abs(a - b) == gap):
        there = (depth[source] > 0.4) & (depth[source] < 5)
        points = depth_camera[source].unproject(depth[source].double())[there][::101]
        read = []
        for frame in (source, target):
            if frame == target and tested:
                options |= {
                    'depth': depth[frame],
                    'depth_intrinsics': depth_camera.intrinsics[frame],
                }
            read.append(
                lift_features_to_points(
                    points,
                    {'color': colors[frame]},
                    camera.intrinsics[frame],
                    camera.world_from_cam[frame],
                    camera.image_size,
                    **(options if frame == target else {}),
                )
            )
        (own, present), (lifted, visible) = read
        errors.append((lifted - own)[visible & present].abs().mean(1))
        shares.append(visible.float().mean())
    errors = torch.cat(errors)
    gross = (errors > 40).float().mean()
    return float(errors.median()), float(gross), float(torch.stack(shares).mean())


def test_colours_agree_between_frames(views):
    median, gross, share = _errors(views, NEAR_BY)
    tested, tested_gross, tested_share = _errors(views, NEAR_BY, tested=True)
    assert tested < median < 10
    assert tested_gross < 0.8 * gross
    assert 0.4 < tested_share < share


def test_the_depth_test_counts_where_views_differ(views):
    median, gross, _ = _errors(views, FAR)
    tested, tested_gross, _ = _errors(views, FAR, tested=True)
    assert tested < 0.9 * median
    assert tested_gross < 0.85 * gross
    visibility = Visibility(edge_reject=True)
    assert _errors(views, FAR, tested=True, visibility=visibility)[1] <= tested_gross + 0.003


def test_wrong_poses_do_not_agree(views):
    """The measure notices cameras that are turned by 2 degrees against each other."""
    camera, depth_camera, colors, depth = views
    angle = torch.tensor(2.0, dtype=torch.float64).deg2rad()
    turn = torch.eye(3, dtype=torch.float64)
    turn[0, 0] = turn[2, 2] = angle.cos()
    turn[0, 2], turn[2, 0] = angle.sin(), -angle.sin()
    poses = camera.world_from_cam.clone()
    poses[1::2, :3, :3] = poses[1::2, :3, :3] @ turn
    turned = Camera(camera.intrinsics, poses, camera.image_size)
    wrong, right = (
        _errors((colour_camera, depth_camera, colors, depth), NEAR_BY, tested=True)
        for colour_camera in (turned, camera)
    )
    assert wrong[2] < 0.9 * right[2]  # the depth test fails where the colours would be wrong
    assert wrong[0] > 1.05 * right[0], (wrong, right)


def test_drawn_depth_is_near_the_measured_one(views):
    """The next frame's points, drawn into this frame, lie on its depth map."""
    _, camera, _, depth = views
    points = camera[1].unproject(depth[1].double())[depth[1] > 0]
    drawn = render_depth_from_pointcloud(
        points,
        camera.intrinsics[0],
        camera.world_from_cam[0],
        camera.image_size[::-1],
        visibility=Visibility(edge_reject=True),
    )
    both = (drawn > 0) & (depth[0] > 0) & (depth[0] < 4)
    assert both.float().mean() > 0.1
    assert (drawn - depth[0])[both].abs().median() < 0.07
