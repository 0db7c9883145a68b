"""Real frames agree: colours lifted to the points of other frames are those points' own colours."""

import pytest
import torch

from oneformer3d.data.posed_rgbd import load_posed_rgbd, read_images
from oneformer3d.lifting import Camera, lift_features_to_points, render_depth_from_pointcloud

NEAR_BY, FAR = 1, 8  # how many of the loaded frames (20 of the video apart) lie between two


@pytest.fixture(scope='module')
def kitchen(shared_dir):
    """Colour and depth cameras, colours (V, 3, H, W) in 0…255 and depth (V, H, W) of 7-Scenes."""
    folder = shared_dir / 'data' / '7scenes_kitchen'
    if not folder.is_dir():
        pytest.skip('no frames of 7-Scenes beside the repository')
    sequence = load_posed_rgbd(folder)
    frames = sequence.frames[:20]
    pictures = [read_images(frame) for frame in frames]
    colors = torch.stack([torch.from_numpy(x[0].copy()) for x in pictures]).permute(0, 3, 1, 2)
    depth = torch.stack([torch.from_numpy(x[1]) for x in pictures])
    poses = torch.stack([torch.from_numpy(frame.world_from_cam) for frame in frames])
    cameras = [
        Camera(torch.from_numpy(K).expand(len(poses), 3, 3), poses, tuple(depth.shape[-2:]))
        for K in (sequence.color_intrinsics, sequence.depth_intrinsics)
    ]
    return *cameras, colors.float(), depth


def _errors(kitchen, gap, tested=False, **options):
    """Median colour error, share of gross ones, share of visible points; frames ``gap`` apart."""
    camera, depth_camera, colors, depth = kitchen
    errors, shares = [], []
    for source in range(0, len(colors) - gap, 2):
        target = source + gap
        there = (depth[source] > 0.4) & (depth[source] < 4)
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


def test_colours_agree_between_frames(kitchen):
    median, gross, share = _errors(kitchen, NEAR_BY)
    tested, tested_gross, tested_share = _errors(kitchen, NEAR_BY, tested=True)
    assert tested < median < 10
    assert tested_gross < 0.8 * gross
    assert 0.6 < tested_share < share


def test_the_depth_test_counts_where_views_differ(kitchen):
    median, gross, _ = _errors(kitchen, FAR)
    tested, tested_gross, _ = _errors(kitchen, FAR, tested=True)
    assert tested < 0.9 * median
    assert tested_gross < 0.85 * gross
    assert _errors(kitchen, FAR, tested=True, edge_reject=True)[1] <= tested_gross + 0.003


def test_wrong_poses_do_not_agree(kitchen):
    """The measure notices cameras that are turned by 2 degrees against each other."""
    camera, depth_camera, colors, depth = kitchen
    angle = torch.tensor(2.0, dtype=torch.float64).deg2rad()
    turn = torch.eye(3, dtype=torch.float64)
    turn[0, 0] = turn[2, 2] = angle.cos()
    turn[0, 2], turn[2, 0] = angle.sin(), -angle.sin()
    poses = camera.world_from_cam.clone()
    poses[1::2, :3, :3] = poses[1::2, :3, :3] @ turn
    turned = Camera(camera.intrinsics, poses, camera.image_size)
    wrong = _errors((turned, depth_camera, colors, depth), NEAR_BY, tested=True)[0]
    assert wrong > 1.5 * _errors(kitchen, NEAR_BY, tested=True)[0]


def test_drawn_depth_is_near_the_measured_one(kitchen):
    """The next frame's points, drawn into this frame, lie on its depth map."""
    _, camera, _, depth = kitchen
    points = camera[1].unproject(depth[1].double())[depth[1] > 0]
    drawn = render_depth_from_pointcloud(
        points, camera.intrinsics[0], camera.world_from_cam[0], camera.image_size, drop_edges=True
    )
    both = (drawn > 0) & (depth[0] > 0) & (depth[0] < 3)
    assert both.float().mean() > 0.3
    assert (drawn - depth[0])[both].abs().median() < 0.03
