"""How well text finds things in a fitted field, at the scan's own labelled points.

Enters: a field of language (or of features in the text space), labelled points, one vector per
class name. Leaves: plain numbers. The field was taught no label.

Letters: N points, C classes, I instances, D width of the text space, K negative phrases.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..fitting.fitted import FittedField
from ..scene.labelled_points import IGNORE, LabelledPoints
from .text import LANGUAGE_SIZES, query_lerf_with_text

_MIN_POINTS = 30  # of an instance that is looked for


def evaluate_text(
    fitted: FittedField,
    points: LabelledPoints,
    class_vectors: Tensor,
    negatives: Tensor,
    sizes: Sequence[float] = LANGUAGE_SIZES[::3],
    max_points: int = 20_000,
) -> dict[str, float]:
    """Retrieval of objects by their class's name, and classes of points by the best name.

    Args:
        fitted: with language, or features of mode 'clip'.
        points: with classes and instances.
        class_vectors: (C, D) of the names.
        negatives: (K, D) of phrases that are nothing in particular.
        sizes: patch sizes that are searched, metres.
        max_points: at most so many are queried, a seeded choice.

    Returns:
        'retrieval': share of the classes that have instances whose name ranks one of them above
        all instances of other classes, by mean relevancy; 'retrieval_chance': of drawing blindly;
        'objects': share of the instances whose own name is more relevant than every other class's;
        'objects_top3': is among the first three; 'num_objects'; 'points_accuracy': share of points
        whose best name is right. Empty without labels.
    """
    if points.semantic is None or points.instance is None:
        return {}
    generator = torch.Generator().manual_seed(fitted.settings.seed)
    chosen = torch.randperm(len(points.xyz), generator=generator)[:max_points]
    semantic, instance = points.semantic[chosen], points.instance[chosen]
    result = query_lerf_with_text(
        fitted, points.xyz[chosen], class_vectors, negatives=negatives, sizes=sizes
    )
    relevancy = result['relevancy_matrix']  # (N, C)

    # points that no view observed have no relevancy at all
    observed = relevancy.amax(-1) > 0
    known = observed & (semantic != IGNORE)
    correct = (relevancy.argmax(-1) == semantic)[known]
    report = {'points_accuracy': float(correct.float().mean())}
    scores, truth = _instance_scores(relevancy, semantic, instance, observed)
    if not len(truth):
        return report

    # each name looks for its objects
    present = truth.unique()
    found = [truth[scores[:, label].argmax()] == label for label in present]
    chance = [(truth == label).float().mean() for label in present]
    # a name competes with those of the classes that are there
    ranked = present[scores[:, present].argsort(dim=-1, descending=True)]  # (I, C')
    return report | {
        'retrieval': float(torch.stack(found).float().mean()),
        'retrieval_chance': float(torch.stack(chance).mean()),
        'objects': float((ranked[:, 0] == truth).float().mean()),
        'objects_top3': float((ranked[:, :3] == truth[:, None]).any(-1).float().mean()),
        'num_objects': float(len(truth)),
    }


def _instance_scores(
    relevancy: Tensor, semantic: Tensor, instance: Tensor, observed: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean relevancies (I, C) and class (I,) of the instances that were observed well enough."""
    rows, truth = [], []
    for name in instance[instance >= 0].unique():
        members = (instance == name) & observed
        if int(members.sum()) >= _MIN_POINTS:
            rows.append(relevancy[members].mean(0))
            truth.append(semantic[members].mode().values)
    if not rows:
        return relevancy.new_zeros(0, relevancy.shape[-1]), semantic.new_zeros(0)
    return torch.stack(rows), torch.stack(truth)
