"""Frames read in a wrong convention or unit are doubted by name, sound ones are not."""

import numpy as np
import pytest
from PIL import Image

from oneformer3d.data.layouts import find_layout
from oneformer3d.data.layouts.pixels import read_depth
from tests.helpers.rgbd_scenes import (
    ROOM,
    SIZE,
    WALL_COLORS,
    K,
    View,
    render_views,
    write_exported_scannet,
    write_posed_images,
)

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def _moving(num_views=12):
    """The camera also moves, so that depth and motion have to fit together."""
    turned = render_views(num_views * 3)[:num_views]
    rng = np.random.default_rng(3)
    views = []
    for index, view in enumerate(turned):
        moved = np.array([0.9 * np.sin(index / 4), 0.06 * index - 0.3, 0])
        centre = ROOM / 2 + moved + rng.normal(0, 0.02, 3)
        views.append(_rendered_at(view.world_from_cam[:3, :3], centre))
    return views


def _rendered_at(rotation, centre):
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    rays = np.stack((u, v, np.ones_like(u)), -1) @ np.linalg.inv(K).T @ rotation.T
    with np.errstate(divide='ignore'):
        distances = np.where(rays > 0, (ROOM - centre) / rays, -centre / rays)  # (H, W, 3)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, centre
    colors = WALL_COLORS[distances.argmin(-1)].astype(np.uint8)
    return View(pose, colors, np.round(distances.min(-1) * 1000).astype(np.uint16))


def _doubts(folder, **options):
    return [w for w in find_layout(folder, **options).warnings if 'doubtful' in w]


def test_sound_frames_are_not_doubted(tmp_path, real_frames):
    assert _doubts(write_posed_images(tmp_path / 'a', _moving())) == []
    assert _doubts(real_frames) == []


@pytest.mark.parametrize(
    ('change', 'option', 'stated'),
    [
        (lambda v: View(v.world_from_cam, v.color, v.depth * 5), '--depth-scale 5000', 5000),
        (lambda v: View(v.world_from_cam @ FLIP, v.color, v.depth), '--convention opengl', None),
        (
            lambda v: View(np.linalg.inv(v.world_from_cam), v.color, v.depth),
            '--convention opencv-w2c',
            None,
        ),
    ],
)
def test_wrong_reading_is_named_and_what_is_stated_wins(tmp_path, change, option, stated):
    views = _moving()
    folder = write_posed_images(tmp_path / 'room', [change(view) for view in views])
    (doubt,) = _doubts(folder)
    assert option in doubt
    value = option.split()[1]
    options = {'depth_scale': stated} if stated else {'convention': value}
    found = find_layout(folder, **options)
    assert not [w for w in found.warnings if 'doubtful' in w]
    poses = [frame.world_from_cam for frame in found.frames]
    np.testing.assert_allclose(poses, [view.world_from_cam for view in views], atol=1e-6)


def test_one_k_for_two_sizes_and_k_of_another_size(tmp_path):
    folder = write_exported_scannet(tmp_path / 'a', render_views(3))
    (folder / 'intrinsic' / 'intrinsic_depth.txt').unlink()
    for frame in find_layout(folder).frames:  # depth is half as large as colour
        np.testing.assert_allclose(frame.depth_intrinsics, K, atol=1e-9)

    # K of depth alone: colour's is twice as large
    other = write_exported_scannet(tmp_path / 'b', render_views(3))
    expected = find_layout(other).frames[0].K
    (other / 'intrinsic' / 'intrinsic_color.txt').unlink()
    np.testing.assert_allclose(find_layout(other).frames[0].K, expected, atol=1e-9)

    # K of the full photograph beside a thumbnail: unmistakable, so converted and said
    large = write_posed_images(tmp_path / 'c', render_views(3))
    four = np.array([[4.0, 0, 1.5], [0, 4, 1.5], [0, 0, 1]])
    np.savetxt(large / 'intrinsic.txt', four @ K)
    found = find_layout(large)
    np.testing.assert_allclose(found.frames[0].K, K, atol=1e-9)
    assert any('belong to images of 256×192 pixels' in warning for warning in found.warnings)


@pytest.mark.parametrize('suffix', ['.TIFF', '.tif', '.npy', '.png', '.PNG'])
def test_depth_of_any_kind_of_file(tmp_path, suffix):
    """Metres as floats, with nan and inf where depth is missing; millimetres as integers."""
    views = render_views(2)
    folder = write_exported_scannet(tmp_path / 'a', views)
    for index, view in enumerate(views):
        (folder / 'depth' / f'{index}.png').unlink()
        path = folder / 'depth' / f'{index}{suffix}'
        metres = view.depth.astype(np.float32) / 1000
        metres[0], metres[1] = np.nan, np.inf
        metres[2] = -1
        if suffix == '.npy':
            np.save(path, metres)
        elif suffix.lower() == '.png':
            values = np.where(metres > 0, view.depth, 0).astype(np.uint16)
            values[:3] = 0
            Image.fromarray(values).save(path, format='PNG')
        else:
            Image.fromarray(metres).save(path, format='TIFF')
    for frame, view in zip(find_layout(folder).frames, views):
        depth = read_depth(frame)
        assert (depth[:3] == 0).all()
        np.testing.assert_allclose(depth[3:], view.depth[3:] / 1000, atol=1e-6)


def test_frames_named_by_time_are_in_the_order_of_time(tmp_path):
    folder = write_exported_scannet(tmp_path / 'a', render_views(4))
    stamps = ['9.5', '9.25', '10.000001', '1305031102.160407']
    for index, stamp in enumerate(stamps):
        for inner, suffix in (('color', '.jpg'), ('depth', '.png'), ('pose', '.txt')):
            (folder / inner / f'{index}{suffix}').rename(folder / inner / f'{stamp}{suffix}')
    names = [frame.name for frame in find_layout(folder).frames]
    assert names == ['9.25', '9.5', '10.000001', '1305031102.160407']


def test_poses_in_millimetres_are_doubted_by_name(tmp_path):
    in_millimetres = np.diag([1000.0, 1000, 1000, 1])
    views = [
        View(in_millimetres @ v.world_from_cam @ np.diag([1e-3, 1e-3, 1e-3, 1]), v.color, v.depth)
        for v in _moving()
    ]
    (doubt,) = _doubts(write_posed_images(tmp_path / 'room', views))
    assert 'translations of the poses in millimetres' in doubt


def test_principal_point_of_a_turned_image_is_doubted(tmp_path):
    folder = write_posed_images(tmp_path / 'room', render_views(3))
    turned = K.copy()
    turned[0, 2], turned[1, 2] = K[1, 2], K[0, 2]
    np.savetxt(folder / 'intrinsic.txt', turned)
    assert any('turned by 90°' in doubt for doubt in _doubts(folder))
