"""Tokens of a frozen tower ↔ the map that a feature store holds.

Enters: tokens (…, C, h, w) or a stored map (…, C / f², f·h, f·w). Leaves: the other one, bit for
bit. f is the factor that the store's stamp names; the documented store has f = 2, (192, 28, 28) of
tokens (768, 14, 14).

The shuffle deals the channels of one token to f × f cells: channel f²·c + f·i + j goes to channel c
of the cell (i, j). It is a way to store tokens and makes nothing finer: neighbouring cells hold
different channels of one patch, so they are neither comparable with each other nor to be
interpolated. Every reader therefore takes the tokens back first; a network that wants a finer grid
computes its channels before it deals them out (``backbones.sub_pixel``).
"""

import torch.nn.functional as F
from torch import Tensor


def pixel_shuffle_features(feat: Tensor, factor: int = 2) -> Tensor:
    """Tokens as they are stored.

    Args:
        feat: (…, C, h, w) with C a multiple of factor².
        factor: of the grid's sides.

    Returns:
        (…, C / factor², factor·h, factor·w).

    Raises:
        ValueError: the channels cannot be divided.

    Example:
        >>> import torch
        >>> pixel_shuffle_features(torch.zeros(2, 768, 14, 14)).shape
        torch.Size([2, 192, 28, 28])
    """
    if factor < 1 or feat.shape[-3] % factor**2:
        raise ValueError(
            f'pixel shuffle ×{factor} needs a multiple of {factor**2} channels, '
            f'got {feat.shape[-3]}'
        )
    return F.pixel_shuffle(feat, factor)


def frozen_tokens(feat: Tensor, factor: int) -> Tensor:
    """Undo ``pixel_shuffle_features``: the tokens as the encoder gave them, all channels in place.

    Args:
        feat: (…, C, h, w) as stored, h and w multiples of the factor.
        factor: ``StoreStamp.shuffle_factor`` of the store.

    Returns:
        (…, C · factor², h / factor, w / factor).

    Raises:
        ValueError: the sides cannot be divided.

    Example:
        >>> import torch
        >>> frozen_tokens(torch.zeros(2, 192, 28, 28), 2).shape
        torch.Size([2, 768, 14, 14])
    """
    if factor < 1 or feat.shape[-2] % factor or feat.shape[-1] % factor:
        raise ValueError(
            f'a map that went through pixel shuffle ×{factor} has sides that {factor} divides, '
            f'got {tuple(feat.shape[-2:])}'
        )
    # torch's own pixel_unshuffle gives zero views back as they are
    cells = feat.unflatten(-1, (-1, factor)).unflatten(-3, (-1, factor))  # (…, c, h, i, w, j)
    tokens = cells.movedim((-3, -1), (-4, -3))  # (…, c, i, j, h, w)
    return tokens.flatten(-5, -3)
