"""A small data root in the ScanNet layout, for the tests of the data pipeline."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.data.infos import write_infos

SceneTree = Callable[..., Path]


@pytest.fixture
def make_scene_tree(tmp_path: Path) -> SceneTree:
    """Factory: ``make_scene_tree(class_table='scannet', num_scenes=2, num_points=240)`` → root.

    Every scene has a floor, a wall, unlabeled clutter and three things with instance ids; floor
    and wall have instance ids on disk, too. Superpoints are runs of six points.
    """

    def make(
        class_table: str = 'scannet',
        num_scenes: int = 2,
        num_points: int = 240,
        root: Path | None = None,
    ) -> Path:
        root = root or tmp_path / class_table
        scenes = []
        for index in range(num_scenes):
            scene_id = f'scene{index:04d}_00'
            write_scene(root, scene_id, class_table, num_points, seed=index)
            scenes.append(scene_infos(scene_id))
        infos = {'metainfo': {'schema_version': 1, 'dataset': class_table}, 'data_list': scenes}
        write_infos(root / 'oneformer3d_infos_train.json', infos)
        lists = root / 'meta_data'
        lists.mkdir(exist_ok=True)
        (lists / f'{class_table}_train_debug.txt').write_text('scene0000_00\n')
        return root

    return make


def write_scene(root: Path, scene_id: str, class_table: str, num_points: int, seed: int) -> None:
    """Write the four files of one scene."""
    rng = np.random.default_rng(seed)
    table = get_class_table(class_table)
    points = np.empty((num_points, 6), dtype=np.float32)
    points[:, :3] = rng.uniform(0, 4, (num_points, 3))
    points[:, 3:] = rng.integers(0, 256, (num_points, 3))
    thing_a, thing_b = (table.raw_ids[label] for label in table.instance_classes[-2:])
    wall, floor = (table.raw_ids[label] for label in (0, 1))
    # One block of points per entry: (raw class, raw instance).
    blocks = [(wall, 1), (floor, 2), (60000, 3), (thing_a, 7), (thing_a, 9), (thing_b, 40)]
    block = np.arange(num_points) * len(blocks) // num_points
    semantic, instance = np.array(blocks, dtype=np.int64)[block].T
    files = {
        'points': points,
        'super_points': np.arange(num_points, dtype=np.int64) // 6,
        'semantic_mask': semantic,
        'instance_mask': instance,
    }
    for folder, content in files.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        np.ascontiguousarray(content).tofile(root / folder / f'{scene_id}.bin')


def scene_infos(scene_id: str) -> dict:
    """Infos of one scene with one image."""
    return {
        'scene_id': scene_id,
        'lidar_points': {'num_pts_feats': 6, 'lidar_path': f'{scene_id}.bin'},
        'super_pts_path': f'{scene_id}.bin',
        'pts_semantic_mask_path': f'{scene_id}.bin',
        'pts_instance_mask_path': f'{scene_id}.bin',
        'axis_align_matrix': np.eye(4),
        'image_size': [48, 64],
        'depth_size': [48, 64],
        'cam2img': [[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]],
        'depth2img': [[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]],
        'images': [
            {
                'frame': '00000',
                'img_path': f'{scene_id}/00000.jpg',
                'depth_path': f'{scene_id}/00000.png',
                'world_from_cam': np.eye(4),
            }
        ],
        'num_dropped_poses': 0,
    }
