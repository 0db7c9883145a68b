"""A scene index on disk: what comes back, how small it is, and files that are none."""

from dataclasses import replace

import numpy as np
import pytest

from oneformer3d.open_vocabulary.index import SceneIndex, load_index
from oneformer3d.open_vocabulary.query import normalize, score_texts
from oneformer3d.open_vocabulary.vectors import MaskViews
from oneformer3d.store.examples import STAMP
from oneformer3d.store.stamp import StampMismatchError


def make_index(num_masks=12, num_points=200, width=8, seed=0):
    generator = np.random.default_rng(seed)
    return SceneIndex(
        vectors=normalize(generator.standard_normal((num_masks, width))),
        mask_of_point=generator.integers(-1, num_masks, num_points),
        names=tuple(f'kind {row % 3}' if row % 4 else '' for row in range(num_masks)),
        scores=generator.random(num_masks).astype(np.float32),
        boxes=generator.random((num_masks, 7)).astype(np.float32),
        frames=('00000', '00020', 'späte Ansicht'),
        views=MaskViews(
            generator.integers(-1, 3, (num_masks, 5)),
            generator.random((num_masks, 5, 2)).astype(np.float32),
            generator.integers(0, 99, (num_masks, 5)),
        ),
        stamp=STAMP,
    )


def test_what_is_saved_comes_back(tmp_path):
    index = make_index()
    index.save(tmp_path / 'index.safetensors')
    back = load_index(tmp_path / 'index.safetensors', STAMP)

    np.testing.assert_allclose(back.vectors, index.vectors, atol=1e-3)  # half precision
    np.testing.assert_allclose(np.linalg.norm(back.vectors, axis=1), 1, atol=1e-6)
    for name in ('mask_of_point', 'scores', 'boxes'):
        assert (getattr(back, name) == getattr(index, name)).all()
    for name in ('view', 'uv', 'num_new'):
        assert (getattr(back.views, name) == getattr(index.views, name)).all()
    assert (back.names, back.frames, back.stamp) == (index.names, index.frames, index.stamp)


def test_a_large_room_fits_in_a_megabyte_and_a_half(tmp_path):
    make_index(800, 200_000, 512).save(tmp_path / 'index')
    assert (tmp_path / 'index').stat().st_size <= 1.5e6


def test_a_text_that_no_mask_is_like_gains_nothing_from_what_they_share():
    """All masks point along the first axis, and each along one of its own; a text against that
    axis is nearer to nothing in particular than any mask, before and after the mean is off."""
    vectors = normalize(np.eye(12, dtype=np.float32) + 3 * np.eye(12, dtype=np.float32)[:1])[1:]
    index = make_index(11, width=12)
    index = replace(index, vectors=vectors)
    texts = normalize(np.array([[-1] + [0.4] + [0] * 10, [0.5, 1] + [0] * 10], np.float32))
    nothing = np.eye(12, dtype=np.float32)[:1]
    plain = score_texts(index.directions, texts, nothing)
    result = index.query(texts, nothing)
    assert plain[0].max() > 0.5  # the mean taken off lifts it
    assert result.found.tolist() == [False, True]
    assert result.best[1] == 0
    # what the room is like keeps its score
    np.testing.assert_allclose(result.scores[1], plain[1], atol=1e-6)


def test_what_all_masks_share_does_not_count():
    index = make_index(20)
    shared = np.zeros(8, np.float32)
    shared[0] = 5
    tinted = replace(index, vectors=normalize(index.vectors + shared))
    assert np.linalg.norm(tinted.directions.mean(0)) < 0.3
    assert np.linalg.norm(tinted.vectors.mean(0)) > 0.9

    few = make_index(3)
    assert (few.directions == few.vectors).all()


def test_a_mask_is_found_by_its_own_direction():
    index = make_index(20, width=64)
    result = index.query(index.directions[[4, 9]], index.directions[[0]])
    assert result.best.tolist() == [4, 9]
    assert result.found.all()
    label, _ = index.name(index.directions[[4, 9]], index.directions[[0]])
    assert label[[4, 9, 0]].tolist() == [0, 1, -1]


def test_texts_of_a_group_are_one_question():
    index = make_index(20)
    texts, negatives = index.directions[:4], index.directions[10:11]
    grouped = index.query(texts, negatives, group=np.array([0, 0, 1, 1]))
    mean = normalize(np.stack([texts[:2].mean(0), texts[2:].mean(0)]))
    np.testing.assert_allclose(grouped.scores, index.query(mean, negatives).scores, atol=1e-6)


def test_another_encoder_is_refused(tmp_path):
    make_index().save(tmp_path / 'index')
    with pytest.raises(StampMismatchError, match='index: made by another encoder: encoder is'):
        load_index(tmp_path / 'index', replace(STAMP, encoder='another'))


def test_every_damaged_file_is_named(tmp_path):
    path = tmp_path / 'index'
    with pytest.raises(FileNotFoundError, match='index: no such scene index'):
        load_index(path)
    make_index().save(path)
    whole = path.read_bytes()

    generator, num_refused = np.random.default_rng(0), 0
    for _ in range(300):
        content = bytearray(whole)
        position = generator.integers(len(whole) if generator.random() < 0.2 else 1400)
        content[position] ^= 1 << generator.integers(8)
        path.write_bytes(
            content[: generator.integers(len(whole))] if generator.random() < 0.1 else content
        )
        try:
            load_index(path)
            fault = ''
        except ValueError as error:
            fault = str(error)
        assert not fault or str(path) in fault
        num_refused += bool(fault)
    assert num_refused > 100


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'names': ('chair',)}, 'names: 1 for 12 masks'),
        ({'mask_of_point': np.array([12])}, 'mask_of_point: rows 12 … 12, but there are 12'),
        ({'boxes': np.zeros((12, 6), np.float32)}, 'boxes: expected'),
        ({'frames': ()}, 'views.view: rows'),
        ({'vectors': np.full((12, 8), np.nan, np.float32)}, 'finite'),
    ],
)
def test_an_index_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(make_index(), **change)
