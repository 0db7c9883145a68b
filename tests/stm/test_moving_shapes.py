"""Moving shapes: what lies in the files is what the annotations say, and time tells the moves."""

import numpy as np
import pytest
import torch

from oneformer3d.stm.clips import ClipFolder, ClipSettings
from oneformer3d.stm.moving_shapes import FPS, MOVES, SHAPES, draw_shapes, write_moving_shapes

SETTINGS = ClipSettings(num_frames=4, frame_step=1, image_size=(64, 64), fps=FPS, num_actions=7)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes')
    write_moving_shapes(folder, 12, 6, seed=3)
    return folder


def folder_of(root, split):
    return ClipFolder(root / 'frames', root / f'{split}.csv', SETTINGS)


def test_bright_pixels_of_the_key_frame_lie_in_the_boxes(root):
    clips = folder_of(root, 'train')
    assert len(clips) == 12
    for index in range(len(clips)):
        clip, tubes = clips.read(index)
        bright = (clip[:, 2].mean(0) > 0.55).nonzero()
        inside = torch.zeros(len(bright), dtype=torch.bool)
        for left, top, right, bottom in tubes.boxes[:, 0]:
            x, y = bright[:, 1] + 0.5, bright[:, 0] + 0.5
            inside |= (x > left) & (x < right) & (y > top) & (y < bottom)
        assert len(bright) > 40
        assert inside.float().mean() > 0.99
        assert (tubes.actions[:, : len(MOVES)].sum(1) == 1).all()
        assert (tubes.actions[:, len(MOVES) :].sum(1) == 1).all()


def test_shapes_move_as_their_action_says_and_stay_inside():
    steps, found = {'right': (4, 0), 'left': (-4, 0), 'down': (0, 4), 'up': (0, -4)}, set()
    for seed in range(40):
        for shape in draw_shapes(np.random.default_rng(seed)):
            expected = steps.get(MOVES[shape.move], (0, 0))
            np.testing.assert_allclose(np.diff(shape.boxes, axis=0), [expected * 2] * 3, atol=1e-9)
            assert shape.boxes.min() >= 0
            assert shape.boxes.max() <= 64
            found.add((shape.move, shape.shape))
    assert len(found) == len(MOVES) * len(SHAPES)


def test_backwards_what_went_right_goes_left(root):
    forwards, backwards = folder_of(root, 'val'), folder_of(root, 'reversed')
    swapped = [1, 0, 3, 2, 4, 5, 6]
    for index in range(len(forwards)):
        clip, tubes = forwards.read(index)
        again, mirrored = backwards.read(index)
        torch.testing.assert_close(again, clip.flip(1))
        assert torch.equal(mirrored.actions, tubes.actions[:, swapped])


def test_a_seed_gives_the_same_files(root, tmp_path):
    write_moving_shapes(tmp_path, 12, 6, seed=3)
    for path in ('val.csv', 'frames/train00003/00002.png'):
        assert (tmp_path / path).read_bytes() == (root / path).read_bytes()
