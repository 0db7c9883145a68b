"""Scenes as text sees them: their masks, the pixels that show these, and an index made once."""

from dataclasses import replace

import numpy as np
import pytest

from oneformer3d.data.layouts import find_layout, read_depth
from oneformer3d.inference.opened_scene import open_scene, scene_of_result
from oneformer3d.inference.scene_index import (
    index_scene,
    load_or_index,
    recording_of,
    text_image_reader,
)
from oneformer3d.structures import Segmentation, SegmentationInfo
from oneformer3d.structures.instances import make_instance
from oneformer3d.tiny_clip.train import build_tiny_clip, save_tiny_clip
from tests.helpers.clip_files import EMBED_DIM, SETTINGS, write_small_clip


def silent(step: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return write_small_clip(tmp_path_factory.mktemp('clip') / 'clip.pth')


@pytest.fixture(scope='module')
def room(tiny_rooms):
    return sorted((tiny_rooms / 'posed_images').iterdir())[0]


@pytest.fixture(scope='module')
def scene(room):
    return open_scene(room)


@pytest.fixture(scope='module')
def index(scene, weights):
    return index_scene(scene, text_image_reader(weights), silent)


def segment_by_height(scene) -> Segmentation:
    """All points below the middle are a lamp of score 0.9, the others wall."""
    low = np.flatnonzero(scene.upright[:, 2] < np.median(scene.upright[:, 2]))
    semantic = np.zeros(len(scene.points), np.int64)
    semantic[low] = 1
    lamp = make_instance('lamp', 1, 0.9, low, scene.upright)
    return Segmentation(
        scene.points, semantic, semantic, semantic, (lamp,), ('wall', 'lamp'), (1, 2),
        np.array([[9, 9, 9], [200, 0, 0]], np.uint8), scene.upright_from_scan,
        SegmentationInfo(source=scene.path),
    )  # fmt: skip


def test_every_point_has_a_piece_and_every_seen_piece_a_direction(scene, index):
    assert (index.mask_of_point >= 0).all()
    assert index.vectors.shape == (len(index.names), EMBED_DIM)
    seen = index.views.view[:, 0] >= 0
    assert seen.mean() > 0.9
    np.testing.assert_allclose(np.linalg.norm(index.vectors[seen], axis=1), 1, atol=1e-5)
    assert (index.vectors[~seen] == 0).all()
    assert set(index.names) == {''}


def test_pixels_show_their_masks(room, index):
    """The depth at a mask's pixel, taken back to the world, lies in the mask's box."""
    frames = {frame.name: frame for frame in find_layout(room).frames}
    distances = []
    for mask in range(len(index.names)):
        for view, (u, v) in zip(index.views.view[mask], index.views.uv[mask]):
            if view < 0:
                continue
            frame = frames[index.frames[view]]
            depth = read_depth(frame)
            scale = np.array(depth.shape[::-1]) / np.array(frame.image_size[::-1])
            column, row = np.rint((np.array([u, v]) + 0.5) * scale - 0.5).astype(int)
            ray = np.linalg.inv(frame.depth_intrinsics) @ [column, row, 1]
            point = frame.world_from_cam @ [*(ray * depth[row, column]), 1]
            centre, size = index.boxes[mask, :3], index.boxes[mask, 3:6]
            distances.append(np.linalg.norm(point[:3] - centre) - np.linalg.norm(size) / 2)
    # pixels are whole ones, and the points are means of 2 cm
    assert len(distances) > 10
    assert np.quantile(distances, 0.95) < 0.05


def test_instances_of_a_result_come_first_and_pieces_have_the_class_of_most_points(scene, weights):
    result = segment_by_height(scene)
    segmented = scene_of_result(result, 'result', scene.recording)
    index = index_scene(segmented, text_image_reader(weights), silent)

    assert (index.names[0], index.scores[0]) == ('lamp', np.float32(0.9))
    np.testing.assert_array_equal(
        np.flatnonzero(index.mask_of_point == 0), result.instances[0].members
    )
    assert set(index.names[1:]) == {'wall'}
    np.testing.assert_allclose(index.boxes[0, :3], result.instances[0].box.centre, atol=1e-5)


def test_an_index_is_made_once_for_these_images_and_this_clip(scene, weights, tmp_path):
    path, steps = tmp_path / 'index.safetensors', []

    def listen(step, done, total):
        steps.append(step)

    reader = text_image_reader(weights)
    first = load_or_index(path, scene, reader, listen)
    assert 'images' in steps
    steps.clear()
    again = load_or_index(path, scene, reader, listen)
    assert not steps
    np.testing.assert_array_equal(again.vectors, first.vectors)

    # fewer images, another CLIP, and a damaged file are each a reason to look again
    fewer = load_or_index(path, scene, text_image_reader(weights, max_views=2), listen)
    assert steps
    assert len(fewer.frames) == 2
    other, settings = tmp_path / 'other.pth', replace(SETTINGS, seed=5)
    save_tiny_clip(other, build_tiny_clip(settings), settings, {}, {})
    assert load_or_index(path, scene, text_image_reader(other), silent).stamp != first.stamp
    path.write_bytes(path.read_bytes()[:-40])
    np.testing.assert_array_equal(load_or_index(path, scene, reader, silent).vectors, first.vectors)


def test_a_result_finds_its_images_again_or_says_that_they_are_gone(scene, room, tmp_path):
    result = segment_by_height(scene)
    result.save(tmp_path / 'here')
    assert len(open_scene(tmp_path / 'here').recording.frames) == len(scene.recording.frames)

    moved = replace(result, info=replace(result.info, source=str(tmp_path / 'gone')))
    moved.save(tmp_path / 'moved')
    opened = open_scene(tmp_path / 'moved')
    with pytest.raises(ValueError, match=r'no longer in .*gone.*--images'):
        recording_of(opened)
    assert recording_of(open_scene(tmp_path / 'moved', images=room)).folder == room


def test_a_cloud_has_no_images(scene, tmp_path):
    np.save(tmp_path / 'cloud.npy', scene.points)
    with pytest.raises(ValueError, match=r'cloud.npy.*there are none.*--images'):
        recording_of(open_scene(tmp_path / 'cloud.npy'))


def test_origin_brings_points_back_to_the_cameras(scene, weights, index):
    """Points that were moved by an origin see the same images as those that were not."""
    shift = np.array([4.0, -2.0, 1.0])
    points = scene.points.copy()
    points[:, :3] -= shift.astype(np.float32)
    moved = replace(scene, points=points, origin=shift)
    other = index_scene(moved, text_image_reader(weights), silent)
    of_points = [one.vectors[one.mask_of_point] for one in (index, other)]  # (N, D) each
    assert (of_points[0] * of_points[1]).sum(1).mean() > 0.95
