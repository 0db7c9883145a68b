"""ScanNet's download in miniature: labels, superpoints, alignment, cameras, recordings."""

import json

import numpy as np
import pytest
from PIL import Image

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.data.convert.scannet import convert_scannet
from oneformer3d.data.convert.sens import read_sens, read_sens_header
from oneformer3d.data.infos import read_infos
from tests.helpers.rgbd_scenes import SIZE, K, render_views
from tests.helpers.scannet_tree import (
    ALIGNMENT,
    NUM_VERTICES,
    SEGMENT_IDS,
    mesh_points,
    sens_bytes,
    write_mesh,
    write_scene,
    write_tree,
)


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / 'scannet')


def _convert(tree, out, dataset='scannet', **kwargs):
    return convert_scannet(tree, out, dataset, **({'frame_step': 1, 'progress': False} | kwargs))


def _read(out, scene, folder, dtype=np.int64):
    return np.fromfile(out / folder / f'{scene}.bin', dtype)


def _infos(out, split='train'):
    return {
        s['scene_id']: s for s in read_infos(out / f'oneformer3d_infos_{split}.json')['data_list']
    }


def _per_vertex(of_segment: dict[int, int]) -> np.ndarray:
    values = [of_segment.get(k, 0) for k in range(len(SEGMENT_IDS))]
    return np.repeat(values, NUM_VERTICES // len(SEGMENT_IDS))


def test_points_labels_and_superpoints(tree, tmp_path):
    out = tmp_path / 'out'
    assert _convert(tree, out) == {'train': 2, 'val': 1}
    points = _read(out, 'scene0001_00', 'points', np.float32).reshape(-1, 6)
    np.testing.assert_allclose(points, mesh_points(1), rtol=1e-6)
    semantic = _read(out, 'scene0001_00', 'semantic_mask')
    instance = _read(out, 'scene0001_00', 'instance_mask')
    assert np.array_equal(semantic, _per_vertex({0: 2, 1: 2, 2: 5, 4: 5, 5: 39}))
    assert np.array_equal(instance, _per_vertex({0: 1, 1: 1, 2: 2, 4: 2, 5: 3, 7: 4}))
    superpoints = _read(out, 'scene0001_00', 'super_points')
    assert np.array_equal(np.unique(superpoints), np.arange(10))
    assert (np.diff(superpoints.reshape(10, 6), axis=1) == 0).all()
    assert (out / 'meta_data' / 'scannet_train.txt').read_text() == 'scene0000_00\nscene0001_00\n'
    debug = [out / 'meta_data' / f'{n}_train_debug.txt' for n in ('scannet', 'scannetv2')]
    assert [path.read_text() for path in debug] == ['scene0000_00\nscene0001_00\n'] * 2
    assert read_infos(out / 'oneformer3d_infos_val.json')['metainfo']['dataset'] == 'scannet'


def test_scannet200_takes_the_other_column(tree, tmp_path):
    _convert(tree, tmp_path / 'out', 'scannet200')
    semantic = _read(tmp_path / 'out', 'scene0000_00', 'semantic_mask')
    assert np.array_equal(semantic, _per_vertex({0: 3, 1: 3, 2: 11, 4: 11, 5: 56}))
    table = get_class_table('scannet200')
    names = [table.classes[k] for k in table.contiguous_from_raw(np.array([3, 56]))]
    assert names == ['floor', 'trash can']


def test_images_and_cameras_are_kept(tree, tmp_path):
    out = tmp_path / 'out'
    _convert(tree, out)
    scene = _infos(out)['scene0000_00']
    assert [image['frame'] for image in scene['images']] == [f'{k:05d}' for k in range(4)]
    assert scene['image_size'] == [2 * SIZE[0], 2 * SIZE[1]]
    assert scene['depth_size'] == list(SIZE)
    np.testing.assert_allclose(scene['depth2img'], K)
    np.testing.assert_allclose(scene['cam2img'][0], [80, 0, 63.5])
    np.testing.assert_allclose(scene['axis_align_matrix'], ALIGNMENT)
    assert scene['axis_aligned'] is False
    for image, view in zip(scene['images'], render_views(4)):
        np.testing.assert_allclose(image['world_from_cam'], view.world_from_cam, atol=1e-9)
        depth = np.asarray(Image.open(out / 'posed_images' / image['depth_path']))
        assert np.array_equal(depth, view.depth)
    source = tree / 'scans' / 'scene0000_00' / 'color' / '0.jpg'
    copied = out / 'posed_images' / scene['images'][0]['img_path']
    assert copied.read_bytes() == source.read_bytes()
    assert 'images' not in _infos(out)['scene0001_00']  # none in the download


def test_axis_alignment_moves_points_and_poses_together(tree, tmp_path):
    _convert(tree, tmp_path / 'raw')
    _convert(tree, tmp_path / 'aligned', axis_align=True)
    raw, aligned = (
        _read(tmp_path / name, 'scene0000_00', 'points', np.float32).reshape(-1, 6)
        for name in ('raw', 'aligned')
    )
    np.testing.assert_allclose(
        aligned[:, :3], raw[:, :3] @ ALIGNMENT[:3, :3].T + ALIGNMENT[:3, 3], atol=1e-6
    )
    assert np.array_equal(aligned[:, 3:], raw[:, 3:])
    assert _infos(tmp_path / 'aligned')['scene0000_00']['axis_aligned'] is True
    # Points keep their coordinates in every camera.
    for before, after in zip(
        _infos(tmp_path / 'raw')['scene0000_00']['images'],
        _infos(tmp_path / 'aligned')['scene0000_00']['images'],
    ):
        in_camera = [
            np.linalg.inv(image['world_from_cam']) @ np.append(points[7, :3], 1)
            for image, points in ((before, raw), (after, aligned))
        ]
        np.testing.assert_allclose(*in_camera, atol=1e-5)


def test_lost_poses_are_dropped_and_counted(tree, tmp_path):
    folder = tree / 'scans' / 'scene0000_00'
    (folder / 'pose' / '2.txt').write_text('\n'.join(['-inf -inf -inf -inf'] * 4))
    _convert(tree, tmp_path / 'out')
    scene = _infos(tmp_path / 'out')['scene0000_00']
    assert [image['frame'] for image in scene['images']] == ['00000', '00001', '00003']
    assert scene['num_dropped_poses'] == 1
    assert not (tmp_path / 'out' / 'posed_images' / 'scene0000_00' / '00002.jpg').exists()


def test_recording_equals_exported_images(tree, tmp_path):
    views = render_views(5)
    views[3].world_from_cam[0, 3] = -np.inf
    (tree / 'scans' / 'scene0001_00' / 'scene0001_00.sens').write_bytes(sens_bytes(views))
    _convert(tree, tmp_path / 'out')
    scene = _infos(tmp_path / 'out')['scene0001_00']
    assert [image['frame'] for image in scene['images']] == ['00000', '00001', '00002', '00004']
    assert scene['num_dropped_poses'] == 1
    assert scene['image_size'] == scene['depth_size'] == list(SIZE)
    for image, view in zip(scene['images'], views[:3]):
        np.testing.assert_allclose(image['world_from_cam'], view.world_from_cam, atol=1e-6)
        folder = tmp_path / 'out' / 'posed_images'
        assert np.array_equal(np.asarray(Image.open(folder / image['depth_path'])), view.depth)
        color = np.asarray(Image.open(folder / image['img_path'])).astype(int)
        assert np.median(np.abs(color - view.color)) < 6


def test_sens_reader_skips_and_names_faults(tmp_path):
    path, content = tmp_path / 'a.sens', sens_bytes(render_views(5))
    path.write_bytes(content)
    header = read_sens_header(path)
    assert header.num_frames == 5
    np.testing.assert_allclose(header.depth_intrinsics, K)
    frames = list(read_sens(path, frame_step=2))
    assert [frame.index for frame in frames] == [0, 2, 4]
    assert np.array_equal(frames[1].depth, render_views(5)[2].depth)
    path.write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r'a.sens: frame 4: the file ends after'):
        list(read_sens(path))
    path.write_bytes(b'\x03' + content[1:])
    with pytest.raises(ValueError, match='of version 4, got 3'):
        read_sens_header(path)
    path.write_bytes(content[:4] + b'\xff' * 8 + content[12:])
    with pytest.raises(ValueError, match=r'not a \.sens file'):
        read_sens_header(path)


def test_without_segments_superpoints_come_from_the_mesh(tree, tmp_path):
    root = tmp_path / 'other'
    write_tree(root, {'scene0005_00': 'test'})
    folder = root / 'scans' / 'scene0005_00'
    (folder / 'scene0005_00_vh_clean_2.0.010000.segs.json').unlink()
    (folder / 'scene0005_00.aggregation.json').unlink()
    (folder / 'scene0005_00.txt').unlink()
    assert _convert(root, tmp_path / 'out') == {'test': 1}
    scene = _infos(tmp_path / 'out', 'test')['scene0005_00']
    assert 'pts_semantic_mask_path' not in scene
    assert 'axis_align_matrix' not in scene
    superpoints = _read(tmp_path / 'out', 'scene0005_00', 'super_points')
    assert len(superpoints) == NUM_VERTICES
    assert superpoints.max() < 8


def test_labelled_mesh_stands_in_for_missing_annotations(tree, tmp_path):
    folder = tree / 'scans' / 'scene0001_00'
    (folder / 'scene0001_00.aggregation.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'scene0001_00.aggregation.json: no such file'):
        _convert(tree, tmp_path / 'out', scenes=['scene0001_00'])
    assert _convert(tree, tmp_path / 'out') == {'train': 1, 'val': 1}
    assert list(_infos(tmp_path / 'out')) == ['scene0000_00']
    labels = np.arange(NUM_VERTICES) % 43
    write_mesh(folder / 'scene0001_00_vh_clean_2.labels.ply', mesh_points(1), labels)
    _convert(tree, tmp_path / 'out')
    semantic = _read(tmp_path / 'out', 'scene0001_00', 'semantic_mask')
    assert np.array_equal(semantic, np.where(labels > 40, 0, labels))
    assert not _read(tmp_path / 'out', 'scene0001_00', 'instance_mask').any()


def test_rerun_continues_and_missing_scenes_are_left_out(tree, tmp_path):
    out = tmp_path / 'out'
    assert _convert(tree, out, scenes=['scene0000_00']) == {'train': 1}
    made = (out / 'points' / 'scene0000_00.bin').stat().st_mtime_ns
    with (tree / 'scannetv2_train.txt').open('a') as file:
        file.write('scene0700_00\n')
    assert _convert(tree, out) == {'train': 2, 'val': 1}
    assert (out / 'points' / 'scene0000_00.bin').stat().st_mtime_ns == made
    with pytest.raises(ValueError, match='was made with frame_step 1, now asked for frame_step 7'):
        _convert(tree, out, frame_step=7)


def test_faults_are_named(tree, tmp_path):
    out, folder = tmp_path / 'out', tree / 'scans' / 'scene0000_00'
    segs = folder / 'scene0000_00_vh_clean_2.0.010000.segs.json'
    segs.write_text(json.dumps({'segIndices': [1, 2]}))
    with pytest.raises(ValueError, match=r'segs.json: 2 segment ids for 60 vertices'):
        _convert(tree, out, scenes=['scene0000_00'])
    segs.write_text('{')
    with pytest.raises(ValueError, match=r'segs.json: not valid JSON'):
        _convert(tree, out, scenes=['scene0000_00'])
    mesh = folder / 'scene0000_00_vh_clean_2.ply'
    mesh.write_bytes(mesh.read_bytes()[:300])
    with pytest.raises(ValueError, match=r'scene0000_00_vh_clean_2.ply'):
        _convert(tree, out, scenes=['scene0000_00'])
    assert not [path for path in out.rglob('*') if path.is_file()]
    (tree / 'scannetv2-labels.combined.tsv').write_text('a\tb\n1\t2\n')
    with pytest.raises(ValueError, match='expected columns raw_category and nyu40id'):
        _convert(tree, out, scenes=['scene0000_00'])
    (tree / 'scannetv2_train.txt').write_text('../../etc\n')
    with pytest.raises(ValueError, match='not a scene name'):
        _convert(tree, out, scenes=['scene0000_00'])
    with pytest.raises(FileNotFoundError, match='none of scannetv2_'):
        _convert(tmp_path, out)
    with pytest.raises(ValueError, match='dataset: expected one of'):
        _convert(tree, out, 'nyu')


def test_nothing_downloaded(tmp_path):
    root = write_tree(tmp_path / 'scannet')
    with pytest.raises(FileNotFoundError, match='no scene of train'):
        _convert(root, tmp_path / 'out', scenes=['scene0999_00'])
    write_scene(tmp_path / 'x' / 'scene0009_00', 'scene0009_00', 0)
    with pytest.raises(FileNotFoundError, match='none of scannetv2_'):
        _convert(tmp_path / 'x', tmp_path / 'out')
