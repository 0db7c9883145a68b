"""tools/build_uv_index.py and the files it writes, against projection point by point."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oneformer3d.extraction.frames import list_frames
from oneformer3d.extraction.settings import make_settings
from oneformer3d.extraction.uv_index import (
    build_scene_index,
    build_uv_indices,
    by_scene,
    read_uv_index,
)
from oneformer3d.lifting.uv import build_uv_index
from oneformer3d.lifting.visibility import Visibility
from tests.helpers.load_tool import load_tool


@pytest.fixture
def frames(tiny_rooms):
    return list_frames(make_settings({'data_root': str(tiny_rooms)}))


def test_the_tool_writes_one_file_per_scene(tiny_rooms, tmp_path, frames, capsys):
    tool = load_tool('build_uv_index')
    command = ['--data_root', str(tiny_rooms), '--output_dir', str(tmp_path)]
    scenes = by_scene(frames)

    def said(*words: str) -> str:
        tool.main([*command, *words])
        return capsys.readouterr().out

    assert f'{len(scenes)} written, 0 were there' in said()
    assert {path.stem for path in tmp_path.glob('*.npz')} == set(scenes)
    assert f'0 written, {len(scenes)} were there' in said()
    assert f'{len(scenes)} written' in said('--abs_tol', '0.02')
    with pytest.raises(FileNotFoundError, match='no such file'):
        tool.main(['--scenes_file', 'nowhere.txt'])


def test_pairs_are_those_of_each_frame(frames, tmp_path):
    """Every frame by itself, through the documented helper."""
    build_uv_indices(frames, tmp_path)
    scene, of_scene = next(iter(by_scene(frames).items()))
    index = read_uv_index(tmp_path / f'{scene}.npz')
    assert index.frames == tuple(frame.name for frame in of_scene)
    points = np.fromfile(of_scene[0].scene.points_path, dtype=np.float32).reshape(-1, 6)
    points = torch.from_numpy(points[:, :3].copy())
    assert index.num_points == len(points)
    for view, frame in enumerate(of_scene):
        depth = np.asarray(Image.open(frame.depth_path)).astype(np.float32) / 1000
        uv, valid = build_uv_index(
            points,
            torch.from_numpy(frame.scene.intrinsics).float(),
            torch.from_numpy(frame.world_from_cam).float(),
            frame.scene.image_size,
            torch.from_numpy(depth),
        )
        here = index.pairs.view == view
        torch.testing.assert_close(index.pairs.point[here], valid.nonzero()[:, 0])
        torch.testing.assert_close(index.pairs.uv[here], uv[valid])
    assert 0 < index.valid_rate < index.coverage <= 1


def test_other_points_or_poses_make_a_new_index(tiny_rooms, tmp_path):
    root = Path(shutil.copytree(tiny_rooms, tmp_path / 'rooms'))
    settings = make_settings({'data_root': str(root)})
    out = tmp_path / 'uv'
    total = build_uv_indices(list_frames(settings), out)
    assert build_uv_indices(list_frames(settings), out) == 0
    path = next((root / 'points').glob('*.bin'))
    points = np.fromfile(path, dtype=np.float32)
    points[0] += 0.1
    points.tofile(path)
    assert build_uv_indices(list_frames(settings), out) == 1
    infos = json.loads((root / 'oneformer3d_infos_val.json').read_text())
    infos['data_list'][0]['images'][0]['world_from_cam'][0][3] += 0.1
    (root / 'oneformer3d_infos_val.json').write_text(json.dumps(infos))
    assert build_uv_indices(list_frames(settings), out) == 1
    assert total > 2


def test_frames_that_cannot_be_used_are_named(tiny_rooms, tmp_path):
    root = Path(shutil.copytree(tiny_rooms, tmp_path / 'rooms'))
    frames = list_frames(make_settings({'data_root': str(root)}))
    frames[1].depth_path.write_bytes(b'no png')
    of_scene = by_scene(frames)[frames[0].scene.name]
    index, faults = build_scene_index(of_scene)
    assert set(faults) == {frames[1].name}
    assert frames[1].name not in index.frames
    assert int(index.pairs.view.max()) < len(index.frames) == len(of_scene) - 1
    with pytest.raises(ValueError, match=frames[1].key):
        build_uv_indices(frames, tmp_path / 'uv', strict=True)
    nothing = [replace(frame, fault='no pose') for frame in of_scene]
    index, faults = build_scene_index(nothing)
    assert len(faults) == len(nothing)
    assert len(index.pairs) == 0
    assert index.valid_rate == 0


def test_without_depth_images_the_points_hide_each_other(frames):
    of_scene = next(iter(by_scene(frames).values()))
    measured, _ = build_scene_index(of_scene)
    splatted, _ = build_scene_index([replace(frame, depth_file=None) for frame in of_scene])
    frustum, _ = build_scene_index(of_scene, Visibility(abs_tol=100.0))
    assert len(splatted.pairs) < len(frustum.pairs)
    keys = [set(zip(i.pairs.point.tolist(), i.pairs.view.tolist())) for i in (measured, splatted)]
    assert len(keys[0] & keys[1]) > 0.85 * len(keys[0])
    assert len(keys[0] & keys[1]) > 0.85 * len(keys[1])


def test_damaged_files_are_named(frames, tmp_path):
    build_uv_indices(frames[:1], tmp_path)
    path = next(tmp_path.glob('*.npz'))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=path.name):
        read_uv_index(path)
    with pytest.raises(FileNotFoundError, match='no such uv index'):
        read_uv_index(tmp_path / 'nothing.npz')
    assert build_uv_indices(frames[:1], tmp_path) == 1
