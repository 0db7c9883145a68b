"""The dataset: from infos to packed batches, in worker processes too, and its faults."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate, worker_init_fn
from torch.utils.data import DataLoader

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.data.samples import loading, packing, transforms
from oneformer3d.data.samples.dataset import IndoorSegDataset
from oneformer3d.registry import DATASETS

# The modules that register what the pipelines below name.
REGISTERED = (loading, packing, transforms)
INFOS = 'oneformer3d_infos_train.json'
TRAIN_PIPELINE = [
    {'type': 'LoadScenePoints'},
    {'type': 'LoadSceneAnnotations'},
    {'type': 'RandomFlipBEV'},
    {'type': 'RandomRotScaleTrans'},
    {'type': 'NormalizeColor'},
    {'type': 'ElasticDistortion', 'voxel_size': 0.05},
    {'type': 'PackSceneInputs'},
]


def build(root: Path, **kwargs: object) -> IndoorSegDataset:
    settings = {'data_root': str(root), 'ann_file': INFOS, 'class_table': 'scannet', **kwargs}
    return DATASETS.build({'type': 'IndoorSegDataset', **settings})


def test_registered_and_packs(make_scene_tree: Callable) -> None:
    dataset = build(make_scene_tree(num_scenes=3), pipeline=TRAIN_PIPELINE)
    assert len(dataset) == 3
    assert dataset.metainfo['classes'] == get_class_table('scannet').classes
    assert dataset.metainfo['class_table'] == 'scannet'
    assert dataset.metainfo['ignore_index'] == 20
    sample = dataset[1]
    assert set(sample['inputs']) == {'points', 'elastic_coords'}
    assert sample['inputs']['points'].shape == (240, 6)
    assert sample['inputs']['points'][:, 3:].abs().max() <= 1
    data_sample = sample['data_samples']
    assert data_sample.scene_id == 'scene0001_00'
    assert data_sample.sample_idx == 1
    assert 'eval_ann_info' not in data_sample
    # The points on disk, moved as the sample says, are the sample's points.
    matrix = data_sample.augmented_from_original.astype(np.float64)
    original = np.fromfile(data_sample.lidar_path, dtype=np.float32).reshape(-1, 6)[:, :3]
    np.testing.assert_allclose(
        sample['inputs']['points'][:, :3].numpy(),
        original @ matrix[:3, :3].T + matrix[:3, 3],
        atol=1e-5,
    )


def test_test_mode_carries_annotations(make_scene_tree: Callable) -> None:
    pipeline = [t for t in TRAIN_PIPELINE if 'Random' not in t['type']]
    dataset = build(make_scene_tree(), pipeline=pipeline, test_mode=True)
    annotations = dataset[0]['data_samples'].eval_ann_info
    assert set(annotations) == {'sp_pts_mask', 'pts_semantic_mask', 'pts_instance_mask'}
    assert annotations['pts_instance_mask'].max() == 2


def test_what_the_pipeline_starts_from(make_scene_tree: Callable) -> None:
    root = make_scene_tree()
    info = build(root).get_data_info(0)
    assert info['lidar_path'] == str(root / 'points' / 'scene0000_00.bin')
    assert info['super_pts_path'] == str(root / 'super_points' / 'scene0000_00.bin')
    scene = info['scene']
    assert scene.image_folder == root / 'posed_images'
    assert scene.frames[0].image_path == root / 'posed_images' / 'scene0000_00/00000.jpg'
    assert scene.image_size == (48, 64)
    assert (info['class_table'], info['test_mode']) == ('scannet', False)


@pytest.mark.parametrize('num_workers', [0, 2])
def test_workers_are_seeded(make_scene_tree: Callable, num_workers: int) -> None:
    dataset = build(make_scene_tree(num_scenes=4, num_points=60), pipeline=TRAIN_PIPELINE)

    def epoch() -> list[torch.Tensor]:
        np.random.seed(3)
        loader = DataLoader(
            dataset,
            batch_size=2,
            num_workers=num_workers,
            collate_fn=pseudo_collate,
            worker_init_fn=lambda worker: worker_init_fn(worker, num_workers, 0, seed=7),
        )
        return [points for batch in loader for points in batch['inputs']['points']]

    first, second = epoch(), epoch()
    assert len(first) == 4
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    # Different scenes are augmented differently: their extents' ratios would agree otherwise.
    assert len({float(points[:, :3].norm()) for points in first}) == 4


def test_scene_list_and_indices(make_scene_tree: Callable) -> None:
    root = make_scene_tree(num_scenes=3)
    debug = build(root, scene_list='meta_data/scannet_train_debug.txt')
    assert [debug.get_data_info(i)['scene_id'] for i in range(len(debug))] == ['scene0000_00']
    assert len(build(root, indices=2)) == 2
    (root / 'meta_data' / 'some.txt').write_text('scene0002_00\nscene0000_00\n')
    some = build(root, scene_list='meta_data/some.txt')
    assert [info['scene_id'] for info in map(some.get_data_info, (0, 1))] == [
        'scene0002_00',
        'scene0000_00',
    ]


@pytest.mark.parametrize(
    ('text', 'error', 'fault'),
    [
        ('scene0009_00', ValueError, r'list\.txt: not in .*: scene0009_00'),
        ('../../etc', ValueError, r'list\.txt: .*not a scene name'),
        (None, FileNotFoundError, r'list\.txt: no such scene list'),
        ('', ValueError, 'holds no scenes'),
    ],
)
def test_faulty_scene_list(make_scene_tree: Callable, text, error: type, fault: str) -> None:
    root = make_scene_tree()
    if text is not None:
        (root / 'list.txt').write_text(text)
    with pytest.raises(error, match=fault):
        build(root, scene_list='list.txt')


def test_all_missing_files_at_once(make_scene_tree: Callable) -> None:
    root = make_scene_tree(num_scenes=3)
    (root / 'points/scene0001_00.bin').unlink()
    (root / 'instance_mask/scene0002_00.bin').unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r'2 of its files are missing: .*points/scene0001_00\.bin, '
        r'.*instance_mask/scene0002_00\.bin$',
    ):
        build(root)


def test_many_missing_files_are_counted(make_scene_tree: Callable) -> None:
    root = make_scene_tree(num_scenes=30, num_points=6)
    for path in (root / 'points').iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r'30 of its files .* and 10 more$') as caught:
        build(root)
    assert '\n' not in str(caught.value)


def test_missing_infos(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no such infos file'):
        build(tmp_path)


def test_infos_of_another_table(make_scene_tree: Callable) -> None:
    with pytest.raises(ValueError, match="written for class table 'scannet', expected 's3dis'"):
        build(make_scene_tree(), class_table='s3dis')


def test_own_class_table(make_scene_tree: Callable) -> None:
    root = make_scene_tree()
    table = root / 'classes.json'
    content = {'name': 'scannet', 'classes': ['a', 'b', 'c'], 'stuff': ['a'], 'raw_ids': [1, 36, 2]}
    table.write_text(json.dumps(content))
    dataset = build(root, class_table=str(table), pipeline=TRAIN_PIPELINE)
    assert dataset.metainfo['class_table'] == str(table)
    assert dataset.metainfo['classes'] == ('a', 'b', 'c')
    # The fixture's blocks: wall 1, floor 2, unknown, bathtub 36 twice, otherfurniture 39.
    masks = dataset[0]['data_samples'].gt_pts_seg
    assert masks.pts_semantic_mask[::40].tolist() == [0, 2, 3, 1, 1, 3]
    assert masks.pts_instance_mask[::40].tolist() == [-1, 0, -1, 1, 2, -1]


def test_link_out_of_a_folder(make_scene_tree: Callable, tmp_path: Path) -> None:
    root = make_scene_tree()
    path = root / 'points/scene0000_00.bin'
    path.rename(tmp_path / 'elsewhere.bin')
    path.symlink_to(tmp_path / 'elsewhere.bin')
    with pytest.raises(ValueError, match=f'{INFOS}: scene0000_00: .*leads out of its folder'):
        build(root)


def test_linked_folder_is_the_users_choice(make_scene_tree: Callable, tmp_path: Path) -> None:
    root = make_scene_tree()
    (root / 'points').rename(tmp_path / 'big_disk')
    (root / 'points').symlink_to(tmp_path / 'big_disk')
    assert len(build(root)) == 2


def test_unknown_prefix(make_scene_tree: Callable) -> None:
    with pytest.raises(ValueError, match=r"data_prefix: unknown \['point'\]"):
        build(make_scene_tree(), data_prefix={'point': 'points'})


def test_other_folders(make_scene_tree: Callable) -> None:
    root = make_scene_tree()
    (root / 'points').rename(root / 'clouds')
    dataset = build(root, data_prefix={'pts': 'clouds'})
    assert dataset.get_data_info(0)['lidar_path'] == str(root / 'clouds' / 'scene0000_00.bin')


def test_pickled_infos(make_scene_tree: Callable) -> None:
    root = make_scene_tree()
    infos = json.loads((root / INFOS).read_text())
    # As mmdet3d's converter writes them: no schema, names of its own, arrays, images by camera.
    infos['metainfo'] = {'dataset': 'scannet', 'info_version': '1.1', 'categories': {}}
    for scene in infos['data_list']:
        del scene['scene_id'], scene['cam2img'], scene['depth2img']
        scene['axis_align_matrix'] = np.eye(4)
        scene['images'] = {}
    (root / 'infos.pkl').write_bytes(pickle.dumps(infos))
    with pytest.raises(ValueError, match='only with allow_pickle=True'):
        build(root, ann_file='infos.pkl')
    dataset = build(root, ann_file='infos.pkl', allow_pickle=True, pipeline=TRAIN_PIPELINE)
    assert dataset[1]['data_samples'].scene_id == 'scene0001_00'


def test_test_scenes_without_labels(make_scene_tree: Callable) -> None:
    root = make_scene_tree()
    infos = json.loads((root / INFOS).read_text())
    for scene in infos['data_list']:
        del scene['pts_semantic_mask_path'], scene['pts_instance_mask_path']
    (root / INFOS).write_text(json.dumps(infos))
    load = {'type': 'LoadSceneAnnotations', 'with_semantic': False, 'with_instance': False}
    pipeline = [{'type': 'LoadScenePoints'}, load, {'type': 'PackSceneInputs'}]
    masks = build(root, pipeline=pipeline, test_mode=True)[0]['data_samples'].gt_pts_seg
    assert list(masks.keys()) == ['sp_pts_mask']
    with pytest.raises(ValueError, match='scene0000_00: its infos have no pts_semantic_mask_path'):
        _ = build(root, pipeline=TRAIN_PIPELINE)[0]
