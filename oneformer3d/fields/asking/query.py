"""What a fitted field says of points: classes, features, instances and text.

Enters: a field and points (N, 3) in world metres; text as phrases or unit vectors. Leaves: one row
per point. Points that no training view observed get no answer (``IGNORE``, confidence 0, not
valid): the network has values there too, but nothing taught it which.

Letters: N points, C classes, D width of a feature, P positive and K negative phrases, S scales.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer3d.clip.text import CANONICAL_PHRASES, pairwise_relevancy
from oneformer3d.lifting.chunks import DEFAULT_BYTE_BUDGET, ranges
from oneformer3d.lifting.shapes import expect_shape

from ..fitting.fitted import FittedField
from ..networks.field import Field
from ..scene.labelled_points import IGNORE

# Opacity is that of so thick a layer of a point's density, metres.
LAYER = 0.05
# Patch sizes that a language field is searched over (LERF, section 3.4), metres.
LANGUAGE_SIZES = tuple(1.5 * (k + 1) / 30 for k in range(30))
_BYTES_PER_VALUE = 4 * 4  # of a float32 and what is computed on the way

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


def query_nerf_at_points(
    nerf_model: FittedField | Field,
    point_cloud: Tensor,
    chunk_size: int = 100_000,
    return_confidence: bool = True,
    *,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> dict[str, Tensor]:
    """Classes at points.

    Args:
        nerf_model: a fitted field; a bare ``Field`` answers everywhere.
        point_cloud: (N, 3) world coordinates in metres.
        chunk_size: points at a time, at most.
        return_confidence: also return all but the labels.
        byte_budget: bytes for temporary values, which may make chunks smaller.

    Returns:
        labels (N,) int64, ``IGNORE`` where nothing was observed; confidence (N,): how opaque 5 cm
        of the point's density are, 0 where nothing was observed; semantic_confidence (N,): the
        greatest class probability; density (N,) per metre; observed (N,) bool.

    Raises:
        ValueError: points that are not (N, 3), or a field without classes.
    """
    field, observed = _field_and_observed(nerf_model, point_cloud, byte_budget)
    if 'semantics' not in field.head_nets:
        raise ValueError('the field was fitted without labels and has no classes')

    values = field_at_points(
        field, point_cloud, ('semantics',), chunk_size=chunk_size, byte_budget=byte_budget
    )
    best, labels = values['semantics'].softmax(-1).max(-1)  # (N,) both
    result = {'labels': torch.where(observed, labels, IGNORE)}
    if return_confidence:
        result |= {
            'confidence': _opacity(values['density'], observed),
            'semantic_confidence': torch.where(observed, best, 0.0),
            'density': values['density'],
            'observed': observed,
        }
    return result


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
    field, observed = _field_and_observed(lerf_model, point_cloud, byte_budget)
    encode = encode_text or (field.encode_text if field.reads_text else None)
    positives, negatives = (_vectors(texts, encode) for texts in (text_queries, negatives))
    name = text_head(lerf_model)

    scores = None
    for size in sizes if name == 'language' else (None,):
        features = field_at_points(
            field, point_cloud, (name,), patch_size=size, byte_budget=byte_budget
        )[name]
        score = relevancy(features, positives.to(features), negatives.to(features), temperature)
        scores = score if scores is None else torch.maximum(scores, score)  # (N, P)

    scores = torch.where(observed[:, None], scores, 0.0)
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
    heads = (model.field if isinstance(model, FittedField) else model).head_nets
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


@torch.no_grad()
def field_at_points(
    field: Field,
    points: Tensor,
    heads: Collection[str],
    *,
    patch_size: float | None = None,
    chunk_size: int = 100_000,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> dict[str, Tensor]:
    """Density per metre (N,) and heads' values (N, K) at world points, on the points' device.

    Args:
        field: any.
        points: (N, 3) metres; those that are not finite are queried at the origin.
        heads: names.
        patch_size: metres, for language.
        chunk_size: points at a time, at most.
        byte_budget: bytes for temporary values.
    """
    check_points(points)
    if chunk_size < 1 or byte_budget < 1:
        raise ValueError(f'chunks of {chunk_size} points in {byte_budget} bytes hold nothing')
    widest = sum(p.shape[0] for p in field.parameters() if p.ndim == 2 and len(p) < 4096)
    rows = max(1, min(chunk_size, byte_budget // (max(widest, 64) * _BYTES_PER_VALUE)))

    device, was_training = field.unit_from_world.device, field.training
    chunks: dict[str, list[Tensor]] = {}
    field.eval()
    for begin, end in ranges(max(1, len(points)), rows):  # one empty chunk gives empty values
        chunk = torch.nan_to_num(points[begin:end], 0.0, 0.0, 0.0).to(device).float()
        positions = field.scene_box.to_unit(chunk)  # (n, 3)
        density, hidden = field.density(positions)
        size = None if patch_size is None else torch.full(density.shape, patch_size).to(device)
        values = field.heads(hidden, positions, names=heads, patch_size=size)
        values['density'] = density * field.scene_box.scale
        for name, value in values.items():
            chunks.setdefault(name, []).append(value.float().to(points.device))
    field.train(was_training)
    return {name: torch.cat(values) for name, values in chunks.items()}


def query_features_at_points(
    nerf_model: FittedField | Field,
    point_cloud: Tensor,
    name: str = 'features',
    *,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> dict[str, Tensor]:
    """Distilled features at points, for a segmentor to learn from.

    Args:
        nerf_model: with a head of that name; a bare ``Field`` answers everywhere.
        point_cloud: (N, 3) world coordinates in metres.
        name: 'features', 'features_<type>' or 'language'.
        byte_budget: bytes for temporary values.

    Returns:
        features (N, D), 0 where nothing was observed; confidence (N,) as of
        ``query_nerf_at_points``; observed (N,) bool.
    """
    field, observed = _field_and_observed(nerf_model, point_cloud, byte_budget)
    values = field_at_points(field, point_cloud, (name,), byte_budget=byte_budget)
    return {
        'features': torch.where(observed[:, None], values[name], 0.0),
        'confidence': _opacity(values['density'], observed),
        'observed': observed,
    }


def query_opacity_at_points(
    nerf_model: FittedField | Field,
    point_cloud: Tensor,
    *,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> dict[str, Tensor]:
    """What every field knows of points (N, 3): confidence and observed, see the class query."""
    field, observed = _field_and_observed(nerf_model, point_cloud, byte_budget)
    density = field_at_points(field, point_cloud, (), byte_budget=byte_budget)['density']
    return {'confidence': _opacity(density, observed), 'density': density, 'observed': observed}


def query_classes(fitted: FittedField, points: Tensor) -> dict[str, Tensor]:
    """Classes at points (N, 3), and 'instances' (N,) where the field knows some."""
    if 'instances' in fitted.field.head_nets:
        return instances_at_points(fitted, points)
    return query_nerf_at_points(fitted, points)


def instances_at_points(
    fitted: FittedField,
    points: Tensor,
    min_size: int = 30,
    max_clustered: int = 8000,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Class and instance of points: slots of a ``PanopticNeRF``, else clusters of instance vectors.

    Vectors of one class are clustered by density (HDBSCAN); each cluster is an instance, and every
    point of the class belongs to the cluster with the nearest mean vector.

    Args:
        fitted: with classes and instances.
        points: (N, 3) metres.
        min_size: of a cluster.
        max_clustered: points per class that are clustered; the others only join.
        seed: of their choice.

    Returns:
        What ``query_nerf_at_points`` returns, and instances (N,) int64, -1 for none.
    """
    field = fitted.field
    result = query_nerf_at_points(fitted, points)
    vectors = field_at_points(field, points, ('instances',))['instances']  # (N, D)
    instances = torch.full((len(points),), -1)
    things = fitted.things or tuple(range(len(fitted.class_names)))

    if field.num_slots:
        with torch.no_grad():
            slots = field.instance_logits(vectors.to(field.unit_from_world.device)).argmax(-1)
        is_thing = torch.isin(result['labels'], torch.tensor(things))
        return {**result, 'instances': torch.where(is_thing, slots.to(instances), instances)}

    generator = torch.Generator().manual_seed(seed)
    count = 0
    for label in things:
        rows = (result['labels'] == label).nonzero()[:, 0]
        if len(rows) < min_size:
            continue
        chosen = rows[torch.randperm(len(rows), generator=generator)[:max_clustered]]
        centres = _cluster_centres(vectors[chosen], min_size)  # (K, D)
        instances[rows] = count + (vectors[rows] @ centres.t()).argmax(-1)
        count += len(centres)
    return {**result, 'instances': instances}


def check_points(points: Tensor) -> None:
    """ValueError unless (N, 3) floating point."""
    expect_shape('points', points, 'N 3')
    if not points.is_floating_point():
        raise ValueError(f'points: expected floating point, got {points.dtype}')


def _opacity(density: Tensor, observed: Tensor) -> Tensor:
    # 1 − e^(−σ·layer)
    return torch.where(observed, -torch.expm1(-density * LAYER), 0.0)


def _cluster_centres(vectors: Tensor, min_size: int) -> Tensor:
    """Unit means (K, D) of the clusters of unit vectors (M, D), at least one."""
    from sklearn.cluster import HDBSCAN

    clusters = HDBSCAN(min_cluster_size=min_size, allow_single_cluster=True, copy=True)
    found = torch.from_numpy(clusters.fit_predict(vectors.double().numpy()))
    means = [vectors[found == k].mean(0) for k in range(int(found.max()) + 1)]
    return F.normalize(torch.stack(means or [vectors.mean(0)]), dim=-1)


def _field_and_observed(
    model: FittedField | Field, points: Tensor, byte_budget: int
) -> tuple[Field, Tensor]:
    check_points(points)
    finite = torch.isfinite(points).all(-1)
    if isinstance(model, Field):
        return model, finite
    if model.observations is None:
        return model.field, finite
    return model.field, model.observations.observed(points, byte_budget)


def _vectors(texts: Sequence[str] | Tensor, encode: EncodeText | None) -> Tensor:
    if isinstance(texts, Tensor):
        return texts
    if encode is None:
        raise ValueError('phrases need an encoder of text; give encode_text, or vectors')
    return encode(list(texts))
