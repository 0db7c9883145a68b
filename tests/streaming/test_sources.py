"""Frames of a folder, of one that grows, and of a clock that does not wait."""

import threading
import time
from pathlib import Path

import numpy as np

from oneformer3d.data.posed_rgbd import load_posed_rgbd
from oneformer3d.streaming.sources import follow, newest_first, number_of_name, read_frame
from tests.helpers.rgbd_scenes import K, render_views, write_exported_scannet, write_seven_scenes


def test_frames_of_any_layout_hold_what_was_written(tmp_path):
    views = render_views(2)
    for write in (write_seven_scenes, write_exported_scannet):
        folder = write(tmp_path / write.__name__, views)
        listed = load_posed_rgbd(folder).frames
        for view, frame in zip(views, map(read_frame, listed)):
            assert frame is not None
            np.testing.assert_allclose(frame.depth[1:], view.depth[1:] / 1000, atol=1e-6)
            np.testing.assert_allclose(frame.depth_intrinsics, K, atol=1e-6)
            np.testing.assert_allclose(frame.world_from_cam, view.world_from_cam, atol=1e-6)


def test_a_broken_image_is_none_and_a_warning(tmp_path, caplog):
    folder = write_seven_scenes(tmp_path / 'scan', render_views(2))
    path = next(folder.glob('*.depth.png'))
    path.write_bytes(path.read_bytes()[:50])
    read = [read_frame(frame) for frame in load_posed_rgbd(folder).frames]
    assert [frame is None for frame in read] == [True, False]


def test_frames_keep_their_numbers_when_others_come():
    assert number_of_name('a') == number_of_name('a') >= 0
    assert len({number_of_name(f'{k:06d}') for k in range(10_000)}) == 10_000


def test_a_folder_that_grows_is_followed(tmp_path):
    views = render_views(4)
    folder = write_seven_scenes(tmp_path / 'scan', views[:2])
    names = []

    def scanner() -> None:
        time.sleep(0.5)
        whole = write_seven_scenes(tmp_path / 'whole', views)
        for kind in ('color.jpg', 'depth.png', 'pose.txt'):  # the pose comes last
            for k in (2, 3):
                name = f'frame-{20 * k:06d}.{kind}'
                Path(whole / name).rename(folder / name)

    thread = threading.Thread(target=scanner)
    thread.start()
    for frame in follow(folder, idle=3.0, pause=0.1):
        names.append(frame.name)
    thread.join()
    assert len(names) == len(set(names)) == 4


def test_a_slow_consumer_gets_the_newest_and_the_lost_are_counted():
    now = [0.0]
    taken = []

    def wait(seconds: float) -> None:
        assert seconds > 0
        now[0] += seconds

    for item, lost in newest_first(range(20), 10.0, clock=lambda: now[0], wait=wait):
        taken.append((item, lost))
        now[0] += 0.35  # seconds per item; three come meanwhile
    assert [item for item, _ in taken] == [0, 3, 7, 10, 14, 17, 19]
    assert sum(lost + 1 for _, lost in taken) == 20


def test_a_fast_consumer_gets_all():
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    frames = list(newest_first(range(5), 10.0, clock=lambda: now[0], wait=wait))
    assert frames == [(k, 0) for k in range(5)]
    assert np.isclose(now[0], 0.4)
