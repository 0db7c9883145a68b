"""What a fitted field says of points: classes, opacity, features. (Text: ``text.py``, instances:
``instances.py``.)

Enters: a field and points (N, 3) in world metres. Leaves: one row per point. Points that no
training view observed get no answer (``IGNORE``, confidence 0): the network has values there too,
but nothing taught it which.

Letters: N points, C classes, D width of a feature, K values of a head.
"""

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from oneformer3d.lifting.chunks import DEFAULT_BYTE_BUDGET, ranges
from oneformer3d.lifting.shapes import expect_shape

from ..fitting.fitted import FittedField
from ..networks.field import Field
from ..scene.labelled_points import IGNORE

# Opacity is that of so thick a layer of a point's density, metres.
LAYER = 0.05
_BYTES_PER_VALUE = 4 * 4  # of a float32 and what is computed on the way


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
    field, observed = field_and_observed(nerf_model, point_cloud, byte_budget)
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


@torch.no_grad()
def field_at_points(
    field: Field,
    points: Tensor,
    heads: Collection[str],
    *,
    chunk_size: int = 100_000,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> dict[str, Tensor]:
    """Density per metre (N,) and heads' values (N, K) at world points, on the points' device.

    Args:
        field: any.
        points: (N, 3) metres; those that are not finite are queried at the origin.
        heads: names.
        chunk_size: points at a time, at most.
        byte_budget: bytes for temporary values.
    """
    chunks: dict[str, list[Tensor]] = {}
    for positions, density, hidden in chunks_of_points(field, points, chunk_size, byte_budget):
        values = field.heads(hidden, positions, names=heads)
        values['density'] = density * field.scene_box.scale
        for name, value in values.items():
            chunks.setdefault(name, []).append(value.float().to(points.device))
    return {name: torch.cat(values) for name, values in chunks.items()}


def chunks_of_points(
    field: Field, points: Tensor, chunk_size: int, byte_budget: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """World points (N, 3) a chunk at a time, as the field's heads read them, on its device.

    Yields:
        positions (n, 3) in the unit box, density (n,) there and hidden values (n, H); one empty
        chunk where there are no points. The field is in evaluation mode meanwhile.
    """
    check_points(points)
    if chunk_size < 1 or byte_budget < 1:
        raise ValueError(f'chunks of {chunk_size} points in {byte_budget} bytes hold nothing')
    widest = sum(p.shape[0] for p in field.parameters() if p.ndim == 2 and len(p) < 4096)
    rows = max(1, min(chunk_size, byte_budget // (max(widest, 64) * _BYTES_PER_VALUE)))

    device, was_training = field.unit_from_world.device, field.training
    field.eval()
    for begin, end in ranges(max(1, len(points)), rows):
        chunk = torch.nan_to_num(points[begin:end], 0.0, 0.0, 0.0).to(device).float()
        positions = field.scene_box.to_unit(chunk)  # (n, 3)
        yield positions, *field.density(positions)
    field.train(was_training)


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
    field, observed = field_and_observed(nerf_model, point_cloud, byte_budget)
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
    field, observed = field_and_observed(nerf_model, point_cloud, byte_budget)
    density = field_at_points(field, point_cloud, (), byte_budget=byte_budget)['density']
    return {'confidence': _opacity(density, observed), 'density': density, 'observed': observed}


def check_points(points: Tensor) -> None:
    """ValueError unless (N, 3) floating point."""
    expect_shape('points', points, 'N 3')
    if not points.is_floating_point():
        raise ValueError(f'points: expected floating point, got {points.dtype}')


def _opacity(density: Tensor, observed: Tensor) -> Tensor:
    # 1 − e^(−σ·layer)
    return torch.where(observed, -torch.expm1(-density * LAYER), 0.0)


def field_and_observed(
    model: FittedField | Field, points: Tensor, byte_budget: int
) -> tuple[Field, Tensor]:
    """The network, and whether each point (N,) has an answer: it is finite and some view saw it."""
    check_points(points)
    finite = torch.isfinite(points).all(-1)
    if isinstance(model, Field):
        return model, finite
    if model.observations is None:
        return model.field, finite
    return model.field, model.observations.observed(points, byte_budget)
