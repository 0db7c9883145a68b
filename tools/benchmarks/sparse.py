"""Submanifold convolution on room surfaces against spconv's CPU build: milliseconds and ratio.

Forward and backward of one 3×3×3 layer, rulebooks cached on both sides. The sides take turns, so
that whatever else the machine does hits both; medians are compared. spconv runs with one thread,
because its CPU build is wrong with more, ours with as many as torch is given. Both results are
compared before anything is timed.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from oneformer3d.backbones.rulebook import submanifold_rulebook
from oneformer3d.backbones.sparse_conv import SubMConv3d
from oneformer3d.backbones.sparse_tensor import SparseTensor
from tools.benchmarks._measure import (
    add_integers,
    clocked,
    print_table,
    read_integers,
    take_turns,
)

VOXEL_SIZE = 0.02
POINTS_PER_SQUARE_METRE = 5000
OPTIONS = {
    'voxels': (100_000, 'of the room'),
    'channels': (32, 'in and out'),
    'repeats': (15, 'turns of each side'),
    'seed': (0, 'of the room'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the layer and number of measurements."""
    add_integers(parser, {**OPTIONS, 'threads': (torch.get_num_threads(), 'of our side')})


def run(args: argparse.Namespace) -> dict:
    """Measure both sides, print a table and return the numbers.

    Returns:
        ``{'ours': {'forward_ms', 'backward_ms', 'total_ms', 'spread'}, 'spconv': …,
        'rulebook_ms', 'pairs_per_voxel', 'speedup', 'arguments'}``.

    Raises:
        ValueError: sizes below 1, or the two sides disagree.
        ImportError: spconv is not installed.
    """
    sizes = read_integers(args, (*OPTIONS, 'threads'))
    torch.manual_seed(args.seed)
    coords = room_surface_voxels(args.voxels, args.seed)
    layer = SubMConv3d(args.channels, args.channels)
    features = torch.randn(len(coords), args.channels, requires_grad=True)
    grad = torch.randn(len(coords), args.channels)
    shape = tuple((coords[:, 1:].amax(0) + 1).tolist())
    num_pairs, numbers = clocked(_build_rulebook, coords, shape)

    with _single_threaded_spconv():
        theirs, ours = (_side(layer, features, coords, shape, x) for x in ('spconv', 'torch'))
        _check_agreement(theirs, ours, features, layer.weight, grad)
        sides = {
            'spconv': partial(_time, theirs, grad, 1),
            'ours': partial(_time, ours, grad, args.threads),
        }
        result: dict = take_turns(sides, args.repeats)
    torch.set_num_threads(args.threads)

    result['rulebook_ms'] = 1000 * numbers['seconds']
    result['pairs_per_voxel'] = num_pairs / len(coords)
    result['speedup'] = result['spconv']['total_ms'] / result['ours']['total_ms']
    result['arguments'] = sizes
    show(result)
    return result


def show(result: dict) -> None:
    """Print the table."""
    arguments = result['arguments']
    print(
        f'{arguments["voxels"]} voxels × {arguments["channels"]} channels, '
        f'{result["pairs_per_voxel"]:.1f} pairs per voxel; '
        f'our rulebook takes {result["rulebook_ms"]:.0f} ms once'
    )
    labels = {'spconv': 'spconv, 1 thread', 'ours': f'ours, {arguments["threads"]} thread(s)'}
    columns = {'forward': '.1f', 'backward': '.1f', 'total ms': '.1f', 'spread': '.0%'}
    names = ('forward_ms', 'backward_ms', 'total_ms', 'spread')
    print_table(columns, {label: [result[x][n] for n in names] for x, label in labels.items()})
    print(f'spconv takes {result["speedup"]:.2f} times as long')


def room_surface_voxels(num_voxels: int, seed: int) -> Tensor:
    """Voxels of a scanned room: walls, floor and boxes, rotated, with noise and gaps.

    Returns:
        (num_voxels, 4) int32 ``[0, x, y, z]``, sorted, a part of the room.

    Raises:
        ValueError: more voxels than ten rooms give.
    """
    rng = np.random.default_rng(seed)
    size, points = 5.0, []

    # Larger rooms until there are voxels enough.
    while sum(map(len, points)) * 0.6 < num_voxels + 10_000:
        rectangles = _box(np.zeros(3), np.diag([size, 0.8 * size, 2.5]))
        for _ in range(25):
            angle = rng.uniform(0, np.pi)
            turn = np.eye(3)
            turn[:2, :2] = _rotation(angle)
            edges = rng.uniform(0.2, 1.1, size=(3, 1)) * turn
            rectangles += _box(rng.uniform(0, [size - 1, 0.8 * size - 1, 0.5]), edges)
        for corner, u, v in rectangles:
            area = np.linalg.norm(np.cross(u, v))
            where = rng.random((int(area * POINTS_PER_SQUARE_METRE), 2))
            points.append(corner + where @ np.stack([u, v]))
        size *= 1.2

    cloud = np.concatenate(points)
    cloud[:, :2] = cloud[:, :2] @ _rotation(0.5)
    cloud += rng.normal(scale=0.2 * VOXEL_SIZE, size=cloud.shape)
    voxels = np.unique(np.floor((cloud - cloud.min(0)) / VOXEL_SIZE).astype(np.int32), axis=0)
    return torch.from_numpy(np.pad(voxels[:num_voxels], ((0, 0), (1, 0))))


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _box(corner: np.ndarray, edges: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Six rectangles (corner, edge, edge)."""
    faces = []
    for i in range(3):
        u, v = edges[(i + 1) % 3], edges[(i + 2) % 3]
        faces += [(corner, u, v), (corner + edges[i], u, v)]
    return faces


def _side(
    layer: SubMConv3d, features: Tensor, coords: Tensor, shape: tuple, backend: str
) -> Callable[[], Tensor]:
    """The layer's forward pass in a backend, its rulebook built."""
    tensor = SparseTensor(features, coords, shape, 1, backend=backend)
    layer(tensor)
    return lambda: layer(tensor).features


def _build_rulebook(coords: Tensor, shape: tuple) -> int:
    """Build all that our side caches; the number of pairs."""
    rulebook = submanifold_rulebook(coords, shape, (3, 3, 3), (1, 1, 1))
    rulebook.gather_inputs  # noqa: B018  built here, to be timed
    return rulebook.num_pairs


def _time(convolve: Callable[[], Tensor], grad: Tensor, threads: int) -> dict[str, float]:
    """Milliseconds of the forward and the backward pass."""
    torch.set_num_threads(threads)
    out, forward = clocked(convolve)
    _, backward = clocked(out.backward, grad)
    forward_ms, backward_ms = 1000 * forward['seconds'], 1000 * backward['seconds']
    return {
        'forward_ms': forward_ms,
        'backward_ms': backward_ms,
        'total_ms': forward_ms + backward_ms,
    }


def _check_agreement(
    theirs: Callable[[], Tensor],
    ours: Callable[[], Tensor],
    features: Tensor,
    weight: Tensor,
    grad: Tensor,
) -> None:
    results = []
    for convolve in (theirs, ours):
        out = convolve()
        results.append((out, *torch.autograd.grad(out, (features, weight), grad)))

    for name, expected, got in zip(('output', 'features', 'weight'), *results):
        error = float((got - expected).detach().abs().max() / expected.detach().abs().max())
        if not error < 1e-4:
            raise ValueError(f'{name} differs from spconv by {error:.1e} of its largest value')


@contextlib.contextmanager
def _single_threaded_spconv() -> Iterator[None]:
    """spconv on the CPU: one thread, and a backward pass that does not look for a GPU."""
    import spconv.pytorch.ops as ops

    threads, get_current_stream = torch.get_num_threads(), ops.get_current_stream
    torch.set_num_threads(1)
    ops.get_current_stream = lambda: 0
    try:
        yield
    finally:
        ops.get_current_stream = get_current_stream
        torch.set_num_threads(threads)
