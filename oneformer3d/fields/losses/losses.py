"""What a field is trained with: every term by itself, and their weighted sum.

Enters: outputs of ``render_rays`` and a batch of targets under the same names. Leaves: scalars.

A batch holds what there is of: rgb (R, 3) in 0–1, semantics (R,) int64 with 255 = void,
semantic_confidence (R,), depth (R,) z-depth or distance (R,) along the ray, one of the two, in
metres with 0 = missing, instances (R,) int64 with negative = none, instance_confidence (R,),
instance_group and view (R,) int64, features or features_<type> (R, D), language (R, D), and for
rgb, semantics, features and language <name>_mask (R,) bool.

Letters: R rays, C classes, D feature width.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .instance_losses import (
    contrastive_instance_loss,
    linear_assignment_loss,
    slow_fast_contrastive_loss,
)
from .ray_losses import (
    distortion_loss,
    empty_space_loss,
    interlevel_loss,
    masked_mean,
    termination_loss,
)

VOID = 255
_EPS = 1e-8
# Patches that CLIP encodes at a time.
_PATCH_BATCH = 64

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
    'slow_fast': 0.1,
    'interlevel': 1.0,
    'distortion': 0.002,
}


def total_loss(
    outputs: Mapping[str, Any],
    batch: Mapping[str, Tensor],
    weights: Mapping[str, float] | None = None,
    semantic_mode: str = 'probabilities',
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of all terms for which there are an output, a target and a weight.

    Args:
        outputs: of ``render_rays``. 'slots' (R, K) probabilities and 'instances_slow' (R', D), the
            slow copy's vectors of the last R' rays, are used where the caller added them.
        batch: targets, see above.
        weights: in place of ``DEFAULT_WEIGHTS``; only what is named is used.
        semantic_mode: what outputs['semantics'] are, 'probabilities' or 'logits'.

    Returns:
        The sum, and each term before its weight, detached; features of several types are a term
        each.

    Raises:
        ValueError: a weight of an unknown term.
    """
    weights = DEFAULT_WEIGHTS if weights is None else weights
    unknown = sorted(set(weights) - set(DEFAULT_WEIGHTS))
    if unknown:
        raise ValueError(f'no loss terms {unknown}, only {sorted(DEFAULT_WEIGHTS)}')
    terms: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight:
            terms.update(
                {key: (value, weight) for key, value in _terms(name, outputs, batch, semantic_mode)}
            )
    total = outputs['accumulation'].sum() * 0
    for value, weight in terms.values():
        total = total + weight * value
    return total, {name: value.detach() for name, (value, _) in terms.items()}


def _terms(name: str, outputs, batch, semantic_mode: str) -> list[tuple[str, Tensor]]:
    """The terms behind a weight's name, none where something is missing."""
    if name == 'features':
        keys = [key for key in outputs if key.split('_')[0] == 'features' and key in batch]
        return [
            (key, feature_loss(outputs[key], batch[key], batch.get(f'{key}_mask'))) for key in keys
        ]
    needed_outputs, needed_targets, function = _TERMS[name]
    if any(key not in outputs for key in needed_outputs):
        return []
    if 'distance' in batch:
        needed_targets = tuple(key for key in needed_targets if key != 'depth')
    if any(key not in batch for key in needed_targets):
        return []
    if name == 'semantics':
        return [(name, function(outputs, batch, semantic_mode))]
    return [(name, function(outputs, batch))]


def rgb_loss(rgb: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error of colours (R, 3)."""
    errors = ((rgb - target) ** 2).mean(-1)
    return errors.mean() if mask is None else masked_mean(errors, mask)


def semantic_loss(
    semantics: Tensor,
    labels: Tensor,
    mode: str = 'probabilities',
    confidence: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of rendered semantics.

    ``−log(p + 1e-8)`` of rendered probabilities, or the usual one of rendered logits.

    Args:
        semantics: (R, C).
        labels: (R,) 0 … C − 1, 255 = void.
        mode: what the semantics are, 'probabilities' or 'logits'.
        confidence: (R,) weight of each label.
        mask: (R,) rays that count.

    Raises:
        ValueError: labels outside 0 … C − 1 that are not void.
    """
    valid = labels != VOID
    num_classes = semantics.shape[-1]
    if ((labels < 0) | (labels >= num_classes) & valid).any():
        raise ValueError(f'labels must be 0 … {num_classes - 1} or {VOID}, got {labels.unique()}')
    target = torch.where(valid, labels, 0)
    if mode == 'logits':
        losses = F.cross_entropy(semantics.float(), target, reduction='none')
    else:
        losses = -torch.log(semantics.gather(-1, target[:, None])[:, 0] + _EPS)
    return masked_mean(losses, valid if mask is None else valid & mask, confidence)


def depth_loss(depth: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error (R,) where depth was measured (target > 0)."""
    return masked_mean((depth - target).abs(), target > 0)


def feature_loss(features: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error of features (R, D) (F3RM; weight 1e-3 there)."""
    errors = ((features - target.to(features.dtype)) ** 2).mean(-1)
    return errors.mean() if mask is None else masked_mean(errors, mask)


def language_loss(
    language: Tensor, target: Tensor, mask: Tensor | None = None, delta: float = 1.25
) -> Tensor:
    """Huber loss summed over the width (R, D) (LERF; weight 0.1 there)."""
    losses = F.huber_loss(language, target.to(language.dtype), delta=delta, reduction='none').sum(
        -1
    )
    return losses.mean() if mask is None else masked_mean(losses, mask)


def clip_feature_loss(
    rendered_features: Tensor, image_patch: Tensor, clip_model: Any, patch_size: int = 32
) -> Tensor:
    """One minus the cosine between rendered language and CLIP's embedding, over patches.

    Patches of 1, 2 and 4 times ``patch_size`` tile the image; the rendered features of a patch are
    averaged.

    Args:
        rendered_features: (H, W, D).
        image_patch: (H, W, 3) uint8 or floats 0–1.
        clip_model: a ``ClipEncoder``, or a model with ``preprocess`` of one (h, w, 3) patch and
            ``encode_image``.
        patch_size: pixels.

    Raises:
        ValueError: another size of image than of features, or no patch fits.
    """
    if image_patch.shape[:2] != rendered_features.shape[:2] or image_patch.shape[-1] != 3:
        raise ValueError(
            'expected features (H, W, D) and image (H, W, 3), got '
            f'{tuple(rendered_features.shape)} and {tuple(image_patch.shape)}'
        )
    losses = []
    for side in (patch_size, 2 * patch_size, 4 * patch_size):
        if side > min(image_patch.shape[:2]):
            continue
        rendered = F.avg_pool2d(rendered_features.movedim(-1, 0)[None], side)[0].flatten(1).t()
        tiles = image_patch.unfold(0, side, side).unfold(1, side, side).flatten(0, 1)
        target = torch.cat([_embed(clip_model, part) for part in tiles.split(_PATCH_BATCH)])
        losses.append(1 - F.cosine_similarity(rendered, target.to(rendered), dim=-1))
    if not losses:
        raise ValueError(
            f'no patch of {patch_size} pixels fits an image of {tuple(image_patch.shape[:2])}'
        )
    return torch.cat(losses).mean()


@torch.no_grad()
def _embed(clip_model: Any, tiles: Tensor) -> Tensor:
    """CLIP's embeddings (B, D) of tiles (B, 3, h, w)."""
    if not hasattr(clip_model, 'preprocess'):
        return clip_model(tiles.contiguous()).clip_global
    pixels = torch.stack([clip_model.preprocess(tile.movedim(0, -1)) for tile in tiles])
    return clip_model.encode_image(pixels)


class SemanticNeRFLoss(nn.Module):
    """Colour, semantics, depth and density together (Semantic-NeRF).

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
        pred_rgb: Tensor,
        pred_semantics: Tensor,
        pred_depth: Tensor,
        gt_rgb: Tensor,
        gt_semantics: Tensor,
        gt_depth: Tensor | None = None,
        density_values: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """Total and the value of each term before its weight, 0 for terms without input.

        Args:
            pred_rgb, gt_rgb: (R, 3).
            pred_semantics: (R, C); gt_semantics: (R,) with 255 = void.
            pred_depth, gt_depth: (R,) alike, 0 = not measured.
            density_values: densities of any shape; their mean size is kept small.
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


def _semantics(outputs, batch, mode: str) -> Tensor:
    return semantic_loss(
        outputs['semantics'],
        batch['semantics'],
        mode,
        batch.get('semantic_confidence'),
        batch.get('semantics_mask'),
    )


def _depth(outputs, batch) -> Tensor:
    name = 'distance' if 'distance' in batch else 'depth'
    return depth_loss(outputs[name], batch[name])


def _distance(outputs, batch) -> Tensor:
    return batch['distance'] if 'distance' in batch else batch['depth'] * outputs['z_scale']


def _slow_fast(outputs, batch) -> Tensor:
    slow = outputs['instances_slow']
    fast = len(outputs['instances']) - len(slow)
    labels = batch['instances']
    return slow_fast_contrastive_loss(
        outputs['instances'][:fast], slow, labels[:fast], labels[fast:]
    )


# Name of a term: outputs and targets it needs, and the function of both.
_TERMS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[..., Tensor]]] = {
    'rgb': (('rgb',), ('rgb',), lambda o, b: rgb_loss(o['rgb'], b['rgb'], b.get('rgb_mask'))),
    'semantics': (('semantics',), ('semantics',), _semantics),
    'depth': (('depth',), ('depth',), _depth),
    'termination': (
        ('weights',),
        ('depth',),
        lambda o, b: termination_loss(o['edges'], o['weights'], _distance(o, b)),
    ),
    'empty': (
        ('weights',),
        ('depth',),
        lambda o, b: empty_space_loss(o['edges'], o['weights'], _distance(o, b)),
    ),
    'density': (('density',), (), lambda o, b: o['density'].abs().mean()),
    'language': (
        ('language',),
        ('language',),
        lambda o, b: language_loss(o['language'], b['language'], b.get('language_mask')),
    ),
    'instances': (
        ('instances',),
        ('instances',),
        lambda o, b: contrastive_instance_loss(
            o['instances'], b['instances'], groups=b.get('instance_group')
        ),
    ),
    'slots': (
        ('slots',),
        ('instances',),
        lambda o, b: linear_assignment_loss(
            o['slots'], b['instances'], b.get('instance_confidence'), b.get('view')
        ),
    ),
    'slow_fast': (('instances', 'instances_slow'), ('instances',), _slow_fast),
    'interlevel': (
        ('proposals',),
        (),
        lambda o, b: interlevel_loss(o['edges'], o['weights'], o['proposals']),
    ),
    'distortion': (('weights',), (), lambda o, b: distortion_loss(o['edges'], o['weights'])),
}
