"""Masks of objects in the forms that segmenters write."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths

from oneformer3d.files.instance_maps import overlaid, read_instance_map

SHAPE = (12, 17)


@pytest.fixture
def masks() -> np.ndarray:
    """A table, a cup on it and a lamp beside: (3, H, W) bool."""
    masks = np.zeros((3, *SHAPE), bool)
    masks[0, 2:9, 1:12] = True
    masks[1, 4:6, 3:5] = True
    masks[2, 1:11, 13:15] = True
    return masks


@pytest.fixture
def expected(masks) -> np.ndarray:
    ids = np.zeros(SHAPE, np.int64)
    ids[masks[0]] = 1
    ids[masks[1]] = 2
    ids[masks[2]] = 3
    return ids


def test_the_smaller_mask_is_on_top_in_any_order(masks, expected) -> None:
    np.testing.assert_array_equal(overlaid(masks, 'masks'), expected)
    turned = overlaid(masks[::-1], 'masks')
    np.testing.assert_array_equal(turned, np.where(expected > 0, 4 - expected, 0))


def test_every_form_says_the_same(masks, expected, tmp_path) -> None:
    Image.fromarray(expected.astype(np.uint16)).save(tmp_path / 'ids.png')
    np.save(tmp_path / 'ids.npy', expected.astype(np.int32))
    np.save(tmp_path / 'masks.npy', masks)
    np.savez_compressed(tmp_path / 'masks.npz', masks=masks.astype(np.uint8), scores=np.ones(3))
    np.savez(tmp_path / 'ids.npz', instance_map=expected)

    packed = [run_lengths.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    texts = [{'size': rle['size'], 'counts': rle['counts'].decode()} for rle in packed]
    (tmp_path / 'packed.json').write_text(json.dumps([{'segmentation': t} for t in texts]))
    counts = []
    for mask in masks:  # column by column, beginning with what is outside
        flat = np.concatenate([[False], mask.T.ravel()])
        edges = np.flatnonzero(np.diff(flat.astype(np.int8)))
        counts.append(np.diff(np.concatenate([[0], edges, [mask.size]])).tolist())
    lists = [{'segmentation': {'size': SHAPE, 'counts': c}, 'area': 1} for c in counts]
    (tmp_path / 'lists.json').write_text(json.dumps(lists))

    folder = tmp_path / 'folder'
    folder.mkdir()
    order = [9, 10, 100]  # by number, not by text
    for number, mask in zip(order, masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f'{number}.png')
    (folder / 'metadata.csv').write_text('id,area\n')

    for name in (
        'ids.png',
        'ids.npy',
        'masks.npy',
        'masks.npz',
        'ids.npz',
        'packed.json',
        'lists.json',
        'folder',
    ):
        found = read_instance_map(tmp_path / name)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize(
    ('name', 'content', 'fault'),
    [
        ('a.json', b'[{"segmentation": {"size": [3, 3], "counts": [4]}}]', 'mask 0 is no run-len'),
        ('a.json', b'[{"segmentation": {"size": [-3, 3], "counts": "x"}}]', 'mask 0 is no run-len'),
        ('a.json', b'[{"segmentation": {"size": [9999999, 9999999], "counts": []}}]', 'mask 0'),
        ('a.json', b'[{"segmentation": {"size": [3, 3], "counts": "000"}}]', 'counts of 0'),
        ('a.json', b'[{"segmentation": {"size": [3, 3], "counts": "~"}}]', 'not compressed run'),
        ('a.json', b'[{"segmentation": {"size": [3, 3], "counts": "oooooooooooooo"}}]', 'not comp'),
        ('a.json', b'[{"segmentation": [[0, 0, 1, 1]]}]', 'mask 0 is no run-length mask'),
        ('a.json', b'{}', 'expected a list of masks'),
        ('a.json', b'[' * 100000, 'not JSON'),
        ('a.json', b'[]', 'holds no masks'),
        ('a.npy', b'\x93NUMPY\x01', 'not a readable instance map'),
        ('a.npz', b'PK\x03\x04', 'not a readable instance map'),
        ('a.png', b'\x89PNG', 'not a readable image'),
    ],
)
def test_faults_name_the_file(tmp_path, name, content, fault) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=fault) as error:
        read_instance_map(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize('density', [0.02, 0.5, 0.98])
def test_compressed_text_means_what_pycocotools_means(density, tmp_path) -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (7, 300), (211, 3)):
        mask = rng.random(shape) < density
        packed = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
        record = {'size': shape, 'counts': packed['counts'].decode()}
        (tmp_path / 'mask.json').write_text(json.dumps([{'segmentation': record}]))
        np.testing.assert_array_equal(read_instance_map(tmp_path / 'mask.json'), mask)


def test_objects_and_odd_arrays_are_refused(tmp_path) -> None:
    np.save(tmp_path / 'objects.npy', np.array([{}]), allow_pickle=True)
    np.save(tmp_path / 'floats.npy', np.zeros(SHAPE))
    np.savez(tmp_path / 'other.npz', boxes=np.zeros((3, 4)))
    for name, fault in {
        'objects.npy': 'not a readable instance map',
        'floats.npy': r'got float64 \(12, 17\)',
        'other.npz': r"among \['boxes'\]",
    }.items():
        with pytest.raises(ValueError, match=fault):
            read_instance_map(tmp_path / name)
    with pytest.raises(FileNotFoundError, match='no such instance map'):
        read_instance_map(tmp_path / 'absent.npz')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='without images of masks'):
        read_instance_map(tmp_path / 'empty')
    with pytest.raises(ValueError, match='of several sizes'):
        overlaid([np.ones((2, 2), bool), np.ones((2, 3), bool)], 'two')
