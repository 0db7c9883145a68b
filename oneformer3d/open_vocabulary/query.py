"""Which masks a text is about, or that none is: scores of masks × texts.

Enters: vectors of K masks (K, D) and of T texts (T, D), vectors of nothing in particular (M, D).
Leaves: ``QueryResult``, or the most likely of a list of names. A text is compared with the
negatives alone, so its answer is the same by itself and among ten thousand others.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oneformer3d.lifting.shapes import expect_shape

NOTHING = -1
# Masks rank by their score times how likely their name is. At 0.02 every name is all but certain.
NAME_TEMPERATURE = 0.1
_MAX_LOGIT = 60.0  # exp of more is still a float32


@dataclass(frozen=True, eq=False)
class QueryResult:
    """How well each mask fits each of T texts (or groups of texts).

    Attributes:
        scores: (T, K) float32 in 0…1; above 0.5 a mask is nearer to the text than to every
            negative. Masks that no view sees have 0.
        found: (T,) bool, whether a mask scores above the threshold.
        best: (T,) int64 the mask with the greatest score, −1 where nothing is found.
        mask_of_point: (N,) int64, −1 for none.
    """

    scores: NDArray[np.float32]
    found: NDArray[np.bool_]
    best: NDArray[np.int64]
    mask_of_point: NDArray[np.int64]

    def point_scores(self, text: int) -> NDArray[np.float32]:
        """The scores of one text at the points, (N,) float32, 0 for points without a mask."""
        with_none = np.append(self.scores[text], np.float32(0))
        return with_none[self.mask_of_point]

    def ranked(self, text: int) -> NDArray[np.int64]:
        """The masks of one text, the best first, (K,) int64."""
        return np.argsort(-self.scores[text], kind='stable')


def score_texts(
    vectors: NDArray[np.float32],
    text_vectors: NDArray[np.float32],
    negatives: NDArray[np.float32],
    temperature: float = 0.1,
    loss: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Relevancy of masks for texts (LERF, ICCV 2023, eq. 4, against the nearest negative).

        s_tk = σ((v_k · x_t − max_m v_k · n_m) / τ)

    Args:
        vectors: (K, D) unit vectors; zero vectors score 0.
        text_vectors: (T, D) unit.
        negatives: (M, D) unit, at least one.
        temperature: τ.
        loss: (T, K) not positive, added to v_k · x_t; None adds nothing.

    Returns:
        (T, K) float32.

    Raises:
        ValueError: shapes that do not fit, no negatives, no temperature, values not finite.

    Example:
        >>> vectors = np.array([[1, 0], [0.6, 0.8], [0, 0]], np.float32)
        >>> chair, nothing = np.array([[1, 0]], np.float32), np.array([[0.8, 0.6]], np.float32)
        >>> score_texts(vectors, chair, nothing).round(3)
        array([[0.881, 0.027, 0.   ]], dtype=float32)
    """
    width = expect_shape('vectors', vectors, 'K D')[1]
    for name, texts in (('text_vectors', text_vectors), ('negatives', negatives)):
        expect_shape(name, texts, 'T D', D=width)
        if not np.isfinite(texts).all():
            raise ValueError(f'{name}: vectors of text must be finite')
    if not len(negatives):
        raise ValueError('negatives: expected at least one')
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, got {temperature}')

    nearest_negative = (negatives @ vectors.T).max(0)  # (K,)
    cosines = text_vectors @ vectors.T  # (T, K)
    if loss is not None:
        expect_shape('loss', loss, 'T K', T=len(text_vectors), K=len(vectors))
        cosines = cosines + loss
    margin = (cosines - nearest_negative) / np.float32(temperature)
    scores = 1 / (1 + np.exp(-margin.clip(-_MAX_LOGIT, _MAX_LOGIT)))
    return np.where(vectors.any(1), scores, np.float32(0)).astype(np.float32)


def answer(
    scores: NDArray[np.float32], mask_of_point: NDArray[np.int64], threshold: float = 0.5
) -> QueryResult:
    """Scores with what they mean: found or not, and where.

    Args:
        scores: (T, K).
        mask_of_point: (N,) int64.
        threshold: what a score must exceed to count as found.
    """
    num_texts, num_masks = expect_shape('scores', scores, 'T K')
    if not num_masks:
        return QueryResult(
            scores, np.zeros(num_texts, bool), np.full(num_texts, NOTHING), mask_of_point
        )
    best = scores.argmax(1)  # (T,)
    found = scores[np.arange(num_texts), best] > threshold
    return QueryResult(scores, found, np.where(found, best, NOTHING), mask_of_point)


def merge_groups(
    text_vectors: NDArray[np.float32], group: NDArray[np.int64]
) -> NDArray[np.float32]:
    """One unit vector for all texts of a group: the direction of their mean.

    Args:
        text_vectors: (T, D) unit.
        group: (T,) int64 ids 0…G−1, each used.

    Returns:
        (G, D) float32.

    Example:
        >>> merge_groups(np.eye(3, dtype=np.float32), np.array([0, 1, 0])).round(2)
        array([[0.71, 0.  , 0.71],
               [0.  , 1.  , 0.  ]], dtype=float32)
    """
    expect_shape('group', group, 'T', T=len(text_vectors))
    sizes = np.bincount(group)
    if not sizes.all():
        raise ValueError(f'group: ids must be dense, {np.flatnonzero(sizes == 0)[0]} is missing')
    sums = np.zeros((len(sizes), text_vectors.shape[1]))
    np.add.at(sums, group, text_vectors)
    return normalize(sums)


def name_masks(
    vectors: NDArray[np.float32],
    names: NDArray[np.float32],
    negatives: NDArray[np.float32],
    temperature: float = NAME_TEMPERATURE,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The most likely of several names for each mask, or none of them.

        p_kc = softmax over names and negatives of v_k · x_c / τ

    Args:
        vectors: (K, D) unit vectors.
        names: (C, D) unit vectors of the names.
        negatives: (M, D); where one of them is the most likely, the mask has no name.
        temperature: τ.

    Returns:
        Name of each mask (K,) int64, −1 for none of them, and the probabilities (K, C).

    Example:
        >>> vectors = np.array([[1, 0, 0], [0.1, 0.9, 0], [0, 0, 1]], np.float32)
        >>> name_masks(vectors, np.eye(3, dtype=np.float32)[:2], np.eye(3, dtype=np.float32)[2:])[0]
        array([ 0,  1, -1])
    """
    texts = np.concatenate([names, negatives])
    logits = vectors @ texts.T / np.float32(temperature)  # (K, C + M)
    logits = logits - logits.max(1, keepdims=True, initial=-np.inf)
    probabilities = np.exp(logits)
    probabilities = probabilities / probabilities.sum(1, keepdims=True)

    best = probabilities.argmax(1)
    named = (best < len(names)) & vectors.any(1)
    return np.where(named, best, NOTHING), probabilities[:, : len(names)].astype(np.float32)


def normalize(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length 1 in float32; rows of zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)
