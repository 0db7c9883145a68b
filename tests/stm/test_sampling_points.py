"""Where a query samples: points of the decoder brought back to pixels, and drawn there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from oneformer3d.registry import MODELS
from oneformer3d.stm.sampling_points import (
    ENLARGED,
    QuerySamples,
    beside,
    draw_samples,
    query_of_mask,
    samples_of_query,
)
from tests.helpers.fusion_scenes import IMAGE_SIZE, batch
from tests.helpers.small_models import small_settings
from tests.helpers.stm_scenes import open_gates, posed_scene, stm_segmentor


def test_points_spread_around_the_seen_part_of_the_query():
    model = stm_segmentor(anchors=['own'], box_mode='pixels').eval()
    points, views, sample = posed_scene(0, 3)
    inputs, samples = batch((points, views, sample))
    query = 4
    found = samples_of_query(model, inputs, samples, query)
    assert 1 <= len(found) <= 2  # the slots of this decoder
    own = sample.gt_pts_seg.sp_pts_mask == query
    for slot, samples in enumerate(found):
        assert samples.slot == slot
        assert samples.anchors == ('own',)
        assert samples.uv.shape == (2 * 3, 2)  # groups × points
        seen = (views.pairs.view == views.frames.index(samples.frame)) & own[views.pairs.point]
        centre = views.pairs.uv[seen].mean(0).numpy()
        left, top, right, bottom = samples.boxes[0]
        np.testing.assert_allclose([(left + right) / 2, (top + bottom) / 2], centre, atol=0.05)
        # offsets start within half a box of its centre
        low, high = samples.boxes[0][:2], samples.boxes[0][2:]
        assert (samples.uv >= low - 0.1).all()
        assert (samples.uv <= high + 0.1).all()


def test_every_group_belongs_to_its_anchor():
    model = open_gates(stm_segmentor()).eval()
    inputs, samples = batch(posed_scene(0, 3))
    samples = samples_of_query(model, inputs, samples, 0)[0]
    assert samples.anchors == ('mask', 'own')
    assert samples.group.tolist() == [0] * 3 + [1] * 3


def test_a_picture_shows_the_dots():
    image = np.zeros((20, 30, 3), np.uint8)
    samples = QuerySamples(
        'a', 0, np.array([[5.0, 4.0]]), np.array([0]), np.array([[2.0, 2, 20, 12]]), ('mask',)
    )
    picture = draw_samples(image, samples, visible=np.array([[25.0, 15.0]]))
    assert picture.shape == (20 * ENLARGED, 30 * ENLARGED, 3)
    row, column = round(4.5 * ENLARGED - 0.5), round(5.5 * ENLARGED - 0.5)
    assert picture[row, column].any()
    assert picture[round(15.5 * ENLARGED - 0.5), round(25.5 * ENLARGED - 0.5)].tolist() == [255] * 3
    assert not picture[:5, :5].any()
    assert beside([picture, picture]).shape[1] == 2 * picture.shape[1]


def test_the_query_of_an_instance():
    mask_logits = torch.tensor([[1.0, -1, 1, -1], [-1, 1, -1, -1], [1, 1, 1, 1]])
    superpoints = torch.arange(4).repeat_interleave(3)
    assert query_of_mask(mask_logits, superpoints, (superpoints == 1).numpy()) == 1
    assert query_of_mask(mask_logits, superpoints, (superpoints % 2 == 0).numpy()) == 0


def test_wrong_input_is_named():
    points, views, sample = posed_scene(0, 2)
    plain = MODELS.build(small_settings()).eval()
    inputs, samples = batch((points, views, sample))
    with pytest.raises(ValueError, match='reads no views'):
        samples_of_query(plain, inputs, samples, 0)
    model = stm_segmentor().eval()
    with pytest.raises(ValueError, match=r'query: expected 0…11, got 99'):
        samples_of_query(model, inputs, samples, 99)
    inputs, samples = batch((points, None, sample))
    with pytest.raises(ValueError, match='no views'):
        samples_of_query(model, inputs, samples, 0)
    blind = replace(views, pairs=views.pairs.select(views.pairs.view < 0))
    inputs, samples = batch((points, blind, sample))
    assert samples_of_query(model, inputs, samples, 0) == []
    assert views.image_size == IMAGE_SIZE
