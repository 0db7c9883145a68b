"""A recording of two cameras, of two image sizes and two K, through the tools from end to end."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from oneformer3d.data.scenes import read_scenes
from oneformer3d.lifting import resize_intrinsics
from oneformer3d.store import FeatureStore
from tests.helpers.clip_files import write_small_clip
from tests.helpers.load_tool import load_tool

SHIFT = 3  # pixels that the second camera's image, and with it its principal point, is moved by
QUICK_FIELD = [
    'steps=3', 'batch_rays=64', 'surface_pixels=64', 'holdout_every=4', 'occupancy_resolution=24',
    'field_options.num_levels=2', 'field_options.log2_hashmap_size=10',
]  # fmt: skip
OPENGL = np.diag([1.0, -1, -1, 1])


@pytest.fixture(scope='module')
def recording(tiny_rooms, tmp_path_factory):
    """``transforms.json``: every second frame is of a camera of ¾ the size, moved in its image."""
    source = sorted((tiny_rooms / 'posed_images').iterdir())[0]
    folder = tmp_path_factory.mktemp('recording')
    K = np.loadtxt(source / 'intrinsic.txt')[:3, :3]
    frames = []
    for number, pose in enumerate(sorted(source.glob('0*.txt'))):
        color, depth = Image.open(pose.with_suffix('.jpg')), Image.open(pose.with_suffix('.png'))
        own = torch.from_numpy(K)
        if number % 2:
            size = (color.width * 3 // 4, color.height * 3 // 4)
            own = resize_intrinsics(own, color.size[::-1], size[::-1])
            color, depth = color.resize(size), depth.resize(size, Image.Resampling.NEAREST)
            color, depth = (
                Image.fromarray(np.roll(np.asarray(image), SHIFT, axis=1))
                for image in (color, depth)
            )
            own[0, 2] += SHIFT
        color.save(folder / f'{number:03d}.color.png')
        depth.save(folder / f'{number:03d}.depth.png')
        frames.append(
            {
                'file_path': f'{number:03d}.color.png',
                'depth_file_path': f'{number:03d}.depth.png',
                'transform_matrix': (np.loadtxt(pose) @ OPENGL).tolist(),
                'fl_x': float(own[0, 0]), 'fl_y': float(own[1, 1]),
                'cx': float(own[0, 2]), 'cy': float(own[1, 2]),
                'w': color.width, 'h': color.height,
            }
        )  # fmt: skip
    content = json.dumps({'camera_model': 'OPENCV', 'frames': frames})
    (folder / 'transforms.json').write_text(content)
    return folder


def test_a_field_is_fitted_to_both_cameras(recording, tmp_path):
    load_tool('fit_field').main(
        [str(recording), '--out', str(tmp_path), '--labels', 'none', '--set', *QUICK_FIELD]
    )
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['steps'] == 3
    assert report['held_out']['depth_error'] > 0


def test_it_becomes_a_scene_whose_features_are_extracted(recording, tmp_path, monkeypatch):
    root, store = tmp_path / 'data', tmp_path / 'store'
    options = ['--root', recording, '--out', root, '--voxel-size', '0.05', '--up', 'z']
    monkeypatch.setattr(sys, 'argv', ['create_data.py', 'posed_rgbd', *map(str, options)])
    load_tool('create_data').main()
    (scene,) = read_scenes(root).values()
    camera = scene.cameras(scene.frames)
    moved = camera.intrinsics[1::2, 0, 2] - camera.intrinsics[0, 0, 2]
    np.testing.assert_allclose(moved, SHIFT * 4 / 3, atol=0.2)

    weights = write_small_clip(tmp_path / 'clip.pth')
    load_tool('extract_clip_feat').main(
        ['--data_root', str(root), '--output_dir', str(store), '--weights', str(weights)]
    )
    with FeatureStore(store) as opened:
        assert all(opened.has(scene.name, frame.name) for frame in scene.frames)


def test_it_is_predicted(recording, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    arguments = ['infer.py', str(recording), '--out', str(out), '--device', 'cpu']
    monkeypatch.setattr(sys, 'argv', arguments)
    load_tool('infer').main()
    with np.load(out / 'predictions.npz') as predictions:
        labels = predictions['semantic']
    assert len(labels) > 1000
