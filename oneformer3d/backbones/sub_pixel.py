"""Sub-pixel convolution: a finer map whose channels are computed before they are dealt out.

Enters: a map (V, C, h, w). Leaves: (V, D, f·h, f·w), each cell of which has D channels of its own
that a convolution made of all C channels of the coarse cell (Shi et al., CVPR 2016, eq. 4). f = 1
is a plain convolution.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SubPixelConv(nn.Module):
    """Conv1×1 to f²·D channels, then the pixel shuffle.

        out[d, f·y + i, f·x + j] = Σ_c weight[f²·d + f·i + j, c] · in[c, y, x]

    It starts as the nearest cell: the f² cells of a coarse one begin with equal weights, so that
    the map has no pattern of its own (ICNR, Aitken et al. 2017).

    Weights (D, C / f²) from a time when the shuffle stood before a convolution that all cells
    shared are taken when loading: the same map is a block-sparse case of this one,
    see ``blocks_of_shared_weight``.

    Args:
        in_channels: C.
        out_channels: D.
        factor: f.

    Example:
        >>> SubPixelConv(768, 256)(torch.zeros(1, 768, 14, 14)).shape
        torch.Size([1, 256, 28, 28])
    """

    def __init__(self, in_channels: int, out_channels: int, factor: int = 2) -> None:
        super().__init__()
        if min(in_channels, out_channels, factor) < 1:
            raise ValueError(
                f'expected positive channels and factor, got {in_channels}, {out_channels}, '
                f'{factor}'
            )
        self.in_channels, self.out_channels, self.factor = in_channels, out_channels, factor
        first = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        assert first.bias is not None
        self.weight = nn.Parameter(first.weight.detach().repeat_interleave(factor**2, dim=0))
        self.bias = nn.Parameter(first.bias.detach().repeat_interleave(factor**2, dim=0))
        self.register_load_state_dict_pre_hook(widen_shared_weight)

    def forward(self, x: Tensor) -> Tensor:
        """(V, C, h, w) → (V, D, f·h, f·w); V may be 0."""
        if not len(x):
            height, width = x.shape[-2:]
            size = (height * self.factor, width * self.factor)
            return x.new_zeros(0, self.out_channels, *size)
        return F.pixel_shuffle(F.conv2d(x, self.weight, self.bias), self.factor)


def group_norm_of_cells(x: Tensor, factor: int, eps: float = 1e-5) -> Tensor:
    """Normalise every cell over each of the f² groups of channels that a store deals out together.

    Group k are the channels k, f² + k, 2·f² + k, …; with f = 1 it is a layer norm without weights.
    A token's few huge channels then flatten only their own group. It equals a layer norm of the
    cells of the shuffled map, which is what weights of that time were trained on.

    Args:
        x: (V, C, h, w) with C a multiple of f².
        factor: f.
        eps: added to the variance.

    Returns:
        (V, C, h, w).

    Raises:
        ValueError: the channels cannot be divided.
    """
    if x.shape[1] % factor**2:
        raise ValueError(
            f'sub-pixels ×{factor} need tokens of a multiple of {factor**2} channels, '
            f'got {x.shape[1]}; sub_pixel=1 takes any'
        )
    groups = x.unflatten(1, (-1, factor**2))  # (V, C / f², f², h, w)
    variance, mean = torch.var_mean(groups, dim=1, keepdim=True, correction=0)
    return ((groups - mean) * torch.rsqrt(variance + eps)).flatten(1, 2)  # (V, C, h, w)


def blocks_of_shared_weight(weight: Tensor, factor: int) -> Tensor:
    """The weight of a ``SubPixelConv`` that equals a shuffle before one shared convolution.

    Args:
        weight: (D, c, 1, 1) of the shared convolution, applied to maps (V, c, f·h, f·w).
        factor: f.

    Returns:
        (f²·D, f²·c, 1, 1): of cell k only the channels of group k are not zero.
    """
    out_channels, in_channels = weight.shape[:2]
    # weight'[f²·d + k, f²·c + l] = weight[d, c] if k = l else 0
    same_cell = torch.eye(factor**2, dtype=weight.dtype, device=weight.device)
    blocks = torch.einsum('dc,kl->dkcl', weight.reshape(out_channels, in_channels), same_cell)
    return blocks.reshape(factor**2 * out_channels, factor**2 * in_channels, 1, 1)


def widen_shared_weight(
    module: SubPixelConv, state_dict: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Load hook: widen what was saved before the convolution stood in front of the shuffle.

    Args:
        module: whose weights are read.
        state_dict: gets the wide weights in place of shared ones; anything else stays.
        prefix: of the module's names in it.
    """
    weight, bias = (state_dict.get(f'{prefix}{name}') for name in ('weight', 'bias'))
    cells = module.factor**2
    old_shape = (module.out_channels, module.in_channels / cells, 1, 1)
    if cells == 1 or weight is None or bias is None or tuple(weight.shape) != old_shape:
        return
    state_dict[f'{prefix}weight'] = blocks_of_shared_weight(weight, module.factor)
    state_dict[f'{prefix}bias'] = bias.repeat_interleave(cells)
