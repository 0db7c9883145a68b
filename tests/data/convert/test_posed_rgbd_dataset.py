"""Sequences as a data root: upright, whole or not at all."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from oneformer3d.data.convert.conversion import write_cloud
from oneformer3d.data.convert.posed_rgbd_dataset import convert_posed_rgbd
from oneformer3d.data.infos import read_infos
from oneformer3d.lifting.camera import project
from tests.helpers.rgbd_scenes import (
    ROOM,
    SIZE,
    render_views,
    write_posed_images,
    write_seven_scenes,
)


def _turned(views, world_from_old):
    return [type(v)(world_from_old @ v.world_from_cam, v.color, v.depth) for v in views]


def test_dataset_is_upright_and_its_views_see_its_points(tmp_path):
    """A world whose y axis points down, as 7-Scenes has, comes out with z up."""
    y_down = np.array([[1.0, 0, 0, 5], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    write_seven_scenes(tmp_path / 'room', _turned(render_views(), y_down))
    out = tmp_path / 'out'
    options = {'voxel_size': 0.1, 'progress': False}
    assert convert_posed_rgbd(tmp_path / 'room', out, **options) == 1
    infos = read_infos(out / 'oneformer3d_infos_test.json')
    (scene,) = infos['data_list']
    points = np.fromfile(out / 'points' / 'room.bin', np.float32).reshape(-1, 6)
    superpoints = np.fromfile(out / 'super_points' / 'room.bin', np.int64)
    assert len(points) == len(superpoints)
    assert np.array_equal(np.unique(superpoints), np.arange(superpoints.max() + 1))
    extent = points[:, :3].max(0) - points[:, :3].min(0)
    assert extent[2] == pytest.approx(ROOM[2], abs=0.15)
    assert 'pts_semantic_mask_path' not in scene
    assert scene['image_size'] == list(SIZE)
    assert scene['num_dropped_poses'] == 0
    for image in scene['images']:
        pose = np.array(image['world_from_cam'])
        np.testing.assert_allclose(pose[:3, 1], [0, 0, -1], atol=0.02)  # the image's down
        folder = out / 'posed_images'
        written = np.loadtxt(folder / image['img_path'].replace('.jpg', '.txt'))
        np.testing.assert_allclose(written, pose, atol=1e-6)
        depth = np.asarray(Image.open(folder / image['depth_path']))
        assert depth[0, 0] == 0  # was 65535
        uv, z = project(
            *(torch.tensor(x).double() for x in (points[:, :3], scene['depth2img'], pose))
        )
        u, v = np.round(uv.numpy()).astype(int).T
        visible = (z.numpy() > 0.1) & (u >= 0) & (u < SIZE[1]) & (v >= 0) & (v < SIZE[0])
        measured = depth[v[visible], u[visible]] / 1000
        error = np.abs(measured - z.numpy()[visible])[measured > 0]
        assert np.median(error) < 0.02


def test_dataset_reruns_and_refuses_other_options(tmp_path, monkeypatch):
    for name in ('a', 'b'):
        write_posed_images(tmp_path / 'in' / name, render_views(3))
    out = tmp_path / 'out'
    assert convert_posed_rgbd(tmp_path / 'in', out, voxel_size=0.2, progress=False) == 2
    first = (out / 'oneformer3d_infos_test.json').read_bytes()
    (out / 'meta_data' / 'scenes' / 'b.json').unlink()  # as if the run had been killed in b
    converted = []
    monkeypatch.setattr(
        'oneformer3d.data.convert.posed_rgbd_dataset.write_cloud',
        lambda out, scene, *args, **kwargs: (
            converted.append(scene) or write_cloud(out, scene, *args, **kwargs)
        ),
    )
    assert convert_posed_rgbd(tmp_path / 'in', out, voxel_size=0.2, progress=False) == 2
    assert converted == ['b']
    assert (out / 'oneformer3d_infos_test.json').read_bytes() == first
    with pytest.raises(ValueError, match=r'was made with voxel_size 0.2, now asked for .* 0.3'):
        convert_posed_rgbd(tmp_path / 'in', out, voxel_size=0.3, progress=False)


def test_nothing_is_left_of_a_scene_that_fails(tmp_path):
    folder = write_posed_images(tmp_path / 'scene', render_views(2))
    (folder / '00001.png').write_bytes((folder / '00001.png').read_bytes()[:200])
    with pytest.raises(ValueError, match='1 of 2 frames are unusable'):
        convert_posed_rgbd(folder, tmp_path / 'out', progress=False)
    left = [path for path in (tmp_path / 'out').rglob('*') if path.is_file()]
    assert left == []
    with pytest.raises(FileNotFoundError, match='four folders below'):
        convert_posed_rgbd(tmp_path / 'out', tmp_path / 'out2', progress=False)


def test_broken_record_is_named(tmp_path):
    write_posed_images(tmp_path / 'scene', render_views(2))
    record = tmp_path / 'out' / 'meta_data' / 'scenes' / 'scene.json'
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps([1]))
    with pytest.raises(ValueError, match=r'scene.json: not a record'):
        convert_posed_rgbd(tmp_path / 'scene', tmp_path / 'out', progress=False)
