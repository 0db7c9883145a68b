"""Rulebooks: which voxel meets which voxel under which kernel offset.

Enters: integer voxel coordinates (N, 4) ``[batch, x, y, z]`` within a spatial shape, and a kernel.
Leaves: a ``Rulebook`` with the output voxels and, for either direction of the convolution, the
``Block``s of ``Tile``s that ``gather_matmul`` works through.

Letters: N input voxels, M output voxels, K kernel offsets (``kD·kH·kW``, the last axis fastest, as
in the weight), R rows of a tile, G offsets of a tile.

Voxels are compared as integer keys in sorted order: no hash table, the same result on every device
and in every run. Kernel offsets are taken in small groups, and rows that have neighbours at the
same offsets of a group make a tile: its (R, G) table has no gaps, and one matrix product serves
all its rows. A row's result is the sum of its products, one per group. Few rows are one tile with
gaps instead: multiplying by zeros costs less than many small steps.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

Triple = tuple[int, int, int]

# Three offsets along the last axis: one product for most rows, and few tiles (2³ − 1 a group).
GROUP_SIZE = 3
# Rows that are worked on together: their products, a few per row, are held in memory.
BLOCK_ROWS = 65536
# A block of fewer rows is one tile with gaps.
SMALL_ROWS = 2048


def submanifold_rulebook(
    coords: Tensor, spatial_shape: Triple, kernel_size: Triple, dilation: Triple
) -> 'Rulebook':
    """Rulebook of a convolution whose output voxels are its input voxels.

    Args:
        coords: (N, 4) integers, each row once.
        spatial_shape: extents of the grid.
        kernel_size: odd numbers.
        dilation: distance between kernel offsets.

    Raises:
        ValueError: an even kernel, a coordinate outside the grid, or a voxel given twice.
    """
    if any(k % 2 == 0 for k in kernel_size):
        raise ValueError(f'submanifold convolution: expected an odd kernel, got {kernel_size}')
    num = len(coords)

    # Extents grow by the kernel's reach, so that a step over the border meets an empty cell.
    reach = [k // 2 * d for k, d in zip(kernel_size, dilation)]
    extent = [s + r for s, r in zip(spatial_shape, reach)]
    keys, order = _sorted_keys(coords, spatial_shape, extent)
    ends = torch.cat([keys, keys.new_full((1,), torch.iinfo(keys.dtype).max)])

    num_offsets = kernel_size[0] * kernel_size[1] * kernel_size[2]
    table = torch.full((num_offsets, num), num, dtype=torch.int32, device=coords.device)
    table[num_offsets // 2] = torch.arange(num, dtype=torch.int32, device=coords.device)
    steps = [[d * (i - k // 2) for i in range(k)] for k, d in zip(kernel_size, dilation)]
    position, is_found = keys, keys.new_zeros(num, dtype=torch.bool)

    # If j is i's neighbour at an offset, i is j's at the opposite one: half of them are searched.
    for k, (dx, dy, dz) in enumerate(itertools.product(*steps)):
        if k == num_offsets // 2:
            break
        wanted = keys + ((dx * extent[1] + dy) * extent[2] + dz)
        if dz == steps[2][0] or dilation[2] > 1:
            position = torch.searchsorted(keys, wanted)
        else:  # one further than the last: the same key still, or the one behind it
            position = position + is_found
        is_found = ends.index_select(0, position) == wanted

        i = is_found.nonzero().squeeze(1)
        j = position.index_select(0, i)
        if order is not None:
            i, j = order[i], order[j]
        table[k, i] = j.int()
        table[num_offsets - 1 - k, j] = i.int()
    return Rulebook(coords, spatial_shape, coords, spatial_shape, table, symmetric=True)


def strided_rulebook(
    coords: Tensor,
    spatial_shape: Triple,
    kernel_size: Triple,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
) -> 'Rulebook':
    """Rulebook of a convolution whose output voxels are all that see an input voxel.

    The output grid is that of a dense convolution, ``(S + 2p − d(k − 1) − 1) // s + 1``; input
    voxels that no output position covers are dropped, as there.

    Args:
        coords: (N, 4) integers, each row once.
        spatial_shape: extents of the input grid.
        kernel_size, stride, padding, dilation: as of ``torch.nn.Conv3d``.

    Raises:
        ValueError: a coordinate outside the grid, or a voxel given twice.
    """
    _sorted_keys(coords, spatial_shape, spatial_shape)
    width, depth, height = (
        max(0, (s + 2 * p - d * (k - 1) - 1) // t + 1)
        for s, k, t, p, d in zip(spatial_shape, kernel_size, stride, padding, dilation)
    )
    out_shape = (width, depth, height)

    # per axis and kernel index: which output coordinate each input voxel reaches
    columns = coords.long().unbind(1)
    targets = [
        _axis_targets(columns[axis + 1], *setting)
        for axis, setting in enumerate(zip(kernel_size, stride, padding, dilation, out_shape))
    ]

    # per kernel offset: the pairs that reach an output on all three axes
    pair_inputs, pair_keys = [], []
    for (x, has_x), (y, has_y), (z, has_z) in itertools.product(*targets):
        i = (has_x & has_y & has_z).nonzero().squeeze(1)
        pair_inputs.append(i)
        key = (columns[0][i] * out_shape[0] + x[i]) * out_shape[1] + y[i]
        pair_keys.append(key * out_shape[2] + z[i])
    out_keys, pair_outputs = torch.unique(torch.cat(pair_keys), return_inverse=True)  # (M,)

    table = torch.full(
        (len(pair_keys), len(out_keys)), len(coords), dtype=torch.int32, device=coords.device
    )
    outputs = pair_outputs.split([len(i) for i in pair_inputs])
    for k, (i, o) in enumerate(zip(pair_inputs, outputs)):
        table[k, o] = i.int()

    out_coords = _coords_of_keys(out_keys, out_shape).to(coords.dtype)
    return Rulebook(coords, spatial_shape, out_coords, out_shape, table, symmetric=False)


@dataclass(frozen=True, eq=False)
class Tile:
    """Rows that have neighbours at the same offsets.

    Attributes:
        rows: (R,) int32, the rows computed.
        offsets: G kernel offsets, ascending.
        neighbours: (R·G,) int32, for each row and offset the row gathered.
        products: where the block's products hold those of this tile, R of them.
        has_gaps: neighbours may be one past the last row, which stands for zeros.
    """

    rows: Tensor
    offsets: tuple[int, ...]
    neighbours: Tensor
    products: slice
    has_gaps: bool = False


@dataclass(frozen=True, eq=False)
class Block:
    """Successive rows, and the tiles that compute their P products.

    Attributes:
        rows: the rows.
        tiles: in the order in which their products are laid down.
        products: (P,) int32, for one row after the other the positions of its products.
        product_starts: (num rows + 1,) int32, where each row's part of ``products`` starts.
    """

    rows: slice
    tiles: list[Tile]
    products: Tensor
    product_starts: Tensor


@dataclass(frozen=True, eq=False)
class Rulebook:
    """Pairs of input and output voxels of one convolution, for all layers that share it.

    Attributes:
        in_coords, out_coords: (N, 4) and (M, 4) integers.
        in_shape, out_shape: extents of the grids.
        table: (K, M) int32, the input row that an output row sees at each offset; N if none.
        symmetric: outputs are inputs, and seeing is mutual at opposite offsets.
    """

    in_coords: Tensor
    in_shape: Triple
    out_coords: Tensor
    out_shape: Triple
    table: Tensor
    symmetric: bool

    @cached_property
    def num_pairs(self) -> int:
        """Number of (input, output, offset) triples."""
        return int((self.table < len(self.in_coords)).sum())

    @cached_property
    def gather_inputs(self) -> list[Block]:
        """For every output row, the input rows it sees."""
        return _blocks(self.table, len(self.in_coords))

    @cached_property
    def gather_outputs(self) -> list[Block]:
        """For every input row, the output rows that see it, offsets being the same numbers."""
        if self.symmetric:
            return [_opposite(block, len(self.table)) for block in self.gather_inputs]
        num_in, num_out = len(self.in_coords), len(self.out_coords)
        transposed = torch.full(
            (len(self.table), num_in), num_out, dtype=torch.int32, device=self.table.device
        )
        k, o = (self.table < num_in).nonzero().unbind(1)
        transposed[k, self.table[k, o].long()] = o.int()
        return _blocks(transposed, num_out)


def _opposite(block: Block, num_offsets: int) -> Block:
    """The same pairs seen from the other side, offsets ascending again."""
    return replace(
        block,
        tiles=[
            replace(
                tile,
                offsets=tuple(num_offsets - 1 - k for k in reversed(tile.offsets)),
                neighbours=tile.neighbours.view(-1, len(tile.offsets)).flip(1).flatten(),
            )
            for tile in block.tiles
        ],
    )


def _blocks(table: Tensor, missing: int) -> list[Block]:
    """Cut a (K, rows) table of neighbours into blocks of rows."""
    num_rows = table.shape[1]
    return [
        _block(table, missing, slice(first, min(first + BLOCK_ROWS, num_rows)))
        for first in range(0, num_rows, BLOCK_ROWS)
    ]


def _block(table: Tensor, missing: int, block_rows: slice) -> Block:
    """Tiles of some rows of a (K, rows) table, and where each row's products will be."""
    table = table[:, block_rows]
    num_rows, num_products = table.shape[1], 0
    if num_rows < SMALL_ROWS:
        return _small_block(table, block_rows)

    # for every group of offsets, one tile per set of offsets that some rows have in common
    tiles, positions = [], []
    for first in range(0, len(table), GROUP_SIZE):
        group = table[first : first + GROUP_SIZE]
        position = table.new_full((num_rows,), -1)
        for offsets, rows in _rows_by_offsets(group, missing):
            last = num_products + len(rows)
            position[rows] = torch.arange(
                num_products, last, dtype=table.dtype, device=table.device
            )
            neighbours = [group[g].index_select(0, rows) for g in offsets]
            tiles.append(
                Tile(
                    rows=(rows + block_rows.start).int(),
                    offsets=tuple(first + g for g in offsets),
                    neighbours=torch.stack(neighbours, dim=1).flatten(),
                    products=slice(num_products, last),
                )
            )
            num_products = last
        positions.append(position)

    # a row's result is the sum of its products: where they lie, one row after the other
    positions = torch.stack(positions, dim=1)  # (rows, groups)
    taken = positions >= 0
    starts = taken.new_zeros(num_rows + 1, dtype=table.dtype)
    torch.cumsum(taken.sum(1), dim=0, dtype=table.dtype, out=starts[1:])
    return Block(block_rows, tiles, positions[taken], starts)


def _small_block(table: Tensor, block_rows: slice) -> Block:
    """One tile of all rows and all offsets, with gaps; every row has one product."""
    first, num_rows = block_rows.start, table.shape[1]
    rows = torch.arange(first, first + num_rows, dtype=torch.int32, device=table.device)
    tile = Tile(
        rows=rows,
        offsets=tuple(range(len(table))),
        neighbours=table.T.flatten(),
        products=slice(0, num_rows),
        has_gaps=True,
    )
    starts = torch.arange(num_rows + 1, dtype=torch.int32, device=table.device)
    return Block(block_rows, [tile], starts[:-1], starts)


def _rows_by_offsets(group: Tensor, missing: int) -> Iterator[tuple[list[int], Tensor]]:
    """For each non-empty set of offsets of a (G, rows) table, the rows that have just these."""
    pattern = torch.zeros(group.shape[1], dtype=torch.uint8, device=group.device)
    for g, row in enumerate(group):
        pattern |= (row != missing).to(torch.uint8) << g
    for value in range(1, 1 << len(group)):
        rows = (pattern == value).nonzero().squeeze(1)
        if len(rows):
            yield [g for g in range(len(group)) if value >> g & 1], rows


def _sorted_keys(
    coords: Tensor, spatial_shape: Sequence[int], extent: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    """One ascending integer per voxel, and the order of voxels that makes it so (None: as is)."""
    xyz = coords[:, 1:]
    if len(coords) and (
        int(coords.min()) < 0
        or (xyz.amax(0) >= torch.tensor(spatial_shape, device=coords.device)).any()
    ):
        low, high = coords.amin(0).tolist(), coords.amax(0).tolist()
        raise ValueError(
            f'coords: expected [batch, x, y, z] ≥ 0 within the grid {tuple(spatial_shape)}, '
            f'got {low} … {high}'
        )

    batch, x, y, z = coords.long().unbind(1)
    keys = ((batch * extent[0] + x) * extent[1] + y) * extent[2] + z
    order = None
    if not (keys[1:] >= keys[:-1]).all():
        keys, order = torch.sort(keys)

    if (keys[1:] == keys[:-1]).any():
        raise ValueError('coords: expected each voxel once, got the same voxel twice')
    return keys, order


def _axis_targets(
    coordinate: Tensor, kernel: int, stride: int, padding: int, dilation: int, extent: int
) -> list[tuple[Tensor, Tensor]]:
    """Per kernel index along one axis: the output coordinate, and whether there is one."""
    targets = []
    for i in range(kernel):
        shifted = coordinate + (padding - i * dilation)
        target = torch.div(shifted, stride, rounding_mode='floor')
        targets.append((target, (target * stride == shifted) & (target >= 0) & (target < extent)))
    return targets


def _coords_of_keys(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """Inverse of the integer keys of an output grid, (M, 4)."""
    rest, z = keys // max(shape[2], 1), keys % max(shape[2], 1)
    rest, y = rest // max(shape[1], 1), rest % max(shape[1], 1)
    return torch.stack([rest // max(shape[0], 1), rest % max(shape[0], 1), y, z], dim=1)
