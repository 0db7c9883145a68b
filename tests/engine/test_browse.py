"""Pictures of a split: what is drawn is what the pipeline gives."""

import numpy as np
import pytest

from oneformer3d.data.samples.transforms import RandomRotScaleTrans
from oneformer3d.engine import browse
from oneformer3d.engine.configs import load_config

CONFIGS = {
    'points': 'configs/oneformer3d_synthetic.py',
    'images': 'configs/mvpnet_synthetic.py',
    'pictures': 'configs/mvpnet_2d_synthetic.py',
}


def dataset(kind, root, split='train', **options):
    return browse.open_split(load_config(CONFIGS[kind], {'data_root': str(root), **options}), split)


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('kind', CONFIGS)
def test_samples_of_every_kind_are_drawn(tiny_rooms, kind, split):
    ((name, picture),) = browse.sample_pictures(dataset(kind, tiny_rooms, split), 1, seed=0)
    assert name.startswith('0000_room')
    assert picture.dtype == np.uint8
    assert picture.std() > 10


def test_pictures_are_of_augmented_samples_and_the_same_again(tiny_rooms, monkeypatch):
    drawn = []
    monkeypatch.setattr(browse, 'sample_figure', lambda points, *_: drawn.append(points) or points)
    rooms = dataset('points', tiny_rooms)
    for _ in range(2):
        names = [name for name, _ in browse.sample_pictures(rooms, 5, seed=7)]
    assert len(drawn) == 10
    for one, again in zip(drawn[:5], drawn[5:], strict=True):
        np.testing.assert_array_equal(one, again)

    # the fifth is the first scene again, turned otherwise
    assert names[4].removeprefix('0004') == names[0].removeprefix('0000')
    assert any(isinstance(step, RandomRotScaleTrans) for step in rooms.pipeline.transforms)
    assert drawn[0].shape == drawn[4].shape
    assert not np.allclose(drawn[0], drawn[4])


def test_colours_are_those_of_the_scene(tiny_rooms, monkeypatch):
    drawn = []
    monkeypatch.setattr(browse, 'sample_figure', lambda points, rgb, *_: drawn.append(rgb) or rgb)
    rooms = dataset('points', tiny_rooms, 'val')
    list(browse.sample_pictures(rooms, 1, seed=0))
    original = np.fromfile(rooms.get_data_info(0)['lidar_path'], np.float32).reshape(-1, 6)
    np.testing.assert_allclose(drawn[0], original[:, 3:], atol=0.51)


def test_a_split_that_is_not_there_is_named(tiny_rooms):
    cfg = load_config(CONFIGS['points'])
    cfg.val_dataloader = None
    with pytest.raises(ValueError, match='has no val_dataloader'):
        browse.open_split(cfg, 'val')
