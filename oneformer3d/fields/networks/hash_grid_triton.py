"""The hash grid as two triton kernels, forward and backward; see ``hash_grid`` for the maths.

Enters: positions (N, 3) in [0, 1]³ float32, table (rows, F) float32. Leaves: values (N, L · F).
One program handles a block of points at one level. Triton's declarations know neither that numbers
become constants nor that its ranges can be gone through, which a type checker is told to pass over.

Letters: L levels, F values per row, N points.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .grid_levels import GridLevel

_BLOCK = 128


def triton_hash_grid(positions: Tensor, table: Tensor, levels: tuple[GridLevel, ...]) -> Tensor:
    """Values (N, L · F), differentiable in positions and table."""
    return _TritonHashGrid.apply(positions, table, levels)


class _TritonHashGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, positions: Tensor, table: Tensor, levels: tuple[GridLevel, ...]) -> Tensor:
        positions, table = positions.contiguous(), table.contiguous()
        sizes, scales = _level_tables(levels, positions.device)

        values = positions.new_empty(len(positions), len(levels) * table.shape[1])
        grid = (triton.cdiv(len(positions), _BLOCK), len(levels))
        if len(positions):
            _forward_kernel[grid](
                positions, table, values, sizes, scales, len(positions),
                NUM_LEVELS=len(levels),  # pyright: ignore[reportArgumentType]
                F=table.shape[1],  # pyright: ignore[reportArgumentType]
                BLOCK=_BLOCK,  # pyright: ignore[reportArgumentType]
            )  # fmt: skip
        ctx.save_for_backward(positions, table, sizes, scales)
        return values

    @staticmethod
    def backward(ctx, grad: Tensor):
        positions, table, sizes, scales = ctx.saved_tensors
        grad_table, grad_positions = torch.zeros_like(table), torch.zeros_like(positions)

        grid = (triton.cdiv(len(positions), _BLOCK), len(sizes))
        if len(positions):
            _backward_kernel[grid](
                positions, table, grad.contiguous(), grad_table, grad_positions, sizes, scales,
                len(positions),
                NUM_LEVELS=len(sizes),  # pyright: ignore[reportArgumentType]
                F=table.shape[1],
                BLOCK=_BLOCK,  # pyright: ignore[reportArgumentType]
                NEEDS_POSITIONS=ctx.needs_input_grad[0],
            )  # fmt: skip
        return grad_positions if ctx.needs_input_grad[0] else None, grad_table, None


def _level_tables(levels: tuple[GridLevel, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(L, 4) int32 nodes, first row, rows, is dense; (L,) float32 scales."""
    sizes = [[v.num_nodes, v.first, v.num_rows, int(v.is_dense)] for v in levels]
    scales = torch.tensor([v.scale for v in levels], dtype=torch.float32, device=device)
    return torch.tensor(sizes, dtype=torch.int32, device=device), scales


@triton.jit
def _row(x, y, z, nodes, rows, dense):
    """Row of a node within its level."""
    dense_row = x + y * nodes + z * nodes * nodes
    dense_row = tl.where(dense_row >= rows, dense_row - rows, dense_row)
    y_hash = (y.to(tl.uint32) * 2654435761).to(tl.uint32)
    z_hash = (z.to(tl.uint32) * 805459861).to(tl.uint32)
    hashed = (x.to(tl.uint32) ^ y_hash ^ z_hash) & (rows - 1).to(tl.uint32)
    return tl.where(dense != 0, dense_row, hashed.to(tl.int32))


@triton.jit
def _forward_kernel(
    positions, table, values, sizes, scales, num_points,
    NUM_LEVELS: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    level = tl.program_id(1)
    point = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = point < num_points

    nodes, first = tl.load(sizes + level * 4), tl.load(sizes + level * 4 + 1)
    rows, dense = tl.load(sizes + level * 4 + 2), tl.load(sizes + level * 4 + 3)
    scale = tl.load(scales + level)

    # x · scale_l + ½
    px = tl.load(positions + point * 3, mask=valid, other=0.0) * scale + 0.5
    py = tl.load(positions + point * 3 + 1, mask=valid, other=0.0) * scale + 0.5
    pz = tl.load(positions + point * 3 + 2, mask=valid, other=0.0) * scale + 0.5
    # node below, and fraction
    fx, fy, fz = tl.floor(px), tl.floor(py), tl.floor(pz)
    wx, wy, wz = px - fx, py - fy, pz - fz
    ix, iy, iz = fx.to(tl.int32), fy.to(tl.int32), fz.to(tl.int32)

    # Σ_k weight_k row_k over the 8 corners
    for f in tl.static_range(F):  # pyright: ignore[reportGeneralTypeIssues]
        total = tl.full((BLOCK,), 0.0, tl.float32)
        for k in tl.static_range(8):  # pyright: ignore[reportGeneralTypeIssues]
            bx, by, bz = k & 1, (k >> 1) & 1, k >> 2
            row = first + _row(ix + bx, iy + by, iz + bz, nodes, rows, dense)
            w = (wx if bx else 1 - wx) * (wy if by else 1 - wy) * (wz if bz else 1 - wz)
            total += w * tl.load(table + row * F + f, mask=valid, other=0.0)
        tl.store(values + point * (NUM_LEVELS * F) + level * F + f, total, mask=valid)


@triton.jit
def _backward_kernel(
    positions, table, grad, grad_table, grad_positions, sizes, scales, num_points,
    NUM_LEVELS: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr, NEEDS_POSITIONS: tl.constexpr,
):  # fmt: skip
    level = tl.program_id(1)
    point = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = point < num_points

    nodes, first = tl.load(sizes + level * 4), tl.load(sizes + level * 4 + 1)
    rows, dense = tl.load(sizes + level * 4 + 2), tl.load(sizes + level * 4 + 3)
    scale = tl.load(scales + level)

    # x · scale_l + ½
    px = tl.load(positions + point * 3, mask=valid, other=0.0) * scale + 0.5
    py = tl.load(positions + point * 3 + 1, mask=valid, other=0.0) * scale + 0.5
    pz = tl.load(positions + point * 3 + 2, mask=valid, other=0.0) * scale + 0.5
    # node below, and fraction
    fx, fy, fz = tl.floor(px), tl.floor(py), tl.floor(pz)
    wx, wy, wz = px - fx, py - fy, pz - fz
    ix, iy, iz = fx.to(tl.int32), fy.to(tl.int32), fz.to(tl.int32)

    # rows get weight · grad, positions the slope of the weights · (row · grad)
    gx = tl.full((BLOCK,), 0.0, tl.float32)
    gy = tl.full((BLOCK,), 0.0, tl.float32)
    gz = tl.full((BLOCK,), 0.0, tl.float32)
    for f in tl.static_range(F):  # pyright: ignore[reportGeneralTypeIssues]
        g = tl.load(grad + point * (NUM_LEVELS * F) + level * F + f, mask=valid, other=0.0)
        for k in tl.static_range(8):  # pyright: ignore[reportGeneralTypeIssues]
            bx, by, bz = k & 1, (k >> 1) & 1, k >> 2
            row = first + _row(ix + bx, iy + by, iz + bz, nodes, rows, dense)
            ax, ay, az = wx if bx else 1 - wx, wy if by else 1 - wy, wz if bz else 1 - wz
            tl.atomic_add(grad_table + row * F + f, ax * ay * az * g, mask=valid)
            if NEEDS_POSITIONS:
                read = g * tl.load(table + row * F + f, mask=valid, other=0.0)
                gx += (1 if bx else -1) * ay * az * read
                gy += (1 if by else -1) * ax * az * read
                gz += (1 if bz else -1) * ax * ay * read

    if NEEDS_POSITIONS:
        tl.atomic_add(grad_positions + point * 3, gx * scale, mask=valid)
        tl.atomic_add(grad_positions + point * 3 + 1, gy * scale, mask=valid)
        tl.atomic_add(grad_positions + point * 3 + 2, gz * scale, mask=valid)
