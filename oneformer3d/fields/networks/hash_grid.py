"""Multi-resolution hash grid (Instant NGP, SIGGRAPH 2022), number for number tiny-cuda-nn's.

Enters: positions (…, 3) in [0, 1]³. Leaves: (…, L · F) values, level by level.

Level l has ``scale_l = N_min b^l − 1``, nodes at ``x · scale_l + 0.5``, ``ceil(scale_l) + 1`` of
them along each axis, and ``min(roundup8(nodes³), 2^T)`` rows of F values in one table. Where the
nodes fit they are indexed densely, x fastest; elsewhere by ``x ⊕ 2654435761 y ⊕ 805459861 z``
modulo 2^T. Values are trilinear between the 8 nodes around, and differentiable in the positions.

One level at a time stays in the caches: its 8 rows of indices and weights are worked out corner by
corner in int32 and read by one ``embedding_bag``; the gradient adds up two columns at a time. Both
are several times faster on a CPU than gathering (N, L, 8, F), and nothing of that size is kept.

Letters: L levels, F values per row, T log2 of the largest table, N points.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .grid_levels import GridLevel, grid_levels
from .hash_grid_backends import load_backend

IMPLEMENTATIONS = ('torch', 'tcnn', 'triton')
# 2654435761 as int32: products and exclusive-ors then wrap as tiny-cuda-nn's uint32 do.
_PRIMES = (1, 2654435761 - 2**32, 805459861)
_INIT_RANGE = 1e-4
# Narrow gradients add up faster as one vector per column.
_MAX_COLUMNS = 16


class HashGrid(nn.Module):
    """Trainable multi-resolution grid.

    Args:
        num_levels: L.
        features_per_level: F.
        log2_hashmap_size: T.
        base_resolution: nodes of the coarsest level.
        max_resolution: nodes of the finest level; gives the growth per level.
        per_level_scale: the growth itself, in place of max_resolution.
        implementation: 'torch' (CPU and CUDA, the reference), 'tcnn' (needs tinycudann and CUDA)
            or 'triton' (needs triton and CUDA).

    Raises:
        ValueError: sizes that make no grid, or both or neither of the two ways to give growth.
        ImportError: the implementation's package is not installed.
    """

    def __init__(
        self,
        num_levels: int = 16,
        features_per_level: int = 2,
        log2_hashmap_size: int = 19,
        base_resolution: int = 16,
        max_resolution: int | None = None,
        per_level_scale: float | None = None,
        implementation: str = 'torch',
    ) -> None:
        super().__init__()
        if implementation not in IMPLEMENTATIONS:
            raise ValueError(f'implementation must be of {IMPLEMENTATIONS}, got {implementation!r}')
        if max_resolution is not None and per_level_scale is None:
            # b = exp(ln(N_max / N_min) / (L − 1))
            steps = max(num_levels - 1, 1)
            growth = float(np.exp(np.log(max_resolution / base_resolution) / steps))
        elif per_level_scale is not None and max_resolution is None:
            growth = per_level_scale
        else:
            raise ValueError('give either max_resolution or per_level_scale')

        self.levels = grid_levels(num_levels, log2_hashmap_size, base_resolution, growth)
        self.features_per_level = features_per_level
        self.implementation = implementation
        num_rows = self.levels[-1].first + self.levels[-1].num_rows
        table = torch.empty(num_rows, features_per_level)
        self.table = nn.Parameter(table.uniform_(-_INIT_RANGE, _INIT_RANGE))

        self._accelerated = None
        if implementation != 'torch':
            self._accelerated = load_backend(
                implementation, self.levels, features_per_level, growth
            )

    @property
    def output_dim(self) -> int:
        """L · F."""
        return len(self.levels) * self.features_per_level

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        coarsest, finest = self.levels[0].num_nodes, self.levels[-1].num_nodes
        return f'{len(self.levels)} levels × {self.features_per_level}, {coarsest}…{finest} nodes'

    def forward(self, positions: Tensor) -> Tensor:
        """Positions (…, 3), clamped to [0, 1]³, → (…, L · F) in the table's type.

        What is not a number counts as 0: no position may lead outside the table.
        """
        flat = positions.reshape(-1, 3).to(self.table.dtype).nan_to_num(0.0).clamp(0, 1)  # (N, 3)
        if self._accelerated is not None and flat.is_cuda:
            values = self._accelerated(flat, self.table)
        else:
            values = _HashGridFunction.apply(flat, self.table, self.levels)
        return values.unflatten(0, positions.shape[:-1])


class _HashGridFunction(torch.autograd.Function):
    """Reads the table; only positions and table are stored for the backward pass."""

    @staticmethod
    def forward(ctx, positions: Tensor, table: Tensor, levels: tuple[GridLevel, ...]) -> Tensor:
        ctx.save_for_backward(positions, table)
        ctx.levels = levels
        values = []
        for level in levels:
            index, weight, _ = _corners(positions, level, by_point=True)
            rows = table[level.first : level.first + level.num_rows]
            # Σ_k weight_k row_k over the 8 corners
            bags, shares = index.t().contiguous(), weight.t()  # (N, 8)
            values.append(F.embedding_bag(bags, rows, per_sample_weights=shares, mode='sum'))
        return torch.cat(values, dim=-1)  # (N, L · F)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        positions, table = ctx.saved_tensors
        width = table.shape[1]
        grad_table = torch.zeros_like(table) if ctx.needs_input_grad[1] else None
        grad_positions = torch.zeros_like(positions) if ctx.needs_input_grad[0] else None

        for i, level in enumerate(ctx.levels):
            rows = slice(level.first, level.first + level.num_rows)
            grad_level = grad[:, i * width : (i + 1) * width].contiguous()
            index, weight, fraction = _corners(positions, level)

            if grad_table is not None:
                _add_rows(grad_table[rows], index, weight, grad_level)
            if grad_positions is not None:
                read = table[rows].index_select(0, index.flatten()).unflatten(0, index.shape)
                grad_weight = (read * grad_level).sum(-1)  # (8, N)
                grad_positions += level.scale * _grad_fraction(fraction, grad_weight)
        return grad_positions, grad_table, None


def _corners(
    positions: Tensor, level: GridLevel, by_point: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (8, N) int32 and weights (8, N) of the nodes around, and fractions (3, N).

    Corner k lies up along x, y, z by the bits 0, 1, 2 of k. With ``by_point`` the 8 values of a
    point lie together in memory, as transposed tensors.
    """
    # x · scale_l + ½
    scaled = positions.t() * level.scale + 0.5  # (3, N)
    floor = scaled.floor()
    fraction = scaled - floor

    # row = x + n y + n² z where dense, x ⊕ p₁ y ⊕ p₂ z where hashed
    steps = (1, level.num_nodes, level.num_nodes**2) if level.is_dense else _PRIMES
    join = torch.add if level.is_dense else torch.bitwise_xor
    whole = floor.to(torch.int32).unbind(0)
    x, y, z = ((c * step, (c + 1) * step) for c, step in zip(whole, steps))
    wx, wy, wz = ((1 - f, f) for f in fraction.unbind(0))

    index = _empty_corners(floor.to(torch.int32), by_point)
    weight = _empty_corners(fraction, by_point)
    for k in range(8):
        if k % 2 == 0:  # the next two corners differ along x alone
            yz = join(y[k >> 1 & 1], z[k >> 2])
            wyz = wy[k >> 1 & 1] * wz[k >> 2]
        join(x[k & 1], yz, out=index[k])
        torch.mul(wx[k & 1], wyz, out=weight[k])

    if not level.is_dense:
        index &= level.num_rows - 1
    elif index.is_cuda or (index[7] >= level.num_rows).any():
        # a corner one past the last node wraps around, as tiny-cuda-nn's modulo does
        index = torch.where(index >= level.num_rows, index - level.num_rows, index)
    return index, weight, fraction


def _empty_corners(like: Tensor, by_point: bool) -> Tensor:
    """Room for (8, N) values of the type of ``like`` (3, N)."""
    num = like.shape[1]
    return like.new_empty(num, 8).t() if by_point else like.new_empty(8, num)


def _add_rows(total: Tensor, index: Tensor, weight: Tensor, grad: Tensor) -> None:
    """Add weight (8, N) times grad (N, F) to the rows index (8, N) of total (rows, F), in place."""
    flat = index.flatten()
    if grad.shape[1] > _MAX_COLUMNS:
        total.index_add_(0, flat, (weight[..., None] * grad).flatten(0, 1))
        return

    if grad.shape[1] % 2 == 0 and grad.dtype in (torch.float32, torch.float64):
        # two values as one complex number: half as many look-ups in memory
        total, grad = (torch.view_as_complex(x.unflatten(1, (-1, 2))) for x in (total, grad))
    for column, values in zip(total.unbind(1), grad.t().contiguous()):
        column.index_add_(0, flat, (weight * values).flatten())


def _grad_fraction(fraction: Tensor, grad_weight: Tensor) -> Tensor:
    """Gradient (N, 3) of the fractions from that of the weights (8, N)."""
    cube = grad_weight.unflatten(0, (2, 2, 2))  # (z, y, x, N)
    wx, wy, wz = (torch.stack((1 - f, f)) for f in fraction.unbind(0))
    # ∂/∂f_x of Π w is ±1 along x times the weights along y and z
    along_x = ((cube[:, :, 1] - cube[:, :, 0]) * wy * wz[:, None]).sum((0, 1))
    along_y = ((cube[:, 1] - cube[:, 0]) * wx * wz[:, None]).sum((0, 1))
    along_z = ((cube[1] - cube[0]) * wx * wy[:, None]).sum((0, 1))
    return torch.stack((along_x, along_y, along_z), dim=-1)
