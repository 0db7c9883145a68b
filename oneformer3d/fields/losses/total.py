"""What a field is trained with: all terms for which there is a target, and their weighted sum.

Enters: rendered values by name, as ``RenderedRays.as_dict`` gives them, and a batch of targets by
the same names. Leaves: scalars.

A batch holds what there is of: rgb (R, 3) in 0–1, semantics (R,) int64 with 255 = void,
semantic_confidence (R,), depth (R,) z-depth or distance (R,) along the ray, one of the two, in
metres with 0 = missing, instances (R,) int64 with negative = none, instance_confidence (R,),
instance_group and view (R,) int64, features or features_<type> (R, D), language (R, D), and for
rgb, semantics, features and language <name>_mask (R,) bool.

Letters: R rays, C classes, D feature width, K instance slots.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .instance_losses import (
    contrastive_instance_loss,
    linear_assignment_loss,
    slow_fast_contrastive_loss,
)
from .pixel_losses import depth_loss, feature_loss, language_loss, rgb_loss, semantic_loss
from .ray_losses import distortion_loss, empty_space_loss, interlevel_loss, termination_loss

Outputs = Mapping[str, Any]
Targets = Mapping[str, Tensor]

# Sources: rgb, semantics, depth, density: Semantic-NeRF; features: F3RM; language: LERF;
# interlevel, distortion: nerfacto; instances, slots: Panoptic Lifting and Contrastive Lift.
DEFAULT_WEIGHTS: dict[str, float] = {
    'rgb': 1.0,
    'semantics': 0.04,
    'depth': 0.1,
    'termination': 0.0,
    'empty': 0.0,
    'density': 0.0,
    'features': 1e-3,
    'language': 0.1,
    'instances': 0.1,
    'slots': 0.1,
    'slow_fast': 1.0,
    'interlevel': 1.0,
    'distortion': 0.002,
}


def total_loss(
    outputs: Outputs,
    batch: Targets,
    weights: Mapping[str, float] | None = None,
    semantic_mode: str = 'probabilities',
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of all terms for which there are an output, a target and a weight.

    Args:
        outputs: of the rays. 'slots' (R, K) probabilities and 'instances_slow' (R', D), the slow
            copy's vectors of the last R' rays, are used where the caller added them.
        batch: targets, see above.
        weights: in place of ``DEFAULT_WEIGHTS``; only what is named is used.
        semantic_mode: what outputs['semantics'] are, 'probabilities' or 'logits'.

    Returns:
        The sum, and each term before its weight, detached; features of several types are a term
        each.

    Raises:
        ValueError: a weight of an unknown term.

    Example:
        >>> import torch
        >>> outputs = {'accumulation': torch.ones(2), 'depth': torch.tensor([1.0, 2.0])}
        >>> total_loss(outputs, {'depth': torch.tensor([1.5, 0.0])}, {'depth': 0.1, 'rgb': 1.0})
        (tensor(0.0500), {'depth': tensor(0.5000)})
    """
    weights = DEFAULT_WEIGHTS if weights is None else weights
    unknown = sorted(set(weights) - set(DEFAULT_WEIGHTS))
    if unknown:
        raise ValueError(f'no loss terms {unknown}, only {sorted(DEFAULT_WEIGHTS)}')

    total = outputs['accumulation'].sum() * 0  # a graph, even if no term is there
    terms = {}
    for name, weight in weights.items():
        if weight:
            for key, value in _values(name, outputs, batch, semantic_mode):
                total = total + weight * value
                terms[key] = value.detach()
    return total, terms


class SemanticNeRFLoss(nn.Module):
    """Colour, semantics, depth and density together (Semantic-NeRF): four of the terms, by hand.

    Args:
        rgb_weight, semantic_weight, depth_weight, regularization_weight: of the four terms.
        semantic_mode: what the predicted semantics are, 'probabilities' or 'logits'.
    """

    def __init__(
        self,
        rgb_weight: float = 1.0,
        semantic_weight: float = 1.0,
        depth_weight: float = 0.1,
        regularization_weight: float = 0.01,
        *,
        semantic_mode: str = 'probabilities',
    ) -> None:
        super().__init__()
        self.rgb_weight = rgb_weight
        self.semantic_weight = semantic_weight
        self.depth_weight = depth_weight
        self.regularization_weight = regularization_weight
        self.semantic_mode = semantic_mode

    def forward(
        self,
        # rendered
        pred_rgb: Tensor,
        pred_semantics: Tensor,
        pred_depth: Tensor,
        # observed
        gt_rgb: Tensor,
        gt_semantics: Tensor,
        gt_depth: Tensor | None = None,
        # of the field
        density_values: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """Total and the value of each term before its weight, 0 for terms without input.

        Args:
            pred_rgb, gt_rgb: (R, 3).
            pred_semantics: (R, C); gt_semantics: (R,) with 255 = void.
            pred_depth, gt_depth: (R,) alike, 0 = not measured.
            density_values: densities of any shape; their mean size is made small.
        """
        zero = pred_rgb.new_zeros(())
        terms = {
            'rgb': rgb_loss(pred_rgb, gt_rgb),
            'semantic': semantic_loss(pred_semantics, gt_semantics, self.semantic_mode),
            'depth': zero if gt_depth is None else depth_loss(pred_depth, gt_depth),
            'regularization': zero if density_values is None else density_values.abs().mean(),
        }
        total = (
            self.rgb_weight * terms['rgb']
            + self.semantic_weight * terms['semantic']
            + self.depth_weight * terms['depth']
            + self.regularization_weight * terms['regularization']
        )
        return total, {name: float(value.detach()) for name, value in terms.items()}


def _values(name: str, outputs: Outputs, batch: Targets, mode: str) -> Iterator[tuple[str, Tensor]]:
    """The values behind a weight's name, none where an output or a target is missing."""
    if name == 'features':
        for key in outputs:
            if key.split('_')[0] == 'features' and key in batch:
                yield key, feature_loss(outputs[key], batch[key], batch.get(f'{key}_mask'))
        return

    term = _TERMS[name]
    # a distance stands in for the z-depth
    targets = set(batch) | ({'depth'} if 'distance' in batch else set())
    if term.outputs <= set(outputs) and term.targets <= targets:
        yield name, term.value(outputs, batch, mode)


def _depth(o: Outputs, t: Targets, _: str) -> Tensor:
    name = 'distance' if 'distance' in t else 'depth'
    return depth_loss(o[name], t[name])


def _distance(o: Outputs, t: Targets) -> Tensor:
    """Measured distance (R,) along the rays."""
    return t['distance'] if 'distance' in t else t['depth'] * o['z_scale']


def _semantics(o: Outputs, t: Targets, mode: str) -> Tensor:
    confidence, mask = t.get('semantic_confidence'), t.get('semantics_mask')
    return semantic_loss(o['semantics'], t['semantics'], mode, confidence, mask)


def _instances(o: Outputs, t: Targets, _: str) -> Tensor:
    groups = t.get('instance_group')
    return contrastive_instance_loss(o['instances'], t['instances'], groups=groups)


def _slots(o: Outputs, t: Targets, _: str) -> Tensor:
    confidence, views = t.get('instance_confidence'), t.get('view')
    return linear_assignment_loss(o['slots'], t['instances'], confidence, views)


def _slow_fast(o: Outputs, t: Targets, _: str) -> Tensor:
    """The first rays' vectors against the slow copy's of the last."""
    vectors, slow, labels = o['instances'], o['instances_slow'], t['instances']
    fast = len(vectors) - len(slow)
    return slow_fast_contrastive_loss(vectors[:fast], slow, labels[:fast], labels[fast:])


@dataclass(frozen=True)
class _Term:
    """Names of the outputs and targets that a term needs, and its value of both and the mode."""

    outputs: set[str]
    targets: set[str]
    value: Callable[[Outputs, Targets, str], Tensor]


_TERMS = {
    # what pixels show
    'rgb': _Term({'rgb'}, {'rgb'}, lambda o, t, _: rgb_loss(o['rgb'], t['rgb'], t.get('rgb_mask'))),
    'semantics': _Term({'semantics'}, {'semantics'}, _semantics),
    'depth': _Term({'depth'}, {'depth'}, _depth),
    'language': _Term(
        {'language'},
        {'language'},
        lambda o, t, _: language_loss(o['language'], t['language'], t.get('language_mask')),
    ),
    # instances, known up to renaming
    'instances': _Term({'instances'}, {'instances'}, _instances),
    'slots': _Term({'slots'}, {'instances'}, _slots),
    'slow_fast': _Term({'instances', 'instances_slow'}, {'instances'}, _slow_fast),
    # weights along the rays
    'termination': _Term(
        {'weights'},
        {'depth'},
        lambda o, t, _: termination_loss(o['edges'], o['weights'], _distance(o, t)),
    ),
    'empty': _Term(
        {'weights'},
        {'depth'},
        lambda o, t, _: empty_space_loss(o['edges'], o['weights'], _distance(o, t)),
    ),
    'density': _Term({'density'}, set(), lambda o, t, _: o['density'].abs().mean()),
    'interlevel': _Term(
        {'proposals'},
        set(),
        lambda o, t, _: interlevel_loss(o['edges'], o['weights'], o['proposals']),
    ),
    'distortion': _Term(
        {'weights'}, set(), lambda o, t, _: distortion_loss(o['edges'], o['weights'])
    ),
}
