"""Loading: scene files to arrays, and one clear line per fault."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.data.samples.loading import (
    LoadSceneAnnotations,
    LoadScenePoints,
    SamplePoints,
    densify,
)
from oneformer3d.data.scene_files import read_labels, read_points


def scene(root: Path, class_table: str = 'scannet', test_mode: bool = False) -> dict:
    return {
        'scene_id': 'scene0000_00',
        'class_table': class_table,
        'test_mode': test_mode,
        'lidar_path': str(root / 'points/scene0000_00.bin'),
        'super_pts_path': str(root / 'super_points/scene0000_00.bin'),
        'pts_semantic_mask_path': str(root / 'semantic_mask/scene0000_00.bin'),
        'pts_instance_mask_path': str(root / 'instance_mask/scene0000_00.bin'),
    }


def load(results: dict, **kwargs: object) -> dict:
    return LoadSceneAnnotations(**kwargs)(LoadScenePoints()(results))


@pytest.mark.parametrize('class_table', ['scannet', 'scannet200', 'synthetic'])
def test_loads_what_was_written(make_scene_tree: Callable, class_table: str) -> None:
    root = make_scene_tree(class_table, num_points=240)
    results = load(scene(root, class_table))
    table = get_class_table(class_table)
    last = table.num_classes - 1
    assert results['points'].dtype == np.float32
    assert results['points'].shape == (240, 6)
    written = np.fromfile(root / 'points/scene0000_00.bin', dtype=np.float32).reshape(240, 6)
    assert np.array_equal(results['points'], written)
    assert np.array_equal(results['augmented_from_original'], np.eye(4))
    # The blocks of the fixture: wall, floor, a class no table knows, and three things.
    block = np.arange(240) // 40
    expected_semantic = np.array([0, 1, last + 1, last - 1, last - 1, last])[block]
    expected_instance = np.array([-1, -1, -1, 0, 1, 2])[block]
    assert np.array_equal(results['pts_semantic_mask'], expected_semantic)
    assert np.array_equal(results['pts_instance_mask'], expected_instance)
    assert np.array_equal(results['sp_pts_mask'], np.arange(240) // 6)
    assert 'eval_ann_info' not in results


def test_s3dis_stuff_keeps_instances(make_scene_tree: Callable) -> None:
    root = make_scene_tree('s3dis', num_points=60)
    results = load(scene(root, 's3dis'), with_superpoints=False)
    block = np.arange(60) // 10
    assert np.array_equal(results['pts_instance_mask'], np.array([0, 1, -1, 2, 3, 4])[block])
    assert 'sp_pts_mask' not in results


def test_eval_annotations_are_copies(make_scene_tree: Callable) -> None:
    results = load(scene(make_scene_tree(), test_mode=True))
    annotations = results['eval_ann_info']
    assert set(annotations) == {'sp_pts_mask', 'pts_semantic_mask', 'pts_instance_mask'}
    for key, mask in annotations.items():
        assert np.array_equal(mask, results[key])
        assert not np.shares_memory(mask, results[key])


def with_points(path: Path, content: np.ndarray) -> Path:
    content.tofile(path)
    return path


GOOD = np.ones((5, 6), dtype=np.float32)


def changed(row: int, column: int, value: float) -> np.ndarray:
    points = GOOD.copy()
    points[row, column] = value
    return points


@pytest.mark.parametrize(
    ('content', 'fault'),
    [
        (np.empty((0, 6), np.float32), 'N ≥ 1.*got 0 bytes'),
        (np.ones((5, 4), np.float32), r'expected N×6 float32 values .*got 80 bytes'),
        (GOOD.tobytes()[:-1], 'got 119 bytes'),
        (changed(3, 1, np.nan), '1 of 5 points are not finite, the first is point 3'),
        (changed(0, 5, np.inf), '1 of 5 points are not finite, the first is point 0'),
        (changed(2, 0, 1e5), r'coordinates reach 1e\+05'),
        (changed(2, 3, -1), r'colours range over -1…1, expected 0…255'),
        (changed(2, 3, 256), 'colours range over 1…256'),
        (np.random.default_rng(0).uniform(0, 9, (50, 6)), 'not finite|coordinates reach'),
    ],
)
def test_faulty_points(tmp_path: Path, content: np.ndarray | bytes, fault: str) -> None:
    path = tmp_path / 'scene.bin'
    path.write_bytes(content if isinstance(content, bytes) else content.tobytes())
    with pytest.raises(ValueError, match=rf'scene\.bin: .*({fault})') as caught:
        read_points(path)
    assert '\n' not in str(caught.value)


def test_missing_points(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'none\.bin: no such file'):
        read_points(tmp_path / 'none.bin')


@pytest.mark.parametrize(
    ('content', 'fault'),
    [
        (np.zeros(9, np.int64), 'holds 9 int64 labels, but the scene has 10 points'),
        (np.zeros(11, np.int64), 'holds 11 int64 labels, but the scene has 10 points'),
        (np.zeros(0, np.int64), 'holds 0 int64 labels'),
        (np.zeros(10, np.int32), 'expected int64 labels .* looks like int32'),
        (np.zeros(10, np.uint16), '.* looks like int16'),
        (np.zeros(10, np.uint8), '.* looks like uint8'),
    ],
)
def test_faulty_labels(tmp_path: Path, content: np.ndarray, fault: str) -> None:
    content.tofile(tmp_path / 'mask.bin')
    with pytest.raises(ValueError, match=rf'mask\.bin: {fault}'):
        read_labels(tmp_path / 'mask.bin', 10)


@pytest.mark.parametrize(
    ('folder', 'value', 'fault'),
    [
        ('semantic_mask', -1, 'class id -1 is outside 0…65535'),
        ('semantic_mask', 70000, 'class id 70000 is outside 0…65535'),
        ('instance_mask', -5, 'instance id -5 is negative'),
        ('super_points', -2, 'superpoint id -2 is negative'),
    ],
)
def test_impossible_ids(make_scene_tree: Callable, folder: str, value: int, fault: str) -> None:
    root = make_scene_tree()
    path = root / folder / 'scene0000_00.bin'
    ids = np.fromfile(path, dtype=np.int64)
    ids[17] = value
    ids.tofile(path)
    with pytest.raises(ValueError, match=rf'{folder}/scene0000_00\.bin: {fault}'):
        load(scene(root))


def test_mask_that_infos_lack(make_scene_tree: Callable) -> None:
    results = scene(make_scene_tree())
    del results['super_pts_path']
    with pytest.raises(ValueError, match='scene0000_00: its infos have no super_pts_path'):
        load(results)
    assert 'sp_pts_mask' not in load(results, with_superpoints=False)


def test_instances_need_semantics() -> None:
    with pytest.raises(ValueError, match='instances need the semantic mask'):
        LoadSceneAnnotations(with_semantic=False)


def test_superpoints_become_dense(make_scene_tree: Callable) -> None:
    root = make_scene_tree()
    path = root / 'super_points/scene0000_00.bin'
    (np.arange(240) // 6 * 1000 + 5).astype(np.int64).tofile(path)
    assert np.array_equal(load(scene(root))['sp_pts_mask'], np.arange(240) // 6)


def test_densify_twin() -> None:
    ids = np.random.default_rng(1).integers(-3, 40, 200) * 7
    order = {old: new for new, old in enumerate(sorted(set(ids[ids >= 0].tolist())))}
    assert densify(ids).tolist() == [order.get(i, -1) for i in ids.tolist()]
    assert densify(np.array([-4, -1])).tolist() == [-1, -1]


@pytest.mark.parametrize(('num_points', 'replace'), [(50, True), (500, True), (50, False)])
def test_sample_points(make_scene_tree: Callable, num_points: int, replace: bool) -> None:
    results = load(scene(make_scene_tree()))
    np.random.seed(0)
    sampled = SamplePoints(num_points, replace)(results)
    assert len(sampled['points']) == min(num_points, 240)
    num_different = len(np.unique(sampled['points'], axis=0))
    assert (num_different < len(sampled['points'])) == replace
    # Labels stay with their points, superpoints and instances stay the same groups.
    rows = {row.tobytes(): index for index, row in enumerate(results['points'])}
    source = np.array([rows[row.tobytes()] for row in sampled['points']])
    assert np.array_equal(sampled['pts_semantic_mask'], results['pts_semantic_mask'][source])
    for key in ('sp_pts_mask', 'pts_instance_mask'):
        assert np.array_equal(sampled[key], densify(results[key][source]))
    assert len(results['points']) == 240


def test_sampling_without_replacement_keeps_small_clouds(make_scene_tree: Callable) -> None:
    results = load(scene(make_scene_tree()))
    assert SamplePoints(240, replace=False)(results) is results


def test_sample_points_arguments() -> None:
    with pytest.raises(ValueError, match='num_points must be positive, got 0'):
        SamplePoints(0)
