"""Losses of what pixels show: colour, classes, depth, features, language.

Enters: rendered values of R rays, or of an image, and their targets. Leaves: scalars.
Letters: R rays, C classes, D feature width, H × W pixels.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.lifting.shapes import expect_shape

from .ray_losses import masked_mean

VOID = 255
_EPS = 1e-8
# Patches that CLIP encodes at a time.
_PATCH_BATCH = 64


class PatchEncoder(Protocol):
    """An image tower of somebody else's."""

    def preprocess(self, patch: Tensor) -> Tensor:
        """One patch (h, w, 3) → what the model takes (3, h', w')."""
        ...

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, h', w') → (B, D)."""
        ...


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
    if (valid & ((labels < 0) | (labels >= num_classes))).any():
        raise ValueError(f'labels must be 0 … {num_classes - 1} or {VOID}, got {labels.unique()}')

    target = torch.where(valid, labels, 0)  # (R,)
    if mode == 'logits':
        losses = F.cross_entropy(semantics.float(), target, reduction='none')
    else:
        # −log(p_label + ε)
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
    target = target.to(language.dtype)
    losses = F.huber_loss(language, target, delta=delta, reduction='none').sum(-1)  # (R,)
    return losses.mean() if mask is None else masked_mean(losses, mask)


def clip_feature_loss(
    rendered_features: Tensor,
    image_patch: Tensor,
    clip_model: ClipEncoder | PatchEncoder,
    patch_size: int = 32,
) -> Tensor:
    """One minus the cosine between rendered language and CLIP's embedding, over patches.

    Patches of 1, 2 and 4 times ``patch_size`` tile the image; the rendered features of a patch are
    averaged.

    Args:
        rendered_features: (H, W, D).
        image_patch: (H, W, 3) uint8 or floats 0–1.
        clip_model: a ``ClipEncoder``, or any model with ``preprocess`` and ``encode_image``.
        patch_size: pixels.

    Raises:
        ValueError: another size of image than of features, or no patch fits.
    """
    height, width, _ = expect_shape('rendered_features', rendered_features, 'H W D')
    expect_shape('image_patch', image_patch, 'H W 3', H=height, W=width)
    if patch_size > min(height, width):
        raise ValueError(f'no patch of {patch_size} pixels fits an image of {(height, width)}')

    losses = []
    for side in (patch_size, 2 * patch_size, 4 * patch_size):
        if side > min(height, width):
            continue
        # P patches without overlap, row by row
        rendered = F.avg_pool2d(rendered_features.movedim(-1, 0)[None], side)[0].flatten(1).t()
        tiles = image_patch.unfold(0, side, side).unfold(1, side, side).flatten(0, 1)
        target = torch.cat([_embed(clip_model, chunk) for chunk in tiles.split(_PATCH_BATCH)])

        # 1 − cos(f̄, clip)
        losses.append(1 - F.cosine_similarity(rendered, target.to(rendered), dim=-1))  # (P,)
    return torch.cat(losses).mean()


@torch.no_grad()
def _embed(clip_model: ClipEncoder | PatchEncoder, tiles: Tensor) -> Tensor:
    """CLIP's embeddings (B, D) of tiles (B, 3, h, w)."""
    if isinstance(clip_model, ClipEncoder):
        return clip_model(tiles.contiguous()).clip_global
    pixels = torch.stack([clip_model.preprocess(tile.movedim(0, -1)) for tile in tiles])
    return clip_model.encode_image(pixels)
