"""Accelerated hash grids, each behind its own optional package; the torch path is their reference.

Enters: positions (N, 3) in [0, 1]³ and the table (rows, F). Leaves: values (N, L · F),
differentiable in both.

'triton' is tested on the CPU by triton's interpreter, 'tcnn' against a stand-in of its interface.
Both are used only for tensors on a GPU; elsewhere ``HashGrid`` takes the torch path.

Letters: L levels, F values per row, N points.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .grid_levels import GridLevel

Backend = Callable[[Tensor, Tensor], Tensor]


def load_backend(
    name: str, levels: tuple[GridLevel, ...], features: int, per_level_scale: float
) -> Backend:
    """The function (positions, table) → values of an accelerated grid.

    Args:
        name: 'tcnn' or 'triton'.
        levels: of the grid.
        features: F.
        per_level_scale: growth from one level to the next.

    Raises:
        ImportError: its package is not installed.
    """
    if name == 'tcnn':
        return _tcnn_backend(levels, features, per_level_scale)

    try:
        from .hash_grid_triton import triton_hash_grid
    except ImportError as error:
        raise ImportError(f"implementation='triton' needs the package triton: {error}") from error
    return lambda positions, table: triton_hash_grid(positions, table, levels)


def _tcnn_backend(levels: tuple[GridLevel, ...], features: int, per_level_scale: float) -> Backend:
    """tiny-cuda-nn's grid reading our table, so that checkpoints are the same for all."""
    try:
        # in no package index: users build it themselves
        import tinycudann as tcnn  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"implementation='tcnn' needs tinycudann, built for this GPU: {error}"
        ) from error

    # the limit of a table shows in its largest level, unless all levels are smaller
    largest = max(level.num_rows for level in levels)
    is_limited = largest & (largest - 1) == 0
    config = {
        'otype': 'HashGrid',
        'n_levels': len(levels),
        'n_features_per_level': features,
        'log2_hashmap_size': largest.bit_length() - 1 if is_limited else 30,
        'base_resolution': round(levels[0].scale + 1),
        'per_level_scale': per_level_scale,
    }
    encoding = tcnn.Encoding(3, config, dtype=torch.float32)

    num_values = encoding.params.numel()
    expected = (levels[-1].first + levels[-1].num_rows) * features
    if num_values != expected:
        raise ValueError(f'tinycudann makes a grid of {num_values} values, not {expected}')

    def read(positions: Tensor, table: Tensor) -> Tensor:
        values = torch.func.functional_call(encoding, {'params': table.reshape(-1)}, (positions,))
        return values.to(table.dtype)

    return read
