"""The files of a result: read back, they say what the result says."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneformer3d.files.ply import read_ply
from oneformer3d.inference.files import FILES, save_segmentation


def small_result() -> dict:
    """Six points, two overlapping instances."""
    points = np.random.default_rng(0).random((9, 6)).astype(np.float32) * 5
    instance_points = [np.array([0, 1, 2]), np.array([2, 3])]
    return {
        'points': points,
        'upright': points[:, :3],
        'semantic': np.array([2, 2, 2, 3, 0, 0, 1, 1, 1]),
        'panoptic_semantic': np.array([2, 2, 2, 3, 0, 0, 1, 1, 0]),
        'panoptic': np.array([4, 4, 4, 5, 0, 0, 1, 1, 0]),
        'instance': np.array([0, 0, 0, 1, -1, -1, -1, -1, -1]),
        'instance_points': instance_points,
        'instance_classes': np.array([2, 3]),
        'instance_scores': np.array([0.9, 0.4], np.float32),
        'class_names': ('wall', 'floor', 'table', 'chair'),
        'palette': np.arange(12, dtype=np.uint8).reshape(4, 3),
        'info': {'num_points': 9, 'num_tiles': 1, 'score_thr': 0.3, 'seconds': {'read': 0.1}},
    }


def test_everything_reads_back(tmp_path: Path) -> None:
    result = small_result()
    save_segmentation(tmp_path, result, 'room.ply', {'config': 'c.py'}, size=(48, 64))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(FILES)

    points, colors, labels = read_ply(tmp_path / 'segmentation.ply')
    np.testing.assert_array_equal(points, result['points'][:, :3])
    np.testing.assert_array_equal(colors, result['palette'][result['semantic']])
    for key in ('semantic', 'instance', 'panoptic'):
        np.testing.assert_array_equal(labels[key], result[key])

    arrays = np.load(tmp_path / 'predictions.npz', allow_pickle=False)
    masks = np.unpackbits(arrays['instance_masks'], axis=1, count=9).astype(bool)
    for mask, members in zip(masks, result['instance_points'], strict=True):
        np.testing.assert_array_equal(np.flatnonzero(mask), members)
    for key in ('points', 'semantic', 'panoptic_semantic', 'panoptic', 'instance'):
        np.testing.assert_array_equal(arrays[key], result[key])
    assert arrays['class_names'].tolist() == list(result['class_names'])

    for name in ('segmentation.png', 'top.png'):
        assert Image.open(tmp_path / name).size[0] == 4 * 64


def test_summary(tmp_path: Path) -> None:
    result = small_result()
    save_segmentation(tmp_path, result, 'room.ply', {'config': 'c.py'}, size=(48, 64))
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['input'] == 'room.ply'
    assert summary['points_per_class'] == {'table': 3, 'floor': 3, 'wall': 2, 'chair': 1}
    assert summary['num_instances'] == 2
    first = summary['instances'][0]
    assert (first['class'], first['num_points']) == ('table', 3)
    assert first['score'] == pytest.approx(0.9)
    members = result['points'][:3, :3]
    np.testing.assert_allclose(first['box_min'], members.min(0), atol=1e-3)
    np.testing.assert_allclose(first['size'], np.ptp(members, axis=0), atol=2e-3)
    assert summary['seconds'] == {'read': 0.1}


def test_no_instances(tmp_path: Path) -> None:
    result = small_result() | {
        'instance_points': [],
        'instance_classes': np.zeros(0, int),
        'instance_scores': np.zeros(0, np.float32),
    }
    assert save_segmentation(tmp_path, result, size=(48, 64))['num_instances'] == 0
    assert np.load(tmp_path / 'predictions.npz')['instance_masks'].shape == (0, 2)


def test_failure_leaves_nothing_half_written_and_no_summary(tmp_path: Path, monkeypatch) -> None:
    save_segmentation(tmp_path, small_result(), size=(48, 64))

    def fail(*args, **kwargs):
        raise OSError('no space left on device')

    monkeypatch.setattr('numpy.savez_compressed', fail)
    with pytest.raises(OSError, match='no space'):
        save_segmentation(tmp_path, small_result(), size=(48, 64))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(set(FILES) - {'summary.json'})
    np.load(tmp_path / 'predictions.npz')['points']
