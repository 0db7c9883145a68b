"""What a fitted field says of text: how relevant each phrase is to each point.

Enters: a field with language or with features of a text space, points (N, 3) in world metres,
phrases or their unit vectors. Leaves: relevancies (N, P), 0 where nothing was observed.

Letters: N points, D width of a feature, P positive and K negative phrases, S patch sizes.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer3d.clip.text import CANONICAL_PHRASES, pairwise_relevancy
from oneformer3d.lifting.chunks import DEFAULT_BYTE_BUDGET
from oneformer3d.lifting.shapes import expect_shape

from ..fitting.fitted import FittedField
from ..networks.field import Field
from ..networks.heads import LanguageHead
from .query import chunks_of_points, field_and_observed

# Patch sizes that a language field is searched over (LERF, section 3.4), metres.
LANGUAGE_SIZES = tuple(1.5 * (k + 1) / 30 for k in range(30))
# So many points' vectors stay in a processor's cache from one size to the next.
_CHUNK = 2048

EncodeText = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True, eq=False)
class TextQuery:
    """P phrases with their unit vectors (P, D), and vectors (K, D) of nothing in particular."""

    phrases: tuple[str, ...]
    vectors: Tensor
    negatives: Tensor

    def averaged(self) -> 'TextQuery':
        """The P phrases as one, the unit mean of their vectors (F3RM, CoRL 2023).

        Example:
            >>> two = TextQuery(('mug', 'cup'), torch.eye(2), torch.ones(1, 2))
            >>> two.averaged().phrases, two.averaged().vectors
            (('mug, cup',), tensor([[0.7071, 0.7071]]))
        """
        mean = F.normalize(self.vectors.mean(0, keepdim=True), dim=-1)  # (1, D)
        return TextQuery((', '.join(self.phrases),), mean, self.negatives)


@torch.no_grad()
def query_lerf_with_text(
    lerf_model: FittedField | Field,
    point_cloud: Tensor,
    text_queries: Sequence[str] | Tensor,
    threshold: float = 0.5,
    *,
    negatives: Sequence[str] | Tensor = CANONICAL_PHRASES,
    encode_text: EncodeText | None = None,
    temperature: float = 0.1,
    sizes: Sequence[float] = LANGUAGE_SIZES,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> dict[str, Tensor]:
    """Which of the phrases each point is about.

    A field of language is queried at every size and the best size per point and phrase counts; a
    field of features in CLIP's text space is queried once.

    Args:
        lerf_model: with a head of language, or of features of mode 'clip', see ``text_head``.
        point_cloud: (N, 3) world coordinates in metres.
        text_queries: P phrases, or their unit vectors (P, D).
        threshold: relevancy from which a point counts as found; 0.5 is neutral.
        negatives: K phrases that are nothing in particular, or their vectors.
        encode_text: phrases → vectors; None takes the model's own, which LERF has.
        temperature: of ``relevancy``.
        sizes: S patch sizes in metres.
        byte_budget: bytes for temporary values.

    Returns:
        labels (N,) int64 best phrase, confidence (N,) its relevancy, valid_mask (N,) whether that
        is above the threshold and the point was observed, relevancy_matrix (N, P).
    """
    field, observed = field_and_observed(lerf_model, point_cloud, byte_budget)
    encode = encode_text or (field.encode_text if field.reads_text else None)
    positives, negatives = (
        _vectors(texts, encode).to(field.unit_from_world) for texts in (text_queries, negatives)
    )
    name = text_head(lerf_model)

    # what no view observed has no answer and is not asked for
    scores = point_cloud.new_zeros(len(point_cloud), len(positives), dtype=torch.float32)  # (N, P)
    best = [
        functools.reduce(
            torch.maximum,
            (relevancy(vectors, positives, negatives, temperature) for vectors in by_size),
        )
        for by_size in _vectors_at_points(field, name, point_cloud[observed], sizes, byte_budget)
    ]
    scores[observed] = torch.cat(best).to(scores)
    confidence, labels = scores.max(-1)
    return {
        'labels': labels,
        'confidence': confidence,
        'valid_mask': (confidence > threshold) & observed,
        'relevancy_matrix': scores,
    }


def text_head(model: FittedField | Field) -> str:
    """The head that text is compared with: language, else features of a text space, else CLIP's.

    Raises:
        ValueError: the field has none of them.
    """
    stamps = model.stamps if isinstance(model, FittedField) else {}
    heads = (model.field if isinstance(model, FittedField) else model).select_heads(None)
    if 'language' in heads:
        return 'language'
    types = {name: head.feature_type for name, head in heads.items() if name.startswith('features')}
    read_text = [n for n, kind in types.items() if kind in stamps and stamps[kind].mode == 'clip']
    of_clip = [name for name, kind in types.items() if kind == 'CLIP']
    found = [*read_text, *of_clip]
    if not found:
        raise ValueError('the field has neither language nor features to compare text with')
    return found[0]


def relevancy(
    features: Tensor, positives: Tensor, negatives: Tensor, temperature: float = 0.1
) -> Tensor:
    """How much more a feature is about a phrase than about nothing in particular.

    ``min_k e^{f·p/τ} / (e^{f·p/τ} + e^{f·n_k/τ})`` of unit vectors (LERF, ICCV 2023, eq. 4).

    Args:
        features: (N, D) of any length; zero and not finite ones are about nothing, 0.5 and 0.
        positives: (P, D).
        negatives: (K, D), at least one.
        temperature: τ.

    Returns:
        (N, P) in 0…1; above 0.5 a feature is nearer to the phrase than to every negative.

    Raises:
        ValueError: widths that differ, no negatives, text that is not finite, or no temperature.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 0.0]])
        >>> relevancy(features, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]))[:, 0]
        tensor([0.9820, 0.1680, 0.5000])
    """
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, got {temperature}')
    width = features.shape[-1]
    for name, vectors, shape in (('positives', positives, 'P D'), ('negatives', negatives, 'K D')):
        expect_shape(name, vectors, shape, D=width)
        if not torch.isfinite(vectors).all():
            raise ValueError(f'{name}: vectors of text must be finite')
    if not len(negatives):
        raise ValueError('negatives: expected K of 1 or more')

    finite = torch.isfinite(features).all(-1, keepdim=True)
    rows = torch.where(finite, features, 0.0)
    scores = pairwise_relevancy(rows, positives, negatives, scale=1 / temperature)  # (N, P)
    return torch.where(finite, scores, 0.0)


def _vectors_at_points(
    field: Field, name: str, points: Tensor, sizes: Sequence[float], byte_budget: int
) -> Iterator[Iterable[Tensor]]:
    """For each chunk of points the head's vectors (n, D), of language at every size."""
    head = field.head(name)
    for positions, _, hidden in chunks_of_points(field, points, _CHUNK, byte_budget):
        hidden_of_head = field.reach(head, hidden)
        if isinstance(head, LanguageHead):
            yield head.sample_sizes(hidden_of_head, positions, sizes)
        else:
            yield (head(hidden_of_head, positions).float(),)


def _vectors(texts: Sequence[str] | Tensor, encode: EncodeText | None) -> Tensor:
    if isinstance(texts, Tensor):
        return texts
    if encode is None:
        raise ValueError('phrases need an encoder of text; give encode_text, or vectors')
    return encode(list(texts))
