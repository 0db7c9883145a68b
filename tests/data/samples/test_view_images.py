"""Images with their classes against the files they come from."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from oneformer3d.data.samples.view_images import LoadViewImages, PackViewImages


@pytest.fixture
def results(tiny_rooms):
    infos = json.loads((tiny_rooms / 'oneformer3d_infos_train.json').read_text())
    room = infos['data_list'][0]
    return {
        'scene_id': room['scene_id'],
        'class_table': 'synthetic',
        'img_prefix': str(tiny_rooms / 'posed_images'),
        'image_size': room['image_size'],
        'images': room['images'],
    }


def read_pair(results, index):
    path = f'{results["img_prefix"]}/{results["images"][index]["img_path"]}'
    ids = cv2.imread(path.replace('.jpg', '.semantic.png'), cv2.IMREAD_UNCHANGED).astype(int)
    # raw ids 1…16 in order, 0 unlabeled
    return np.asarray(Image.open(path)), np.where(ids == 0, 16, ids - 1)


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
    height, width = results['image_size']
    size = (height // 2, width // 2)
    small = LoadViewImages(select='even', flip=0.0, image_size=size)(results)
    assert small['view_images'].shape == (len(results['images']), 3, *size)
    assert small['view_labels'].shape == (len(results['images']), *size)
    whole = LoadViewImages(select='even', flip=0.0)(results)
    assert set(np.unique(small['view_labels'])) <= set(np.unique(whole['view_labels']))


def test_pieces_lie_in_the_image(results):
    """Every piece is found in its image at one place, and its classes at the same."""
    height, width = results['image_size']
    size = (height // 2, width // 2)
    picture, labels = read_pair(results, 0)
    load = LoadViewImages(num_views=1, select='first', flip=0.0, crop=size)
    places = set()
    np.random.seed(0)
    for _ in range(4):
        piece = load(results)
        cut = piece['view_images'][0].transpose(1, 2, 0)
        found = [
            (y, x)
            for y in range(height - size[0] + 1)
            for x in range(width - size[1] + 1)
            if np.array_equal(picture[y : y + size[0], x : x + size[1]], cut)
        ]
        assert len(found) == 1
        (y, x), *_ = found
        assert np.array_equal(labels[y : y + size[0], x : x + size[1]], piece['view_labels'][0])
        places.add((y, x))
    assert len(places) > 1
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
        LoadViewImages()({**results, 'images': []})
    with pytest.raises(FileNotFoundError, match='no such picture of classes'):
        LoadViewImages(suffix='.classes.png')(results)
    with pytest.raises(ValueError, match='expected class ids'):
        LoadViewImages(suffix='.jpg')(results)
    with pytest.raises(ValueError, match='select'):
        LoadViewImages(select='best')
    with pytest.raises(ValueError, match='num_views'):
        LoadViewImages(num_views=0)
    with pytest.raises(ValueError, match='flip'):
        LoadViewImages(flip=2.0)
