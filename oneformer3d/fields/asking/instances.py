"""Which instance each point is of, by a fitted field.

Enters: a ``FittedField`` with classes and instances, points (N, 3) in world metres. Leaves: classes
and instances (N,).

Letters: N points, D width of an instance vector, K clusters.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..fitting.fitted import FittedField
from .query import field_at_points, query_nerf_at_points


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
    """Class and instance of points: the field's slots, else clusters of instance vectors.

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

    if fitted.settings.instance_loss == 'slots':
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
        if field.head_nets['instances'].unit_length:
            centres = F.normalize(centres, dim=-1)
        instances[rows] = count + torch.cdist(vectors[rows], centres).argmin(-1)
        count += len(centres)
    return {**result, 'instances': instances}


def _cluster_centres(vectors: Tensor, min_size: int) -> Tensor:
    """Means (K, D) of the clusters of vectors (M, D), at least one."""
    from sklearn.cluster import HDBSCAN

    # its type is read off a default that stands for another
    clusters = HDBSCAN(
        min_cluster_size=min_size,
        allow_single_cluster=True,
        copy=True,  # pyright: ignore[reportArgumentType]
    )
    found = torch.from_numpy(clusters.fit_predict(vectors.double().numpy()))
    means = [vectors[found == k].mean(0) for k in range(int(found.max()) + 1)]
    return torch.stack(means or [vectors.mean(0)])
