"""How good names by text are: of given masks, of a ranking, and of words for what is not there.

Enters: names that K masks got and true ones, scores of masks, answers of a query. Leaves: fractions
in 0…1, NaN where there is nothing to count. C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oneformer3d.lifting.shapes import expect_shape


@dataclass(frozen=True)
class NamingScores:
    """How many masks got their name.

    Attributes:
        top1: share of the masks.
        balanced: mean over the classes that occur of the share of their masks.
        retrieval: mean over these of ``ranking_precision`` of all masks for the class's name.
    """

    top1: float
    balanced: float
    retrieval: float


def naming_scores(
    named: NDArray[np.int64], true: NDArray[np.int64], similarity: NDArray[np.floating]
) -> NamingScores:
    """Score names of masks.

    Args:
        named: (K,) class 0…C−1, −1 for none of them.
        true: (K,) class 0…C−1.
        similarity: (K, C), by which a name ranks all masks.

    Example:
        >>> similarity = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.5]])
        >>> naming_scores(np.array([0, 0, 1]), np.array([0, 1, 1]), similarity)
        NamingScores(top1=0.6666666666666666, balanced=0.75, retrieval=1.0)
    """
    num_masks, num_classes = expect_shape('similarity', similarity, 'K C')
    expect_shape('named', named, 'K', K=num_masks)
    expect_shape('true', true, 'K', K=num_masks)
    if not num_masks:
        return NamingScores(*[float('nan')] * 3)

    right = named == true
    occurring = [k for k in range(num_classes) if (true == k).any()]
    return NamingScores(
        float(right.mean()),
        float(np.mean([right[true == k].mean() for k in occurring])),
        float(np.mean([ranking_precision(similarity[:, k], true == k) for k in occurring])),
    )


def ranking_precision(scores: NDArray[np.floating], relevant: NDArray[np.bool_]) -> float:
    """Average precision of a ranking: the mean, over what is relevant, of precision at its place.

    Equal scores keep their order.

    Args:
        scores: (K,).
        relevant: (K,).

    Returns:
        0…1, NaN without anything relevant.

    Example:
        >>> ranking_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]))
        0.8333333333333333
    """
    expect_shape('relevant', relevant, 'K', K=len(scores))
    if not relevant.any():
        return float('nan')
    hits = relevant[np.argsort(-scores, kind='stable')]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def false_alarms(found: NDArray[np.bool_], there: NDArray[np.bool_]) -> float:
    """Share of the words for what is not there that found something.

    Args:
        found: (T,) whether a text found a mask.
        there: (T,) whether there is one.

    Example:
        >>> false_alarms(np.array([True, True, False]), np.array([True, False, False]))
        0.5
    """
    expect_shape('there', there, 'T', T=len(found))
    absent = found[~there]
    return float(absent.mean()) if len(absent) else float('nan')
