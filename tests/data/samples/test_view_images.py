"""Images with their classes against the files they come from."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from oneformer3d.data.samples.view_images import LoadViewImages, PackViewImages
from oneformer3d.data.scenes import read_scenes


@pytest.fixture
def results(tiny_rooms):
    scene = next(iter(read_scenes(tiny_rooms, 'train').values()))
    return {'scene_id': scene.name, 'class_table': 'synthetic', 'scene': scene}


def read_pair(results, index):
    frame = results['scene'].frames[index]
    path = str(frame.image_path.with_suffix('.semantic.png'))
    ids = cv2.imread(path, cv2.IMREAD_UNCHANGED).astype(int)
    # raw ids 1…16 in order, 0 unlabeled
    return np.asarray(Image.open(frame.image_path)), np.where(ids == 0, 16, ids - 1)


def test_images_and_classes(results):
    packed = PackViewImages()(LoadViewImages(num_views=2, select='first', flip=0.0)(results))
    inputs = packed['inputs']
    assert inputs['points'].shape == (0, 6)
    assert packed['data_samples'].scene_id == results['scene_id']
    for i in range(2):
        picture, labels = read_pair(results, i)
        np.testing.assert_array_equal(inputs['view_images'][i].permute(1, 2, 0), picture)
        np.testing.assert_array_equal(inputs['view_labels'][i], labels)
        assert len(np.unique(labels)) > 2


def test_mirrored_together(results):
    flipped = LoadViewImages(num_views=1, select='first', flip=1.0)(results)
    picture, labels = read_pair(results, 0)
    np.testing.assert_array_equal(flipped['view_images'][0].transpose(1, 2, 0), picture[:, ::-1])
    np.testing.assert_array_equal(flipped['view_labels'][0], labels[:, ::-1])


def test_smaller(results):
    height, width = results['scene'].image_size
    size = (height // 2, width // 2)
    small = LoadViewImages(select='even', flip=0.0, image_size=size)(results)
    assert small['view_images'].shape == (len(results['scene'].frames), 3, *size)
    assert small['view_labels'].shape == (len(results['scene'].frames), *size)
    whole = LoadViewImages(select='even', flip=0.0)(results)
    assert set(np.unique(small['view_labels'])) <= set(np.unique(whole['view_labels']))


def test_crops_lie_in_the_image(results):
    """Every crop is found in its image at one position, and its classes at the same."""
    height, width = results['scene'].image_size
    size = (height // 2, width // 2)
    picture, labels = read_pair(results, 0)
    load = LoadViewImages(num_views=1, select='first', flip=0.0, crop=size)
    positions = set()
    np.random.seed(0)
    for _ in range(4):
        crop = load(results)
        cut = crop['view_images'][0].transpose(1, 2, 0)
        found = [
            (y, x)
            for y in range(height - size[0] + 1)
            for x in range(width - size[1] + 1)
            if np.array_equal(picture[y : y + size[0], x : x + size[1]], cut)
        ]
        assert len(found) == 1
        (y, x), *_ = found
        assert np.array_equal(labels[y : y + size[0], x : x + size[1]], crop['view_labels'][0])
        positions.add((y, x))
    assert len(positions) > 1
    whole = LoadViewImages(num_views=1, select='first', flip=0.0, crop=(height, width))(results)
    np.testing.assert_array_equal(whole['view_images'][0].transpose(1, 2, 0), picture)
    for crop in ((height + 1, width), (height, 0)):
        with pytest.raises(ValueError, match='does not fit'):
            LoadViewImages(crop=crop)(results)


def test_random_views_differ(results):
    load = LoadViewImages(num_views=1, flip=0.0)
    np.random.seed(0)
    drawn = {load(results)['view_images'].tobytes() for _ in range(10)}
    assert len(drawn) > 1


def test_bad_input(results, tmp_path):
    with pytest.raises(ValueError, match='has no images'):
        LoadViewImages()({**results, 'scene': replace(results['scene'], images=[])})
    with pytest.raises(FileNotFoundError, match='no such image'):
        LoadViewImages(suffix='.classes.png')(results)
    with pytest.raises(ValueError, match='not an image of ids'):
        LoadViewImages(suffix='.jpg')(results)
    with pytest.raises(ValueError, match='select'):
        LoadViewImages(select='coverage')
    with pytest.raises(ValueError, match='num_views'):
        LoadViewImages(num_views=0)
    with pytest.raises(ValueError, match='flip'):
        LoadViewImages(flip=2.0)
