"""Boxes as (x, y, z, r): centre in pixels, z = log2 of the scale, r = log2 of height over width.

Enters and leaves: (..., 4). ``scale = sqrt(w h)``, so ``w, h = 2 ** (z - r / 2), 2 ** (z + r / 2)``
(Gao et al., AdaMixer, CVPR 2022). Boxes "xyxy" are left, top, right, bottom. B samples, N queries,
T frames.
"""

import torch
from torch import Tensor

from oneformer3d.lifting.shapes import expect_shape

LEAST_SIDE = 1e-3  # pixels
LEAST_OVERLAP = 1e-7
EMBEDDING_SIDE = 1000.0  # pixels that x and y are divided by before they are embedded
MOST_LOG2 = 24.0  # of scale and ratio: sides stay finite in float32


def xyxy_from_xyzr(xyzr: Tensor) -> Tensor:
    """(..., 4) left, top, right, bottom."""
    centre, z, r = xyzr[..., :2], xyzr[..., 2:3], xyzr[..., 3:]
    half = torch.exp2(torch.cat((z - r / 2, z + r / 2), dim=-1)) / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def xyzr_from_xyxy(xyxy: Tensor) -> Tensor:
    """(..., 4) centre, log2 scale, log2 ratio."""
    first, last = xyxy[..., :2], xyxy[..., 2:]
    log_width, log_height = (last - first).clamp(min=LEAST_SIDE).log2().split(1, dim=-1)
    z, r = (log_width + log_height) / 2, log_height - log_width
    return torch.cat(((first + last) / 2, z, r), dim=-1)


def clip_sizes(whwh: Tensor | tuple[int, int], num_clips: int) -> Tensor:
    """Width, height, width, height (B, 4) of the frames of each clip.

    Args:
        whwh: just that, or the (H, W) that all clips share.
        num_clips: B.

    Raises:
        ValueError: another number of clips, or sizes that are not positive.

    Example:
        >>> clip_sizes((30, 40), 2)
        tensor([[40., 30., 40., 30.],
                [40., 30., 40., 30.]])
    """
    if isinstance(whwh, Tensor):
        expect_shape('whwh', whwh, 'B 4', B=num_clips)
        sizes = whwh.float()
    else:
        height, width = whwh
        sizes = torch.tensor([width, height, width, height]).float().expand(num_clips, 4)
    if not bool((sizes > 0).all()):
        raise ValueError(f'image size must be positive, got {sizes.tolist()}')
    return sizes


def whole_images(whwh: Tensor) -> Tensor:
    """(B, 4) the boxes that are the images of the given width, height, width, height."""
    log_width, log_height = whwh[:, :2].log2().unbind(-1)
    z, r = (log_width + log_height) / 2, log_height - log_width
    return torch.cat((whwh[:, :2] / 2, torch.stack((z, r), dim=-1)), dim=-1)


def refine_xyzr(xyzr: Tensor, delta: Tensor) -> Tensor:
    """``xy + delta * 2 ** z`` and ``z, r + delta``.

    Raises:
        ValueError: shapes that differ.
    """
    if xyzr.shape != delta.shape or xyzr.shape[-1] != 4:
        raise ValueError(
            f'expected boxes and deltas (..., 4), got {tuple(xyzr.shape)}, {tuple(delta.shape)}'
        )
    xy = xyzr[..., :2] + delta[..., :2] * torch.exp2(xyzr[..., 2:3])
    return torch.cat((xy, (xyzr[..., 2:] + delta[..., 2:]).clamp(-MOST_LOG2, MOST_LOG2)), dim=-1)


def box_embedding(xyzr: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """Sinusoidal embedding (..., dim), a quarter of it for each of x, y, z, r; without gradient.

    x and y are divided by ``EMBEDDING_SIDE``: in pixels, the fastest sinusoids would turn round
    between neighbours.

    Raises:
        ValueError: a width that 8 does not divide.
    """
    if dim % 8:
        raise ValueError(f'the embedding of a box needs a multiple of 8 channels, got {dim}')
    half = dim // 8
    steps = torch.arange(half, device=xyzr.device, dtype=torch.float32)
    scale = xyzr.new_tensor([EMBEDDING_SIDE, EMBEDDING_SIDE, 1.0, 1.0], dtype=torch.float32)
    angles = (xyzr.detach().float() / scale)[..., None] / temperature ** (steps / half)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-3)


def log_iof(xyzr: Tensor) -> Tensor:
    """How much of box i lies in box j, ``log(area(i ∩ j) / area(i) + 1e-7)``, mean over frames.

    Without gradient: between boxes that nearly touch it would be of the order of 1e5.

    Args:
        xyzr: (B, N, T, 4).

    Returns:
        (B, N, N).
    """
    xyzr = xyzr.detach()
    boxes = xyxy_from_xyzr(xyzr)
    first = torch.maximum(boxes[:, :, None, :, :2], boxes[:, None, :, :, :2])
    last = torch.minimum(boxes[:, :, None, :, 2:], boxes[:, None, :, :, 2:])
    overlap = (last - first).clamp(min=0).prod(-1)
    area = torch.exp2(2 * xyzr[..., 2])  # (B, N, T)
    return torch.log(overlap / area[:, :, None] + LEAST_OVERLAP).mean(-1)


def check_boxes(xyzr: Tensor) -> None:
    """ValueError for boxes that are not finite."""
    if not torch.isfinite(xyzr).all():
        bad = int((~torch.isfinite(xyzr).flatten(2).all(-1)).sum())
        raise ValueError(f'{bad} of {xyzr.shape[0] * xyzr.shape[1]} boxes are not finite')
