import numpy as np
import pytest
import torch

from oneformer3d.fields.scene.batches import RayPool
from oneformer3d.fields.scene.language import (
    LERF_SCALES,
    crop_boxes,
    crop_pyramid,
    with_language,
    write_pyramids,
)
from oneformer3d.store import StampMismatchError
from tests.helpers.small_clips import small_encoder
from tests.helpers.small_scenes import SIZE, K, box_scene, view_batch


@pytest.mark.parametrize('side', [3.0, 8.0, 24.0])
def test_crops_lie_inside_the_image_around_the_cells(side):
    boxes, (rows, columns) = crop_boxes(SIZE, side)
    assert len(boxes) == rows * columns
    for index, (top, left, bottom, right) in enumerate(boxes):
        assert 0 <= top < bottom <= SIZE[0]
        assert 0 <= left < right <= SIZE[1]
        assert bottom - top == right - left == round(side)
        centre = (index // columns + 0.5) * SIZE[0] / rows
        assert abs((top + bottom) / 2 - centre) <= max(side / 2, 1)


def test_a_cell_holds_the_embedding_of_its_crop():
    image = torch.zeros(*SIZE, 3, dtype=torch.uint8)
    image[:, :16, 0] = 255  # left half red, right half green
    image[:, 16:, 1] = 255

    def mean_color(crops):
        return crops.mean((-2, -1))

    small, large = crop_pyramid(mean_color, image, (0.25, 1.0), crop_size=8)
    assert torch.allclose(small[:, 0], torch.tensor([1.0, 0, 0]).expand(len(small), 3), atol=1e-5)
    assert torch.allclose(small[:, -1], torch.tensor([0, 1.0, 0]).expand(len(small), 3), atol=1e-5)
    assert torch.allclose(small.norm(dim=-1), torch.ones(small.shape[:2]), atol=1e-5)
    middle = large[:, large.shape[1] // 2]
    assert (middle[..., :2] > 0.3).all()
    assert len(LERF_SCALES) == 7
    assert LERF_SCALES[0] == 0.05
    assert LERF_SCALES[-1] == pytest.approx(0.5)


def test_pyramids_are_kept_stamped_and_read_as_targets(tmp_path):
    scene, encoder = box_scene(3), small_encoder()
    calls = []
    store = write_pyramids(scene, encoder, tmp_path, (0.5, 1.0), on_view=lambda: calls.append(1))
    assert len(calls) == len(list(store.keys())) == 3
    first = store.checksums()
    assert write_pyramids(scene, encoder, tmp_path, (0.5, 1.0)).checksums() == first
    with pytest.raises(StampMismatchError, match='crop sides'):
        write_pyramids(scene, encoder, tmp_path, (0.4, 1.0))

    scene = with_language(scene, store)
    assert scene.language_scales == (0.5, 1.0)
    assert scene.language_stamp.mode == 'clip'
    maps = scene.read(1).language
    expected = crop_pyramid(
        lambda crops: encoder(crops).clip_global, scene.read(1).rgb, (0.5, 1.0), encoder.input_size
    )
    for found, wanted in zip(maps, expected):
        assert np.allclose(found.float(), wanted, atol=2e-3)

    batch = RayPool(scene, [0, 1, 2], seed=1).batch(0, 300)
    target, angle = batch.targets['language'], batch.targets['crop_angle']
    assert torch.allclose(target.norm(dim=-1), torch.ones(300), atol=1e-3)
    share = angle * K[1, 1] / SIZE[0]  # of the height again
    assert 0.5 <= share.min() < 0.6 < 0.9 < share.max() <= 1.0
    assert view_batch(scene, 1).targets['crop_angle'].unique().numel() == 1


def test_scales_and_stores_of_something_else_are_refused(tmp_path):
    for scales in ((), (0.5, 0.2), (0.0, 0.5), (0.5, 1.5)):
        with pytest.raises(ValueError, match='ascending shares'):
            crop_pyramid(lambda crops: crops.mean((-2, -1)), torch.zeros(8, 8, 3), scales)
    scene, encoder = box_scene(2), small_encoder(mode='clip')
    store = write_pyramids(scene, encoder, tmp_path, (0.5,))
    store.stamp = encoder.stamp()
    with pytest.raises(ValueError, match='no crop embeddings'):
        with_language(scene, store)
