"""Prompts against open_clip's own text encoder; relevancies against their formulas."""

import math

import open_clip
import pytest
import torch
import torch.nn.functional as F

from oneformer3d.clip.text import (
    channels_last,
    cosine_similarity,
    encode_text,
    pairwise_relevancy,
    softmax_relevancy,
)
from tests.helpers.small_clips import random_images, small_encoder


def test_an_ensemble_is_the_normalised_mean_of_its_sentences() -> None:
    clip = small_encoder().clip
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    ours = encode_text(clip, ['chair', 'desk lamp'], templates=('a {}', 'my {} here'))
    for row, name in zip(ours, ('chair', 'desk lamp')):
        sentences = tokenizer([f'a {name}', f'my {name} here'])
        vectors = clip.encode_text(sentences, normalize=True)
        torch.testing.assert_close(row, F.normalize(vectors.mean(0), dim=0))
    torch.testing.assert_close(ours.norm(dim=-1), torch.ones(2))


def test_the_encoder_gives_text_and_maps_in_one_space() -> None:
    encoder = small_encoder(mode='clip')
    text = encoder.encode_text(['chair', 'table', 'lamp'])
    scores = softmax_relevancy(channels_last(encoder(random_images()).feat), text)
    assert scores.shape == (2, 6, 6, 3)
    torch.testing.assert_close(scores.sum(-1), torch.ones(2, 6, 6))


def test_relevancies_are_their_formulas() -> None:
    features, text, canonical = torch.randn(5, 8), torch.randn(3, 8), torch.randn(4, 8)
    cosine = cosine_similarity(features, text)
    relevancy = pairwise_relevancy(features, text, canonical, scale=10.0)
    for n in range(5):
        for t in range(3):
            expected = F.cosine_similarity(features[n], text[t], dim=0)
            torch.testing.assert_close(cosine[n, t], expected)
            positive = math.exp(10 * expected)
            negatives = [
                math.exp(10 * F.cosine_similarity(features[n], c, dim=0)) for c in canonical
            ]
            least = min(positive / (positive + negative) for negative in negatives)
            assert relevancy[n, t] == pytest.approx(least, rel=1e-4)


def test_zero_features_have_no_preference() -> None:
    scores = softmax_relevancy(torch.zeros(2, 8), torch.randn(4, 8))
    torch.testing.assert_close(scores, torch.full((2, 4), 0.25))


def test_bad_prompts_and_widths() -> None:
    clip = small_encoder().clip
    for prompts in ('chair', [], [''], [3]):
        with pytest.raises(ValueError, match='prompts'):
            encode_text(clip, prompts)
    with pytest.raises(ValueError, match='templates'):
        encode_text(clip, ['chair'], templates=('no place',))
    with pytest.raises(ValueError, match='width 7'):
        cosine_similarity(torch.zeros(2, 7), torch.zeros(3, 8))
