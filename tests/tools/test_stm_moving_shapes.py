"""Moving shapes: clips are what their tubes say, and the decoder learns boxes and actions."""

import json

import pytest
import torch

from tests.helpers.load_tool import load_tool

TOOL = load_tool('stm_moving_shapes')


def test_bright_pixels_lie_in_the_boxes():
    settings = TOOL.ClipSettings(per_frame_boxes=True)
    clips, tubes = TOOL.make_clips(20, torch.Generator().manual_seed(0), settings)
    assert clips.shape == (20, 3, 4, 64, 64)
    for clip, target in zip(clips, tubes):
        for t in range(4):
            bright = (clip[:, t].mean(0) > 0.55).nonzero()
            inside = torch.zeros(len(bright), dtype=torch.bool)
            for left, top, right, bottom in target.boxes[:, t]:
                x, y = bright[:, 1] + 0.5, bright[:, 0] + 0.5
                inside |= (x > left) & (x < right) & (y > top) & (y < bottom)
            assert len(bright) > 50
            assert inside.float().mean() > 0.99


def test_boxes_move_as_the_action_says():
    settings = TOOL.ClipSettings(per_frame_boxes=True, step=3.0)
    _, tubes = TOOL.make_clips(30, torch.Generator().manual_seed(1), settings)
    found = set()
    for target in tubes:
        for boxes, action in zip(target.boxes, target.actions.argmax(1).tolist()):
            step = boxes.diff(dim=0)
            expected = 3.0 * torch.tensor(TOOL.DIRECTIONS[action] * 2, dtype=torch.float32)
            torch.testing.assert_close(step, expected.expand(3, 4), rtol=0, atol=1e-4)
            found.add(action)
    assert found == set(range(len(TOOL.ACTIONS)))


def test_the_shared_box_is_the_middle_one():
    settings = TOOL.ClipSettings(num_frames=5)
    every = TOOL.ClipSettings(num_frames=5, per_frame_boxes=True)
    _, shared = TOOL.make_clips(5, torch.Generator().manual_seed(2), settings)
    _, frames = TOOL.make_clips(5, torch.Generator().manual_seed(2), every)
    for one, all_ in zip(shared, frames):
        torch.testing.assert_close(one.boxes[:, 0], all_.boxes[:, 2])


def test_the_loss_falls():
    settings = TOOL.ClipSettings(image_size=(32, 32), max_shapes=1, side=(8, 12), step=2.0)
    net = TOOL.ClipNet(settings, channels=16, num_queries=2, spatial_points=8)
    losses = TOOL.train_clip_net(net, 40, batch_size=8)
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


@pytest.mark.slow
def test_learns_boxes_and_actions_and_reads_time_forwards():
    settings = TOOL.ClipSettings(max_shapes=1)
    net = TOOL.ClipNet(settings, num_queries=3)
    clips, tubes = TOOL.make_clips(96, torch.Generator().manual_seed(999), settings)
    before = TOOL.measure_clip_net(net, clips, tubes)
    losses = TOOL.train_clip_net(net, 200)
    after = TOOL.measure_clip_net(net, clips, tubes)
    assert sum(losses[-20:]) < 0.75 * sum(losses[:20])
    assert before['action'] < 0.45
    assert after['action'] > 0.65
    assert after['iou'] > max(0.6, before['iou'] + 0.2)
    # Backwards, what went right goes left: the answers of before are wrong for all that move.
    backwards = TOOL.measure_clip_net(net, clips.flip(2), tubes)
    assert backwards['action'] < 0.45


def test_writes_what_it_measured(tmp_path, capsys):
    out = tmp_path / 'numbers.json'
    arguments = ['--steps', '3', '--batch-size', '2', '--test-clips', '4', '--out', str(out)]
    TOOL.main(arguments)
    numbers = json.loads(out.read_text())
    for when in ('before', 'after', 'reversed'):
        assert set(numbers[when]) == {'action', 'shape', 'iou'}
        assert all(0 <= value <= 1 for value in numbers[when].values())
    assert 'right actions' in capsys.readouterr().out


def test_numbers_below_one_are_refused():
    with pytest.raises(ValueError, match='--max-shapes must be at least 1'):
        TOOL.main(['--max-shapes', '0'])
