"""tools/stm_clips.py: from folders of frames and CSV files to a detector and its frame-mAP."""

import json

import pytest

from tests.helpers.clip_folders import write_clip_folder
from tests.helpers.load_tool import load_tool

SMALL = [
    '--set', 'clips.num_frames=4', 'clips.frame_step=1', 'clips.image_size=[64, 64]', 'clips.fps=4',
    'clips.start_second=0', 'clips.num_actions=3', 'detector.backbone=timm/mobilenetv3_small_050',
    'detector.channels=16', 'detector.num_stages=1', 'detector.num_queries=4',
    'detector.spatial_points=4', 'training.steps=2', 'training.batch_size=2',
]  # fmt: skip


def test_trains_measures_and_measures_again(tmp_path, capsys):
    frames, annotations = write_clip_folder(tmp_path, 2)
    tool, out = load_tool('stm_clips'), tmp_path / 'out'
    common = [str(frames), '--out', str(out), '--val', str(annotations)]
    tool.main([*common, '--train', str(annotations), *SMALL])
    report = json.loads((out / 'report.json').read_text())
    assert report['key_frames'] == 4
    assert set(report['ap']) == {'1', '2', '3'}
    assert 0 <= report['frame_map'] <= 1
    for row in (out / 'detections.csv').read_text().split():
        video, _, *box, action, score = row.split(',')
        assert video in ('video0', 'video1')
        assert 0 <= float(box[0]) <= float(box[2]) <= 1
        assert 1 <= int(action) <= 3
        assert float(score) > 0.01
    assert 'frame-mAP at 0.5' in capsys.readouterr().out

    before = (out / 'detections.csv').read_text()
    (out / 'detections.csv').unlink()
    tool.main([*common, *SMALL])  # the saved detector says the same
    assert (out / 'detections.csv').read_text() == before


def test_wrong_words_are_named(tmp_path):
    tool = load_tool('stm_clips')
    with pytest.raises(ValueError, match='nothing to do'):
        tool.main([str(tmp_path), '--out', str(tmp_path)])
    common = [str(tmp_path), '--out', str(tmp_path), '--val', 'none.csv', '--set']
    with pytest.raises(ValueError, match=r'expected GROUP\.NAME=VALUE'):
        tool.main([*common, 'steps=3'])
    with pytest.raises(ValueError, match='unexpected keyword argument'):
        tool.main([*common, 'training.stepz=3'])
