"""The tutorial's pictures of a small room: their sizes, and numbers that say what they should."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from oneformer3d.lifting import lift_features_to_points
from tests.helpers.load_tool import load_tool

TOOL = load_tool('draw_lifting_steps')


@pytest.fixture(scope='module')
def room(tiny_rooms):
    names = sorted(path.stem for path in (tiny_rooms / 'points').glob('*.bin'))
    return tiny_rooms, names[-1]


def test_pictures_and_numbers(room, tmp_path):
    root, name = room
    numbers = TOOL.draw_lifting_steps(root, name, tmp_path, size=(60, 80))

    assert sorted(path.name for path in tmp_path.glob('*')) == [
        'lifting_bev.png', 'lifting_depth_test.png', 'lifting_sources.png',
    ]  # fmt: skip
    sizes = {path.stem: Image.open(path).size for path in tmp_path.glob('*.png')}
    assert sizes['lifting_bev'] == (160, 86)
    assert sizes['lifting_depth_test'] == (160, 172)
    assert sizes['lifting_sources'][0] == 160
    for path in tmp_path.glob('*.png'):
        assert np.asarray(Image.open(path)).std() > 5

    # A depth test occludes points, and what it leaves is truer than the frustum alone.
    assert numbers['visible_depth'] <= numbers['visible_frustum']
    assert numbers['median_error_depth'] < numbers['median_error_frustum']
    assert all(math.isfinite(x) for x in numbers.values())


def test_the_scene_is_read_as_it_is_on_disk(room):
    """A point's colour in the scan is what the images show at its pixel."""
    root, name = room
    scene = TOOL.load_scene(root, name)
    camera = scene.camera
    assert scene.images.shape[0] == scene.depth.shape[0] == camera.batch_shape[0]
    lifted, visible = lift_features_to_points(
        scene.xyz, {'c': scene.images}, camera.intrinsics, camera.world_from_cam,
        camera.image_size, scene.depth,
    )  # fmt: skip

    scanned = torch.from_numpy(scene.points[:, 3:].copy())
    error = (lifted - scanned).abs().mean(-1)[visible]
    assert visible.any()
    assert error.median() < 15


def test_wrong_names_are_named(room, tmp_path):
    root, name = room
    with pytest.raises(ValueError, match='no scene nowhere'):
        TOOL.draw_lifting_steps(root, 'nowhere', tmp_path)
    with pytest.raises(ValueError, match='view 99 of'):
        TOOL.draw_lifting_steps(root, name, tmp_path, view=99)
    with pytest.raises(FileNotFoundError):
        TOOL.draw_lifting_steps(root, name, tmp_path, split='test')


def test_the_command_prints_the_numbers(room, tmp_path, capsys):
    root, name = room
    words = [
        '--data-root',
        str(root),
        '--scene',
        name,
        '--out',
        str(tmp_path),
        '--size',
        '30',
        '40',
    ]
    TOOL.main(words)
    assert 'median_error_depth' in capsys.readouterr().out
    assert (tmp_path / 'lifting_bev.png').is_file()
