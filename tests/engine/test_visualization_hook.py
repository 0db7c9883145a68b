"""The hook writes a picture and a cloud for each tested scene."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample, PointData
from mmengine.visualization import Visualizer
from PIL import Image

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.engine.visualization_hook import SegVisualizationHook
from oneformer3d.files.ply import read_ply
from oneformer3d.registry import HOOKS

NUM_POINTS = 300


@pytest.fixture
def scene(tmp_path: Path) -> tuple[np.ndarray, Det3DDataSample]:
    """Points on disk, and a sample with prediction and ground truth as the model leaves it."""
    rng = np.random.default_rng(0)
    points = (rng.random((NUM_POINTS, 6)) * [3, 3, 2, 255, 255, 255]).astype(np.float32)
    points.tofile(tmp_path / 'scene0001_00.bin')
    semantic = torch.from_numpy(rng.integers(0, 20, NUM_POINTS))
    masks = torch.zeros(2, NUM_POINTS, dtype=torch.bool)
    masks[0, :50], masks[1, 100:150] = True, True
    metainfo = {'scene_id': 'scene0001_00', 'lidar_path': str(tmp_path / 'scene0001_00.bin')}
    sample = Det3DDataSample(metainfo=metainfo)
    sample.pred_pts_seg = PointData(
        pts_semantic_mask=[semantic, semantic],
        pts_instance_mask=[masks, semantic + 1],
        instance_labels=torch.tensor([3, 4]),
        instance_scores=torch.tensor([0.9, 0.1]),
    )
    sample.eval_ann_info = {
        'pts_semantic_mask': rng.integers(0, 21, NUM_POINTS),
        'pts_instance_mask': rng.integers(-1, 5, NUM_POINTS),
    }
    return points, sample


def run(hook: SegVisualizationHook, points: np.ndarray, sample: Det3DDataSample, index: int = 0):
    normalised = points.copy()
    normalised[:, 3:] = (points[:, 3:] - 127.5) / 127.5
    dataset = SimpleNamespace(metainfo={'class_table': 'scannet'})
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset))
    batch = {'inputs': {'points': [torch.from_numpy(normalised)]}, 'data_samples': [sample]}
    hook.after_test_iter(runner, index, batch, [sample])


def test_files_of_a_scene(tmp_path: Path, scene) -> None:
    points, sample = scene
    out = tmp_path / 'out'
    hook = HOOKS.build(
        {'type': 'SegVisualizationHook', 'out_dir': str(out), 'score_thr': 0.3, 'size': (48, 64)}
    )
    run(hook, points, sample)
    assert sorted(p.name for p in out.iterdir()) == ['scene0001_00.ply', 'scene0001_00.png']
    xyz, colors, labels = read_ply(out / 'scene0001_00.ply')
    np.testing.assert_array_equal(xyz, points[:, :3])
    semantic = sample.pred_pts_seg.pts_semantic_mask[0].numpy()
    np.testing.assert_array_equal(labels['semantic'], semantic)
    np.testing.assert_array_equal(colors, get_class_table('scannet').palette[semantic])
    np.testing.assert_array_equal(np.flatnonzero(labels['instance'] == 0), np.arange(50))
    assert labels['instance'].max() == 0  # the other one scores too low
    truth = sample.eval_ann_info['pts_semantic_mask']
    np.testing.assert_array_equal(labels['gt_semantic'], truth)
    image = Image.open(out / 'scene0001_00.png')
    assert image.size[0] == 4 * 64
    assert image.size[1] > 2 * 48


def test_without_ground_truth_or_original_file(tmp_path: Path, scene) -> None:
    points, sample = scene
    del sample.eval_ann_info
    (tmp_path / 'scene0001_00.bin').unlink()
    run(SegVisualizationHook(str(tmp_path / 'out'), size=(48, 64)), points, sample)
    _, _, labels = read_ply(tmp_path / 'out/scene0001_00.ply')
    assert set(labels) == {'semantic', 'instance', 'panoptic'}


def test_interval(tmp_path: Path, scene) -> None:
    hook = SegVisualizationHook(str(tmp_path / 'out'), interval=2, size=(48, 64))
    run(hook, *scene, index=1)
    assert not (tmp_path / 'out').exists()
    with pytest.raises(ValueError, match='interval'):
        SegVisualizationHook('out', interval=0)


def test_scene_names_cannot_lead_elsewhere(tmp_path: Path, scene) -> None:
    points, sample = scene
    sample.set_metainfo({'scene_id': '../../evil'})
    with pytest.raises(ValueError, match='scene name'):
        run(SegVisualizationHook(str(tmp_path / 'out')), points, sample)


def test_pictures_of_an_evaluation_reach_tensorboard_and_files(tmp_path: Path, scene) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points, sample = scene
    backends = [{'type': 'TensorboardVisBackend'}, {'type': 'LocalVisBackend'}]
    visualizer = Visualizer(vis_backends=backends, save_dir=str(tmp_path / 'run'))
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo={'class_table': 'scannet'}))
    runner = SimpleNamespace(val_dataloader=loader, visualizer=visualizer, iter=40)
    hook = HOOKS.build({'type': 'SegVisualizationHook', 'num_val': 1, 'size': (48, 64)})
    batch = {'inputs': {'points': [torch.from_numpy(points)]}, 'data_samples': [sample]}
    for index in range(3):
        hook.after_val_iter(runner, index, batch, [sample])
    visualizer.close()

    (event_file,) = (tmp_path / 'run').rglob('events.out.tfevents.*')
    events = EventAccumulator(str(event_file)).Reload()
    assert events.Tags()['images'] == ['val_scene0001_00']
    (event,) = events.Images('val_scene0001_00')
    (file,) = (tmp_path / 'run').rglob('val_scene0001_00_40.png')
    drawn = hook.draw_scene(points, sample, get_class_table('scannet'))
    for content in (io.BytesIO(event.encoded_image_string), file):
        with Image.open(content) as picture:
            np.testing.assert_array_equal(np.asarray(picture), drawn)
    assert event.step == 40


def test_a_hook_that_would_do_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match='needs out_dir or num_val'):
        SegVisualizationHook()
