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

from oneformer3d.lifting.shapes import expect_shape

from .rulebook import Block, Rulebook, Tile


def gather_matmul(
    features: Tensor,
    kernel: Tensor,
    rulebook: Rulebook,
    inverse: bool = False,
    factors: torch.dtype | None = None,
) -> Tensor:
    """Sparse convolution of voxel features.

    Args:
        features: (N, C) floats on the rulebook's input voxels; (M, C) with ``inverse``.
        kernel: (K, C, D), same dtype.
        rulebook: the pairs.
        inverse: from the rulebook's output voxels back to its input voxels.
        factors: dtype that features, kernel and products of tiles are rounded to; sums and
            results keep theirs. None rounds nothing.

    Returns:
        (M, D), or (N, D) with ``inverse``; half precision is summed over tiles in float32.

    Raises:
        ValueError: sizes that do not fit.
    """
    num_rows = len(rulebook.out_coords if inverse else rulebook.in_coords)
    expect_shape('features', features, 'N C', N=num_rows)
    expect_shape('kernel', kernel, 'K C D', K=len(rulebook.table), C=features.shape[1])
    return _GatherMatmul.apply(features, kernel, rulebook, inverse, factors or features.dtype)


class _Context(FunctionCtx):
    """What the backward pass is given."""

    rulebook: Rulebook
    inverse: bool
    dtype: torch.dtype
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class _GatherMatmul(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context,
        features: Tensor,
        kernel: Tensor,
        rulebook: Rulebook,
        inverse: bool,
        factors: torch.dtype,
    ) -> Tensor:
        dtype = features.dtype
        features, kernel = features.to(factors), kernel.to(factors)
        ctx.save_for_backward(features, kernel)
        ctx.rulebook, ctx.inverse, ctx.dtype = rulebook, inverse, dtype
        blocks = rulebook.gather_outputs if inverse else rulebook.gather_inputs
        kernel_parts = _KernelParts(kernel)
        memory = _Memory(blocks, features, kernel.shape[2], dtype)

        # out[i] = Σ_k features[j(i, k)] @ kernel[k]
        for block in blocks:
            for tile in block.tiles:
                gathered = memory.gather(tile)  # (R, G·C)
                memory.multiply(gathered, kernel_parts[tile.offsets], tile)
            memory.sum_products(block)
        return memory.out

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        features, kernel = ctx.saved_tensors
        grad_out = grad_out.to(features.dtype)
        wants_features, wants_kernel = ctx.needs_input_grad[:2]
        blocks = ctx.rulebook.gather_inputs if ctx.inverse else ctx.rulebook.gather_outputs
        kernel = kernel.transpose(1, 2).contiguous()  # (K, D, C)
        kernel_parts = _KernelParts(kernel)

        # Half-precision products of tiles are summed in float32.
        grad_kernel = kernel.new_zeros(
            kernel.shape, dtype=torch.promote_types(kernel.dtype, torch.float32)
        )
        grad_rows = grad_kernel.flatten(0, 1)
        memory = _Memory(blocks, grad_out, kernel.shape[2], ctx.dtype)

        for block in blocks:
            for tile in block.tiles:
                gathered = memory.gather(tile)  # (R, G·D)
                if wants_features:
                    memory.multiply(gathered, kernel_parts[tile.offsets], tile)
                if wants_kernel:
                    product = gathered.T @ memory.rows(features, tile)  # (G·D, C)
                    start = 0
                    for rows in _kernel_rows(tile.offsets, kernel.shape[1]):
                        stop = start + rows.stop - rows.start
                        grad_rows[rows] += product[start:stop]
                        start = stop
            if wants_features:
                memory.sum_products(block)

        return (
            memory.out if wants_features else None,
            grad_kernel.transpose(1, 2).to(ctx.dtype) if wants_kernel else None,
            None,
            None,
            None,
        )


class _KernelParts(dict):
    """(G·C, D) parts of a kernel (K, C, D) by tuples of G offsets; successive ones are no copy."""

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.rows = kernel.flatten(0, 1)
        self.channels = kernel.shape[1]

    def __missing__(self, offsets: tuple[int, ...]) -> Tensor:
        parts = [self.rows[rows] for rows in _kernel_rows(offsets, self.channels)]
        self[offsets] = part = parts[0] if len(parts) == 1 else torch.cat(parts)
        return part


def _kernel_rows(offsets: tuple[int, ...], channels: int) -> list[slice]:
    """Where ascending offsets lie in a kernel of (K·C, D) rows; one slice of successive ones."""
    first, last = offsets[0], offsets[-1]
    if last - first + 1 == len(offsets):
        return [slice(first * channels, (last + 1) * channels)]
    return [slice(k * channels, (k + 1) * channels) for k in offsets]


class _Memory:
    """What is written to over and over: fresh pages from the system cost more than a product.

    A CPU compiles a product of half precision anew for every number of rows, which takes longer
    than the product; so rows of zeros fill tiles up to one of few numbers.
    """

    def __init__(
        self, blocks: list[Block], features: Tensor, out_channels: int, dtype: torch.dtype
    ) -> None:
        tiles = [tile for block in blocks for tile in block.tiles]
        self.fills_up = features.device.type == 'cpu' and features.dtype != dtype
        most_gathered = max((self._num_rows(t) * len(t.offsets) for t in tiles), default=0)
        most_products = max((block.products.shape[0] for block in blocks), default=0)
        most_rows = max(map(self._num_rows, tiles), default=0) if self.fills_up else 0
        num_rows = blocks[-1].rows.stop if blocks else 0

        self.gathered = features.new_empty(most_gathered, features.shape[1])
        self.product = features.new_empty(most_rows, out_channels)
        self.products = features.new_empty(most_products, out_channels, dtype=dtype)
        self.out = features.new_empty(num_rows, out_channels, dtype=dtype)
        self.padded = F.pad(features, (0, 0, 0, 1)) if any(t.has_gaps for t in tiles) else features

    def gather(self, tile: Tile) -> Tensor:
        """The neighbours of a tile's rows, (R, G·C), and what fills them up."""
        num_gathered = tile.neighbours.shape[0]
        num_offsets = len(tile.offsets)
        num_rows = self._num_rows(tile)
        gathered = self.gathered[: num_rows * num_offsets]
        source = self.padded
        torch.index_select(source, 0, tile.neighbours, out=gathered[:num_gathered])
        gathered[num_gathered:] = 0
        return gathered.view(num_rows, -1)

    def rows(self, features: Tensor, tile: Tile) -> Tensor:
        """The features (R, C) of a tile's rows, and what fills them up."""
        rows = features.index_select(0, tile.rows)
        num_missing = self._num_rows(tile) - len(rows)
        return F.pad(rows, (0, 0, 0, num_missing)) if num_missing else rows

    def multiply(self, gathered: Tensor, kernel: Tensor, tile: Tile) -> None:
        """Write the tile's products: gathered (R, G·C) @ kernel (G·C, D)."""
        if self.fills_up:
            product = self.product[: len(gathered)]
            torch.mm(gathered, kernel, out=product)
            self.products[tile.products] = product[: len(tile.rows)]
        else:
            torch.mm(gathered, kernel, out=self.products[tile.products])

    def sum_products(self, block: Block) -> None:
        """Write the block's rows of ``out``: each the sum of its products, zero if it has none."""
        # An embedding bag is the fastest gather-and-sum that torch has, and sums in float32.
        self.out[block.rows] = F.embedding_bag(
            block.products,
            self.products,
            block.product_starts,
            mode='sum',
            include_last_offset=True,
        )

    def _num_rows(self, tile: Tile) -> int:
        """Rows that are multiplied: R, or the next of 2ⁿ and 1.25, 1.5, 1.75 times that."""
        num = len(tile.rows)
        if not self.fills_up:
            return num
        step = max(64, 1 << max(num.bit_length() - 3, 0))
        return -(-num // step) * step
