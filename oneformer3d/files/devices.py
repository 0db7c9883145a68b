"""Which devices gain from bfloat16; where nothing multiplies it, it is emulated.

A CPU without AVX-512 or AMX took ten times as long for a convolution and forty times for a matrix
product as in float32.
"""

import logging
from functools import cache

import torch
from mmengine.logging import print_log


def pick_device(name: str) -> torch.device:
    """The device of a name; 'auto' is a GPU where there is one."""
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    return torch.device(name)


def multiplies_bfloat16(device: torch.device | str) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 on this device."""
    device = torch.device(device)
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == 'cpu':
        is_there = torch.backends.mkldnn.is_available()
        return is_there and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return False


@cache
def has_bfloat16_instructions() -> bool:
    """Whether this CPU has AVX512-BF16 or AMX, without which bfloat16 is emulated."""
    is_there = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return is_there and multiplies_bfloat16('cpu')


def warn_of_emulated_bfloat16(device: torch.device | str, what: str) -> None:
    """Log a warning where bfloat16 was asked for and will be slow.

    Args:
        device: to be computed on.
        what: that asked for it, e.g. '--amp'.
    """
    if not multiplies_bfloat16(device):
        print_log(
            f'{what}: this {torch.device(device).type} does not multiply bfloat16; expect it to be '
            'many times slower than float32',
            logger='current',
            level=logging.WARNING,
        )
