"""Scores of texts, against torch's softmax and closed forms."""

import numpy as np
import pytest
import torch

from oneformer3d.clip.text import pairwise_relevancy
from oneformer3d.open_vocabulary.query import (
    answer,
    merge_groups,
    name_masks,
    normalize,
    score_texts,
)


def unit(*shape, seed=0):
    return normalize(np.random.default_rng(seed).standard_normal(shape))


def test_scores_are_the_relevancy_of_language_fields():
    vectors, texts, negatives = unit(9, 5), unit(4, 5, seed=1), unit(3, 5, seed=2)
    expected = pairwise_relevancy(
        *(torch.from_numpy(x) for x in (vectors, texts, negatives)), scale=10.0
    )
    scores = score_texts(vectors, texts, negatives, temperature=0.1)
    np.testing.assert_allclose(scores, expected.numpy().T, atol=1e-6)


def test_a_text_has_the_same_answer_alone_and_among_many():
    vectors, texts, negatives = unit(30, 8), unit(500, 8, seed=1), unit(4, 8, seed=2)
    together = answer(score_texts(vectors, texts, negatives), np.arange(30))
    for row in (0, 17, 499):
        alone = answer(score_texts(vectors, texts[row : row + 1], negatives), np.arange(30))
        np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-6)
        assert alone.best[0] == together.best[row]
        assert alone.found[0] == together.found[row]


def test_order_of_masks_and_texts_does_not_matter():
    vectors, texts, negatives = unit(12, 6), unit(5, 6, seed=1), unit(2, 6, seed=2)
    masks, rows = np.random.default_rng(3).permutation(12), np.array([3, 1, 4, 0, 2])
    scores = score_texts(vectors, texts, negatives)
    moved = score_texts(vectors[masks], texts[rows], negatives[::-1].copy())
    np.testing.assert_allclose(moved, scores[rows][:, masks], atol=1e-6)


def test_it_abstains_where_a_negative_is_nearer_than_the_text():
    axes = np.eye(4, dtype=np.float32)
    # masks look like axes 0 and 1; asked for axis 2, which nothing looks like
    slanted = normalize(np.array([[1, 0, 0, 0.3], [0, 1, 0, 0.3]]))
    result = answer(score_texts(slanted, axes[[0, 2]], axes[3:]), np.array([1, 0, -1]))
    assert result.found.tolist() == [True, False]
    assert result.best.tolist() == [0, -1]
    assert (result.scores[1] < 0.5).all()

    points = result.point_scores(0)
    assert points[2] == 0
    assert (points[:2] == result.scores[0, [1, 0]]).all()
    assert result.ranked(0).tolist() == [0, 1]


def test_masks_that_no_view_saw_are_never_found():
    vectors = np.stack([np.zeros(3, np.float32), unit(1, 3)[0]])
    scores = score_texts(vectors, vectors[1:], -vectors[1:])
    assert scores[0, 0] == 0
    assert scores[0, 1] > 0.99
    assert name_masks(vectors, vectors[1:], -vectors[1:])[0].tolist() == [-1, 0]


def test_no_masks_find_nothing():
    result = answer(
        score_texts(np.empty((0, 3), np.float32), unit(2, 3), unit(1, 3)), np.full(5, -1)
    )
    assert not result.found.any()
    assert (result.best == -1).all()
    assert (result.point_scores(1) == 0).all()
    assert name_masks(np.empty((0, 3), np.float32), unit(2, 3), unit(1, 3))[0].shape == (0,)


def test_a_group_is_asked_with_its_mean_direction():
    texts = unit(6, 5)
    group = np.array([0, 2, 1, 0, 2, 2])
    merged = merge_groups(texts, group)
    for row in range(3):
        mean = texts[group == row].mean(0)
        np.testing.assert_allclose(merged[row], mean / np.linalg.norm(mean), atol=1e-6)
    with pytest.raises(ValueError, match='1 is missing'):
        merge_groups(texts[:2], np.array([0, 2]))


def test_names_share_one_softmax_with_the_negatives():
    vectors, names, negatives = unit(10, 6), unit(3, 6, seed=1), unit(2, 6, seed=2)
    label, probability = name_masks(vectors, names, negatives, temperature=0.05)
    texts = torch.from_numpy(np.concatenate([names, negatives]))
    expected = (torch.from_numpy(vectors) @ texts.T / 0.05).softmax(1)

    np.testing.assert_allclose(probability, expected[:, :3].numpy(), atol=1e-6)
    best = expected.argmax(1).numpy()
    assert (label == np.where(best < 3, best, -1)).all()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'text_vectors': unit(2, 4)}, 'text_vectors: expected'),
        ({'text_vectors': np.full((1, 3), np.nan, np.float32)}, 'must be finite'),
        ({'negatives': np.empty((0, 3), np.float32)}, 'at least one'),
        ({'temperature': 0.0}, 'temperature must be positive'),
    ],
)
def test_questions_that_make_no_sense_are_refused(change, message):
    arguments = {'vectors': unit(4, 3), 'text_vectors': unit(2, 3), 'negatives': unit(1, 3)}
    with pytest.raises(ValueError, match=message):
        score_texts(**arguments | change)
