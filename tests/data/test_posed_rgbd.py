"""Posed RGB-D folders: their frames, poses and cameras, and what is refused."""

import numpy as np
import pytest

from oneformer3d.data.layouts.cameras import read_numbers
from oneformer3d.data.posed_rgbd import load_posed_rgbd
from tests.helpers.rgbd_scenes import (
    K,
    render_views,
    write_exported_scannet,
    write_posed_images,
    write_seven_scenes,
)

WRITERS = (write_seven_scenes, write_exported_scannet, write_posed_images)


@pytest.mark.parametrize('write', WRITERS)
def test_sequence_lists_frames_in_order(tmp_path, write):
    folder = write(tmp_path / 'scene', render_views(12))
    sequence = load_posed_rgbd(folder)
    assert len(sequence.frames) == 12
    expected = np.stack([view.world_from_cam for view in render_views(12)])
    np.testing.assert_allclose([f.world_from_cam for f in sequence.frames], expected, atol=1e-12)
    np.testing.assert_allclose(sequence.depth_intrinsics, K)
    every_fifth = load_posed_rgbd(folder, frame_step=5)
    assert [f.name for f in every_fifth.frames] == [f.name for f in sequence.frames[::5]]


NUMBERS = {
    'a byte order mark': lambda text: b'\xef\xbb\xbf' + text.encode(),
    'UTF-16': lambda text: text.encode('utf-16'),
    'line ends of Windows': lambda text: text.replace('\n', '\r\n').encode(),
    'decimal commas': lambda text: text.replace('.', ',').encode(),
    'decimal commas and semicolons': lambda text: text.replace('.', ',').replace(' ', ';').encode(),
    'commas between': lambda text: text.replace(' ', ', ').encode(),
    'a remark': lambda text: (text.rstrip() + ' # by hand\n// twice\n% and again\n').encode(),
    'brackets': lambda text: f'[[{"],[".join(text.replace(" ", ",").split())}]]'.encode(),
}


@pytest.mark.parametrize('name', NUMBERS)
def test_numbers_as_people_write_them(tmp_path, name):
    views = render_views(2)
    folder = write_exported_scannet(tmp_path / 'Büro 房间 1', views)
    files = (*(folder / 'pose').iterdir(), folder / 'intrinsic' / 'intrinsic_depth.txt')
    for path in files:
        path.write_bytes(NUMBERS[name](path.read_text()))
    sequence = load_posed_rgbd(folder)
    expected = [view.world_from_cam for view in views]
    np.testing.assert_allclose([f.world_from_cam for f in sequence.frames], expected, atol=1e-12)
    np.testing.assert_allclose(sequence.depth_intrinsics, K)


def test_four_numbers_with_commas_stay_four(tmp_path):
    (tmp_path / 'K.txt').write_text('585,585,320,240')
    np.testing.assert_array_equal(read_numbers(tmp_path / 'K.txt'), [[585, 585, 320, 240]])


def test_invalid_poses_are_dropped_and_counted(tmp_path):
    views = render_views(5)
    folder = write_seven_scenes(tmp_path / 'scene', views)
    pose = views[1].world_from_cam.copy()
    pose[:] = -np.inf
    np.savetxt(folder / 'frame-000020.pose.txt', pose)
    np.savetxt(folder / 'frame-000040.pose.txt', np.full((4, 4), np.nan))
    (folder / 'frame-000060.color.jpg').unlink()
    sequence = load_posed_rgbd(folder)
    assert [frame.name for frame in sequence.frames] == ['000000', '000080']
    assert sequence.num_dropped_poses == 2
    assert sequence.num_incomplete == 1


def test_missing_and_broken_input_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        load_posed_rgbd(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='no posed RGB-D frames'):
        load_posed_rgbd(tmp_path)
    folder = write_seven_scenes(tmp_path / 'scene', render_views(2))
    with pytest.raises(ValueError, match='frame_step'):
        load_posed_rgbd(folder, frame_step=0)
    np.savetxt(folder / 'frame-000000.pose.txt', np.eye(3))
    with pytest.raises(ValueError, match=r'frame-000000.pose.txt: expected 4×4'):
        load_posed_rgbd(folder)
    np.savetxt(folder / 'frame-000000.pose.txt', np.full((4, 4), np.nan))
    np.savetxt(folder / 'frame-000020.pose.txt', np.full((4, 4), np.inf))
    with pytest.raises(ValueError, match='no usable frame: 2 frames left out: tracking lost'):
        load_posed_rgbd(folder)
    (folder / 'camera-intrinsics.txt').write_text('a b c')
    with pytest.raises(ValueError, match='not a matrix of numbers'):
        load_posed_rgbd(folder)
    folder = write_posed_images(tmp_path / 'plain', render_views(2))
    (folder / 'intrinsic.txt').unlink()
    with pytest.raises(ValueError, match=r'no intrinsics lie there; state --intrinsics'):
        load_posed_rgbd(folder)


def test_colour_camera_of_7_scenes(real_frames, tmp_path):
    """With the depth intrinsics that 7-Scenes gives, colour gets the camera that was measured."""
    for path in real_frames.glob('frame-*'):
        (tmp_path / path.name).symlink_to(path)
    np.savetxt(tmp_path / 'camera-intrinsics.txt', [[585, 0, 320], [0, 585, 240], [0, 0, 1]])
    sequence = load_posed_rgbd(tmp_path)
    assert sequence.color_intrinsics[0, 0] < sequence.depth_intrinsics[0, 0] == 585
