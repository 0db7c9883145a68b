"""Submanifold convolution on room surfaces against spconv's CPU build: milliseconds and ratio.

Forward and backward of one 3×3×3 layer, rulebooks cached on both sides. The sides take turns, so
that whatever else the machine does hits both; medians are compared. spconv runs with one thread,
because its CPU build is wrong with more, ours with as many as torch is given. Both results are
compared before anything is timed.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from oneformer3d.backbones.rulebook import submanifold_rulebook
from oneformer3d.backbones.sparse_conv import SubMConv3d
from oneformer3d.backbones.sparse_tensor import SparseTensor

VOXEL_SIZE = 0.02
POINTS_PER_SQUARE_METRE = 5000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the layer and number of measurements."""
    parser.add_argument('--voxels', type=int, default=100_000)
    parser.add_argument('--channels', type=int, default=32)
    parser.add_argument('--repeats', type=int, default=15, help='turns of each side')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='of our side')
    parser.add_argument('--seed', type=int, default=0, help='of the room')


def run(args: argparse.Namespace) -> dict:
    """Measure both sides, print a table and return the numbers.

    Returns:
        ``{'ours': {'forward_ms', 'backward_ms', 'total_ms'}, 'spconv': …, 'rulebook_ms',
        'pairs_per_voxel', 'speedup', 'arguments'}``.

    Raises:
        ValueError: sizes below 1, or the two sides disagree.
        ImportError: spconv is not installed.
    """
    for name in ('voxels', 'channels', 'repeats', 'threads'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name} must be at least 1, got {getattr(args, name)}')
    torch.manual_seed(args.seed)
    coords = room_surface_voxels(args.voxels, args.seed)
    layer = SubMConv3d(args.channels, args.channels)
    features = torch.randn(len(coords), args.channels, requires_grad=True)
    grad = torch.randn(len(coords), args.channels)
    shape = tuple((coords[:, 1:].amax(0) + 1).tolist())
    start = time.perf_counter()
    rulebook = submanifold_rulebook(coords, shape, (3, 3, 3), (1, 1, 1))
    num_pairs = rulebook.num_pairs
    rulebook.gather_inputs  # noqa: B018  built here, to be timed
    rulebook_ms = 1000 * (time.perf_counter() - start)

    with _single_threaded_spconv():
        sides = {
            'spconv': (_side(layer, features, coords, shape, 'spconv'), 1),
            'ours': (_side(layer, features, coords, shape, 'torch'), args.threads),
        }
        _check_agreement(sides['spconv'][0], sides['ours'][0], features, layer.weight, grad)
        times = {name: [] for name in sides}
        for _ in range(args.repeats):
            for name, (convolve, threads) in sides.items():
                torch.set_num_threads(threads)
                times[name].append(_time(convolve, grad))
    torch.set_num_threads(args.threads)
    result: dict = {name: _medians(turns) for name, turns in times.items()}
    result['rulebook_ms'] = rulebook_ms
    result['pairs_per_voxel'] = num_pairs / len(coords)
    result['speedup'] = result['spconv']['total_ms'] / result['ours']['total_ms']
    result['arguments'] = {
        name: getattr(args, name) for name in ('voxels', 'channels', 'repeats', 'threads', 'seed')
    }
    _print_table(result)
    return result


def room_surface_voxels(num_voxels: int, seed: int) -> Tensor:
    """Voxels of a scanned room: walls, floor and boxes, rotated, with noise and gaps.

    Returns:
        (num_voxels, 4) int32 ``[0, x, y, z]``, sorted, a part of the room.

    Raises:
        ValueError: more voxels than ten rooms give.
    """
    rng = np.random.default_rng(seed)
    size, points = 5.0, []
    while sum(map(len, points)) * 0.6 < num_voxels + 10_000:
        rectangles = _box(np.zeros(3), np.diag([size, 0.8 * size, 2.5]))
        for _ in range(25):
            angle = rng.uniform(0, np.pi)
            turn = np.array(
                [
                    [np.cos(angle), np.sin(angle), 0],
                    [-np.sin(angle), np.cos(angle), 0],
                    [0, 0, 1],
                ]
            )
            edges = rng.uniform(0.2, 1.1, size=(3, 1)) * turn
            rectangles += _box(rng.uniform(0, [size - 1, 0.8 * size - 1, 0.5]), edges)
        for corner, u, v in rectangles:
            area = np.linalg.norm(np.cross(u, v))
            where = rng.random((int(area * POINTS_PER_SQUARE_METRE), 2))
            points.append(corner + where @ np.stack([u, v]))
        size *= 1.2
    cloud = np.concatenate(points)
    angle = 0.5
    cloud[:, :2] = cloud[:, :2] @ [
        [np.cos(angle), np.sin(angle)],
        [-np.sin(angle), np.cos(angle)],
    ]
    cloud += rng.normal(scale=0.2 * VOXEL_SIZE, size=cloud.shape)
    voxels = np.unique(np.floor((cloud - cloud.min(0)) / VOXEL_SIZE).astype(np.int32), axis=0)
    return torch.from_numpy(np.pad(voxels[:num_voxels], ((0, 0), (1, 0))))


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


def _time(convolve: Callable[[], Tensor], grad: Tensor) -> tuple[float, float]:
    """Milliseconds of the forward and the backward pass."""
    start = time.perf_counter()
    out = convolve()
    middle = time.perf_counter()
    out.backward(grad)
    return 1000 * (middle - start), 1000 * (time.perf_counter() - middle)


def _medians(turns: list[tuple[float, float]]) -> dict[str, float]:
    forward, backward = zip(*turns)
    return {
        'forward_ms': statistics.median(forward),
        'backward_ms': statistics.median(backward),
        'total_ms': statistics.median(map(sum, turns)),
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


def _print_table(result: dict) -> None:
    arguments = result['arguments']
    print(
        f'{arguments["voxels"]} voxels × {arguments["channels"]} channels, '
        f'{result["pairs_per_voxel"]:.1f} pairs per voxel; '
        f'our rulebook takes {result["rulebook_ms"]:.0f} ms once'
    )
    rows = {
        'spconv': 'spconv, 1 thread',
        'ours': f'ours, {arguments["threads"]} thread(s)',
    }
    print(f'{"":26}{"forward":>10}{"backward":>10}{"total ms":>10}')
    for name, label in rows.items():
        row = result[name]
        print(
            f'{label:26}{row["forward_ms"]:10.1f}{row["backward_ms"]:10.1f}{row["total_ms"]:10.1f}'
        )
    print(f'spconv takes {result["speedup"]:.2f} times as long')
