"""tools/benchmarks/stream.py scores a right stream as right, and ESAM's rule joins as described."""

import argparse
import json

import numpy as np

from oneformer3d.data.scan import read_scan
from oneformer3d.data.upright import rotation_to_z_up
from oneformer3d.streaming.records import FrameInstances
from tests.helpers.load_tool import load_tool
from tests.helpers.stream_rooms import objects_of, room_frames, write_color_model, write_room
from tools.benchmarks._esam import EsamMerge

benchmark = load_tool('benchmarks/stream')


def test_a_room_whose_masks_are_right(tmp_path, capsys):
    frames = write_room(tmp_path / 'frames', room_frames())
    config, weights = write_color_model(tmp_path)
    scan = read_scan(frames)
    points = scan.require_points()
    labels = tmp_path / 'labels'
    labels.mkdir()
    xyz = points[:, :3] @ rotation_to_z_up(scan.up).T
    thing = objects_of(points)
    instance, semantic = thing - 1, np.where(thing > 0, 0, 1)
    np.savez(labels / 'cloud.npz', xyz=xyz, rgb=points[:, 3:], semantic=semantic, instance=instance)
    (labels / 'classes.json').write_text(json.dumps({'classes': ['thing', 'wall']}))

    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    words = [str(frames), str(labels), '--config', str(config), '--checkpoint', str(weights)]
    report = benchmark.run(parser.parse_args(words))
    assert report['num_frames'] == 15
    assert report['stream']['frames'] == [5, 10, 15]
    assert report['stream']['final_ap50'] > 0.5
    assert report['offline']['final_ap50'] > 0.5
    assert 'offline' in capsys.readouterr().out


def instances(*boxes: tuple[int, int], feature: float = 1.0) -> FrameInstances:
    voxels = tuple(np.array([[x, 0, 0] for x in range(*box)]) for box in boxes)
    num = len(boxes)
    feats = np.tile([[feature, 1.0]], (num, 1)).astype(np.float32)
    logits = np.zeros((num, 2), np.float32)
    visible = np.concatenate(voxels)
    return FrameInstances(voxels, np.ones(num, np.float32), logits, feats, visible)


def test_esams_rule_joins_what_overlaps_however_little():
    merge = EsamMerge()
    np.testing.assert_array_equal(merge.update(instances((0, 10), (20, 30))), [0, 1])
    # one voxel of nineteen, and looks that say another: no threshold keeps them apart
    np.testing.assert_array_equal(merge.update(instances((29, 39), feature=-0.9)), [1])
    # both ends of one object do not overlap: two tracks
    np.testing.assert_array_equal(merge.update(instances((10, 14))), [2])
    np.testing.assert_array_equal(merge.owners_of(np.array([[0, 0, 0], [35, 0, 0]])), [0, 1])
