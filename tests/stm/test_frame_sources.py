"""Frames of folders and of video files are the same ones, by number."""

import cv2
import numpy as np
import pytest
from PIL import Image

from oneformer3d.stm.clips import ClipFolder, ClipSettings
from oneformer3d.stm.frame_sources import open_frames

GREYS = np.arange(12) * 20  # each frame has its own grey


def write_video(path, fps=8.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps, (64, 48))
    assert writer.isOpened()
    for grey in GREYS:
        image = np.full((48, 64, 3), grey, dtype=np.uint8)
        image[:, :32, 2] = 200  # OpenCV's third channel is red
        writer.write(image)
    writer.release()


def test_a_video_file_gives_the_asked_frames_in_colours_of_their_own(tmp_path):
    write_video(tmp_path / 'film.mp4')
    source = open_frames(tmp_path, 'film')
    assert (len(source), source.fps) == (12, 8.0)
    frames = source.read([2, 5, 5, 11], (32, 32))
    assert frames.shape == (4, 32, 32, 3)
    # lossy, so within a few greys
    np.testing.assert_allclose(frames[:, 16, 28].mean(-1), GREYS[[2, 5, 5, 11]], atol=6)
    np.testing.assert_allclose(frames[:, 16, 4, 0], 200, atol=12)
    np.testing.assert_allclose(frames[:, 16, 4, 1], GREYS[[2, 5, 5, 11]], atol=12)
    assert np.array_equal(source.read([5], (32, 32))[0], frames[1])


def test_seconds_count_by_the_videos_own_clock(tmp_path):
    write_video(tmp_path / 'film.mp4', fps=8.0)
    (tmp_path / 'a.csv').write_text('film,1.0,0.1,0.1,0.9,0.9,1,0\n')
    settings = ClipSettings(3, 2, (32, 32), fps=30.0, num_actions=1)
    clip, tubes = ClipFolder(tmp_path, tmp_path / 'a.csv', settings).read(0)
    expected = GREYS[[6, 8, 10]] / 255  # the eighth frame and two before and after
    np.testing.assert_allclose(clip[:, :, 16, 28].mean(0), expected, atol=0.03)
    assert tubes.boxes.shape == (1, 1, 4)


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / 'film.mp4').write_bytes(b'no film at all')
    with pytest.raises(ValueError, match=r'film.mp4: not readable as a video'):
        open_frames(tmp_path, 'film')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match=r'empty: holds no frames'):
        open_frames(tmp_path, 'empty')
    with pytest.raises(FileNotFoundError, match='no folder of frames, nor a file'):
        open_frames(tmp_path, 'absent')
    (tmp_path / 'both').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'both' / '0.jpg')
    assert len(open_frames(tmp_path, 'both')) == 1
