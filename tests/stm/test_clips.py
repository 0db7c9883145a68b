"""Clips from folders of frames: what is read, what is refused, and a training that resumes."""

import numpy as np
import pytest
import torch

from oneformer3d.stm.clip_detector import ClipDetector
from oneformer3d.stm.clip_training import (
    CHECKPOINT_NAME,
    ClipTraining,
    clip_indices,
    detect_clips,
    read_detector,
    train_clip_detector,
)
from oneformer3d.stm.clips import ClipFolder, ClipSettings, frame_numbers, read_key_frames
from tests.helpers.clip_folders import FPS, write_clip_folder

SETTINGS = ClipSettings(num_frames=4, frame_step=1, image_size=(64, 64), fps=FPS, num_actions=3)
SMALL = dict(num_stages=1, num_queries=4, spatial_points=4)


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    return ClipFolder(*write_clip_folder(tmp_path_factory.mktemp('clips')), SETTINGS)


def new_detector():
    torch.manual_seed(0)
    return ClipDetector('timm/mobilenetv3_small_050', None, 16, 4, 3, **SMALL)


def test_boxes_lie_on_the_square_and_rows_of_a_person_are_one(clips):
    assert len(clips) == 6
    for index in range(len(clips)):
        clip, tubes = clips.read(index)
        assert clip.shape == (3, 4, 64, 64)
        assert len(tubes.boxes) == 1
        left, top, right, bottom = tubes.boxes[0, 0].round().int().tolist()
        middle = clip[:, 2]  # the key frame of four
        assert middle[:, top:bottom, left:right].min() > 0.85
        assert int((middle[0] > 0.5).sum()) == (bottom - top) * (right - left)
        assert tubes.actions[0, 2] == 1
        assert tubes.actions[0, :2].sum() == 1


def test_times_become_frames_held_at_the_ends():
    settings = ClipSettings(num_frames=4, frame_step=16, fps=30.0, start_second=900.0)
    assert frame_numbers(902.0, 27_000, settings) == [28, 44, 60, 76]
    assert frame_numbers(900.0, 27_000, settings) == [0, 0, 0, 16]
    assert frame_numbers(999_999.0, 100, settings) == [99] * 4


def test_a_key_frame_of_nobody_is_one(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_text('v,1,,,,,,\nv,2,0.1,0.2,0.3,0.4,2,7\n')
    empty, one = read_key_frames(path, 3)
    assert empty.boxes.shape == (0, 4)
    assert empty.actions.shape == (0, 3)
    assert one.actions.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(
    ('row', 'fault'),
    [
        ('v,1,0.5,0.2,0.3,0.4,2,7', 'is not left, top, right, bottom'),
        ('v,1,0.1,0.2,0.3,1.4,2,7', 'in shares of the image'),
        ('v,1,0.1,0.2,0.3,0.4,4,7', 'is not one of 1 … 3'),
        ('v,one,0.1,0.2,0.3,0.4,2,7', 'could not convert'),
        ('v,nan,0.1,0.2,0.3,0.4,2,7', 'is not finite'),
        ('../v,1,0.1,0.2,0.3,0.4,2,7', 'expected video, second'),
    ],
)
def test_rows_that_cannot_be_are_named(tmp_path, row, fault):
    path = tmp_path / 'a.csv'
    path.write_text(f'v,0,0.1,0.2,0.3,0.4,1,7\n{row}\n')
    with pytest.raises(ValueError, match=f'line 2: .*{fault}'):
        read_key_frames(path, 3)


def test_missing_folders_and_sizes_that_strides_do_not_divide(tmp_path):
    (tmp_path / 'a.csv').write_text('v,1,0.1,0.2,0.3,0.4,2,7\n')
    with pytest.raises(FileNotFoundError, match='no folder of frames, nor a file'):
        ClipFolder(tmp_path, tmp_path / 'a.csv', SETTINGS)
    (tmp_path / 'v').mkdir()
    with pytest.raises(ValueError, match='holds no frames'):
        ClipFolder(tmp_path, tmp_path / 'a.csv', SETTINGS)
    with pytest.raises(ValueError, match='multiples of 32'):
        ClipSettings(image_size=(100, 100))


def test_every_key_frame_comes_once_a_lap():
    training = ClipTraining(batch_size=4)
    drawn = [i for step in range(5) for i in clip_indices(step, 10, training)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]


def test_a_training_resumes_exactly(clips, tmp_path, monkeypatch):
    training = ClipTraining(steps=6, batch_size=2, learning_rate=1e-3)
    whole, losses = new_detector(), []
    train_clip_detector(
        whole, clips, training, tmp_path / 'whole', on_step=lambda step, loss: losses.append(loss)
    )
    assert len(losses) == 6

    class Stop(Exception):
        pass

    def stop(step, loss):
        if step == 4:
            raise Stop

    # the file of an earlier moment: what a minute's checkpoint would be
    broken = new_detector()
    monkeypatch.setattr('oneformer3d.stm.clip_training._SAVE_SECONDS', 0.0)
    with pytest.raises(Stop):
        train_clip_detector(broken, clips, training, tmp_path / 'part', on_step=stop)
    resumed, again = new_detector(), []
    train_clip_detector(
        resumed, clips, training, tmp_path / 'part', on_step=lambda step, loss: again.append(step)
    )
    assert again == [5, 6]
    for (name, value), other in zip(
        whole.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name

    found = detect_clips(resumed, clips, 4)
    assert len(found) == len(clips)
    for boxes, actions in found:
        assert boxes.shape[1] == 4
        assert actions.shape == (len(boxes), 3)
        assert np.isfinite(boxes).all()
    with pytest.raises(ValueError, match='another training: steps was 6, now 7'):
        train_clip_detector(new_detector(), clips, ClipTraining(7, 2, 1e-3), tmp_path / 'part')
    other = ClipDetector('timm/mobilenetv3_small_050', None, 8, 4, 3, **SMALL)
    with pytest.raises(ValueError, match='is of another detector'):
        read_detector(tmp_path / 'part' / CHECKPOINT_NAME, other)


def test_patches_see_each_frame_by_itself(tmp_path):
    detector = ClipDetector('patches', None, 16, 4, 3, **SMALL).eval()
    clips = torch.rand(2, 3, 4, 64, 64)
    with torch.no_grad():
        maps = detector.backbone(clips)
        assert [tuple(x.shape) for x in maps] == [(2, 16, 4, s, s) for s in (16, 8, 4)]
        alone = detector.backbone(clips[:1, :, 2:3])
        torch.testing.assert_close(maps[2][:1, :, 2:3], alone[2])
    with pytest.raises(ValueError, match='has no weights to read'):
        ClipDetector('patches', tmp_path / 'weights.pth')


def test_a_video_backbone_reads_time_itself(tmp_path):
    detector = ClipDetector('r3d_18', None, 16, 4, 3, **SMALL).eval()
    clips = torch.rand(1, 3, 8, 64, 64)
    with torch.no_grad():
        maps = detector.backbone(clips)
        assert [tuple(x.shape[2:]) for x in maps] == [(4, 16, 16), (2, 8, 8), (1, 4, 4)]
        assert detector(clips)[-1].action_logits.shape == (1, 4, 3)
        backwards = detector(clips.flip(2))[-1].action_logits
        assert not torch.allclose(detector(clips)[-1].action_logits, backwards)

    # published weights have a classifier, which is left out
    state = {**detector.backbone.net.state_dict(), 'fc.weight': torch.ones(400, 512)}
    torch.save(state, tmp_path / 'r3d.pth')
    twin = ClipDetector('r3d_18', tmp_path / 'r3d.pth', 16, 4, 3, **SMALL)
    first = next(iter(twin.backbone.net.parameters()))
    assert torch.equal(first, next(iter(detector.backbone.net.parameters())))
    torch.save({'stem.weight': torch.ones(2)}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='not weights of r3d_18'):
        ClipDetector('r3d_18', tmp_path / 'other.pth', 16, 4, 3, **SMALL)
