"""The arithmetic of sparse convolution in plain torch: gather, matrix product, add.

Enters: features (N, C), a kernel (K, C, D) and a ``Rulebook``. Leaves: features (M, D).

For output row i with neighbours j(i, k): ``out[i] = Σ_k features[j(i, k)] @ kernel[k]``. The
backward pass is the same operation in the other direction, on the transposed kernel; the rows it
gathers serve the gradient of the kernel too. Memory beside inputs and outputs is that of one tile.
All sums run in a fixed order.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from .rulebook import Block, Rulebook, Tile


def gather_matmul(
    features: Tensor, kernel: Tensor, rulebook: Rulebook, inverse: bool = False
) -> Tensor:
    """Sparse convolution of voxel features.

    Args:
        features: (N, C) floats on the rulebook's input voxels; (M, C) with ``inverse``.
        kernel: (K, C, D), same dtype.
        rulebook: the pairs.
        inverse: from the rulebook's output voxels back to its input voxels.

    Returns:
        (M, D), or (N, D) with ``inverse``; half precision is summed over tiles in float32.

    Raises:
        ValueError: sizes that do not fit.
    """
    num_rows = len(rulebook.out_coords if inverse else rulebook.in_coords)
    if features.ndim != 2 or len(features) != num_rows:
        raise ValueError(f'features: expected ({num_rows}, C), got {tuple(features.shape)}')
    expected = (len(rulebook.table), features.shape[1])
    if kernel.ndim != 3 or kernel.shape[:2] != expected:
        raise ValueError(f'kernel: expected {(*expected, "D")}, got {tuple(kernel.shape)}')
    return _GatherMatmul.apply(features, kernel, rulebook, inverse)


class _GatherMatmul(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, features: Tensor, kernel: Tensor, rulebook: Rulebook, inverse: bool
    ) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.rulebook, ctx.inverse = rulebook, inverse
        kernel = kernel.contiguous()
        blocks = rulebook.gather_outputs if inverse else rulebook.gather_inputs
        buffer, products_buffer = _Buffer(features), _Buffer(features)
        out = features.new_empty(_num_rows(blocks), kernel.shape[2])
        for block in blocks:
            products = products_buffer.take(len(block.products), kernel.shape[2])
            first = 0
            for tile in block.tiles:
                last = first + len(tile.rows)
                _multiply(buffer.gather(features, tile), kernel, tile, products[first:last])
                first = last
            _sum_products(products, block, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        features, kernel = ctx.saved_tensors
        rulebook = ctx.rulebook
        grad_out = grad_out.to(features.dtype).contiguous()
        kernel = kernel.transpose(1, 2).contiguous()
        wants_features, wants_kernel = ctx.needs_input_grad[:2]
        blocks = rulebook.gather_inputs if ctx.inverse else rulebook.gather_outputs
        buffer, rows_buffer, products_buffer = (_Buffer(features) for _ in range(3))
        grad_features = torch.empty_like(features)
        # Half-precision products of tiles are summed in float32.
        grad_kernel = torch.zeros_like(
            kernel, dtype=torch.promote_types(kernel.dtype, torch.float32)
        )
        for block in blocks:
            products = products_buffer.take(len(block.products), features.shape[1])
            first = 0
            for tile in block.tiles:
                last = first + len(tile.rows)
                gathered = buffer.gather(grad_out, tile)
                if wants_features:
                    _multiply(gathered, kernel, tile, products[first:last])
                if wants_kernel:
                    part = gathered.T @ rows_buffer.select(features, tile.rows)
                    part = part.view(len(tile.offsets), *kernel.shape[1:])
                    grad_kernel.index_add_(0, tile.offsets, part.to(grad_kernel.dtype))
                first = last
            if wants_features:
                _sum_products(products, block, grad_features)
        return (
            grad_features if wants_features else None,
            grad_kernel.transpose(1, 2).to(kernel.dtype) if wants_kernel else None,
            None,
            None,
        )


def _num_rows(blocks: list[Block]) -> int:
    return sum(block.num_rows for block in blocks)


def _multiply(gathered: Tensor, kernel: Tensor, tile: Tile, out: Tensor) -> None:
    """(R, G·C) gathered features times the (G, C, D) part of the kernel, written to ``out``."""
    torch.mm(gathered, kernel.index_select(0, tile.offsets).flatten(0, 1), out=out)


def _sum_products(products: Tensor, block: Block, out: Tensor) -> None:
    """Write the block's rows of ``out``: each the sum of its products, zero if it has none."""
    # An embedding bag is the fastest gather-and-sum that torch has, and accumulates in float32.
    out[block.first_row : block.first_row + block.num_rows] = F.embedding_bag(
        block.products, products, block.product_starts, mode='sum', include_last_offset=True
    )


class _Buffer:
    """Memory that is used again and again: fresh pages from the system cost more than a product."""

    def __init__(self, like: Tensor) -> None:
        self.memory = like.new_empty(0)

    def take(self, num_rows: int, num_columns: int) -> Tensor:
        """Uninitialised (num_rows, num_columns), valid until the next call."""
        size = num_rows * num_columns
        if size > len(self.memory):
            self.memory = self.memory.new_empty(size)
        return self.memory[:size].view(num_rows, num_columns)

    def select(self, source: Tensor, rows: Tensor) -> Tensor:
        """``source[rows]``."""
        return torch.index_select(source, 0, rows, out=self.take(len(rows), source.shape[1]))

    def gather(self, source: Tensor, tile: Tile) -> Tensor:
        """The neighbours of a tile's rows, (R, G·C)."""
        return self.select(source, tile.neighbours).view(len(tile.rows), -1)
