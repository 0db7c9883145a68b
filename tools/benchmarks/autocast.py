"""Sparse convolution under bfloat16 autocast against float32 on the CPU: milliseconds and ratio.

Forward and backward of a 3×3×3 layer on the surfaces of a room, for several widths, and the forward
pass of Res16UNet34C. The sides take turns; medians are compared. Beside them the largest difference
of the results, as a share of the largest result. Without AVX512-BF16 or AMX the sides are the same.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from oneformer3d.backbones.res16unet import Res16UNet34C
from oneformer3d.backbones.sparse_conv import SubMConv3d
from oneformer3d.backbones.sparse_tensor import SparseTensor
from oneformer3d.files.devices import has_bfloat16_instructions
from tools.benchmarks._measure import (
    add_integers,
    clocked,
    print_table,
    read_integers,
    take_turns,
)
from tools.benchmarks.sparse import room_surface_voxels

OPTIONS = {
    'voxels': (20_000, 'of the room'),
    'repeats': (7, 'turns of each side'),
    'seed': (0, 'of the room'),
}
WIDTHS = (32, 96, 256)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the room and number of measurements."""
    add_integers(parser, {**OPTIONS, 'threads': (torch.get_num_threads(), 'of both sides')})


def run(args: argparse.Namespace) -> dict:
    """Measure, print a table and return the numbers.

    Returns:
        Of each part ``{'float32_ms', 'autocast_ms', 'speedup', 'error'}``; ``has_instructions``.

    Raises:
        ValueError: sizes below 1.
    """
    sizes = read_integers(args, (*OPTIONS, 'threads'))
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    coords = room_surface_voxels(args.voxels, args.seed)
    shape = tuple((coords[:, 1:].amax(0) + 1).tolist())

    parts: dict[str, dict[str, float]] = {}
    for width in WIDTHS:
        features = torch.randn(len(coords), width, requires_grad=True)
        tensor = SparseTensor(features, coords, shape, 1)
        layer = SubMConv3d(width, width)
        parts[f'layer of {width}, forward'] = compare(layer, tensor, args.repeats)
        parts[f'layer of {width}, both'] = compare(layer, tensor, args.repeats, backward=True)
    tensor = SparseTensor(torch.randn(len(coords), 3), coords, shape, 1)
    network = Res16UNet34C(3, 96).eval()
    parts['Res16UNet34C, forward'] = compare(network, tensor, args.repeats)

    report = {'has_instructions': has_bfloat16_instructions(), 'arguments': sizes, **parts}
    columns = {'float32 ms': '.1f', 'autocast ms': '.1f', 'speedup': '.2f', 'error': '.1e'}
    print_table(columns, {name: list(numbers.values()) for name, numbers in parts.items()})
    print('bfloat16 in hardware' if report['has_instructions'] else 'no bfloat16 in hardware')
    return report


def compare(
    module: nn.Module, tensor: SparseTensor, repeats: int, backward: bool = False
) -> dict[str, float]:
    """Both sides of one part."""

    def once(enabled: bool) -> Tensor:
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            out = module(tensor).features
        if backward:
            out.sum().backward()
        return out.detach().float()

    # rulebooks are built here, and products of half precision compiled
    with torch.set_grad_enabled(backward):
        exact, rounded = once(False), once(True)
        sides: dict[str, Callable[[], dict[str, float]]] = {
            name: partial(time_ms, partial(once, name == 'autocast'))
            for name in ('float32', 'autocast')
        }
        turns = take_turns(sides, repeats)
    float32, autocast = turns['float32']['ms'], turns['autocast']['ms']
    return {
        'float32_ms': float32,
        'autocast_ms': autocast,
        'speedup': float32 / autocast,
        'error': float((rounded - exact).abs().max() / exact.abs().max()),
    }


def time_ms(call: Callable[[], Tensor]) -> dict[str, float]:
    """Milliseconds of a call."""
    return {'ms': 1000 * clocked(call)[1]['seconds']}
