"""Text prompts as vectors, and how much a feature is about each of them.

Enters: names or phrases, and features in the text space. Leaves: unit vectors (T, D), one per
prompt, each the mean over a set of sentences; cosines and relevancies (…, T). The tokenizer is
open_clip's bundled byte-pair encoding, so nothing is fetched.

Letters: T prompts, S sentences per prompt, D width of the text space, K canonical phrases.
"""

import functools
from collections.abc import Sequence

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from .weights import ClipModel

PROMPT_TEMPLATES = (
    'a {}',
    'a photo of a {}',
    'a photo of the {}',
    'a {} in a room',
    'there is a {} in the scene',
)
_ARTICLES = ('a', 'an', 'the')
CANONICAL_PHRASES = ('object', 'things', 'stuff', 'texture')


@torch.no_grad()
def encode_text(
    clip: ClipModel, prompts: Sequence[str], templates: Sequence[str] = PROMPT_TEMPLATES
) -> Tensor:
    """One unit vector per prompt: the normalised mean of its sentences' unit vectors.

    Args:
        clip: open_clip's CLIP.
        prompts: T names ('chair') or phrases.
        templates: sentences with one {} for the prompt; ('{}',) takes prompts as they are.

    Returns:
        (T, D) float32, norm 1.

    Raises:
        ValueError: no or empty prompts or templates, or a template without {}.
    """
    prompts, templates = check_texts(prompts, 'prompts'), check_texts(templates, 'templates')
    for template in templates:
        if template.count('{}') != 1:
            raise ValueError(f'templates: expected one {{}} in {template!r}')

    sentences = [fill_template(template, prompt) for prompt in prompts for template in templates]
    vectors = F.normalize(clip.encode_text(tokenize(clip, sentences)).float(), dim=-1)  # (T·S, D)
    return F.normalize(vectors.unflatten(0, (len(prompts), len(templates))).mean(1), dim=-1)


def fill_template(template: str, prompt: str) -> str:
    """The sentence of a prompt; an article of its own gives way to the template's.

    Example:
        >>> fill_template('a photo of the {}', 'a chair'), fill_template('{}', 'a chair')
        ('a photo of the chair', 'a chair')
    """
    before = template.partition('{}')[0].split()
    first, _, rest = prompt.partition(' ')
    if rest and before and before[-1].lower() in _ARTICLES and first.lower() in _ARTICLES:
        prompt = rest
    return template.replace('{}', prompt)


def tokenize(clip: ClipModel, sentences: Sequence[str]) -> Tensor:
    """Sentences → (S, context length) int64 on the model's device; too long ones are cut."""
    tokens = _tokenizer()(list(sentences), context_length=clip.context_length)
    return tokens.to(clip.logit_scale.device)


def cosine_similarity(features: Tensor, text: Tensor) -> Tensor:
    """Cosine between features and prompts, in float32.

    Args:
        features: (…, D), any length; zero vectors give zero.
        text: (T, D).

    Returns:
        (…, T) in [−1, 1].

    Raises:
        ValueError: the widths differ.
    """
    if features.shape[-1] != text.shape[-1]:
        raise ValueError(
            f'features of width {features.shape[-1]} are not in the text space of '
            f'width {text.shape[-1]}'
        )
    return F.normalize(features.float(), dim=-1) @ F.normalize(text.float(), dim=-1).t()


def softmax_relevancy(features: Tensor, text: Tensor, scale: float = 100.0) -> Tensor:
    """Which of the prompts: softmax over them of the scaled cosine.

    Args:
        features: (…, D).
        text: (T, D).
        scale: CLIP's logit scale, at most 100 in trained models.

    Returns:
        (…, T), sums to 1.
    """
    return (scale * cosine_similarity(features, text)).softmax(dim=-1)


def pairwise_relevancy(
    features: Tensor, text: Tensor, canonical: Tensor, scale: float = 10.0
) -> Tensor:
    """Each prompt by itself: least softmax against canonical phrases (LERF, eq. 4, ICCV 2023).

    Args:
        features: (…, D).
        text: (T, D).
        canonical: (K, D) vectors of phrases such as ``CANONICAL_PHRASES``.
        scale: inverse temperature.

    Returns:
        (…, T) in [0, 1]; above 0.5 the prompt is nearer than every canonical phrase.
    """
    # σ(s (cos(f, t) − max_k cos(f, c_k)))
    positive = cosine_similarity(features, text)
    # the least of the pairwise softmaxes is the one against the nearest phrase
    negative = cosine_similarity(features, canonical).amax(dim=-1, keepdim=True)
    return torch.sigmoid(scale * (positive - negative))


def channels_last(feature_map: Tensor) -> Tensor:
    """(…, D, h, w) map → (…, h, w, D), as the functions above take features."""
    return feature_map.movedim(-3, -1)


@functools.cache
def _tokenizer() -> open_clip.SimpleTokenizer:
    """One for the process: reading its 49k merges takes a good part of a second."""
    return open_clip.SimpleTokenizer()


def check_texts(texts: Sequence[str], name: str) -> list[str]:
    """A list of non-empty strings.

    Raises:
        ValueError: something else, such as one string alone.
    """
    if isinstance(texts, str) or not texts:
        raise ValueError(f'{name}: expected a list of texts, got {texts!r}')
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f'{name}: expected texts, got {text!r}')
    return list(texts)
