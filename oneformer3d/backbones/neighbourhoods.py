"""Balls of points around the cells of a grid: what attention over a point cloud reads.

Enters: points (sum N, 3) of a batch in metres and N of each sample. Leaves: a ``Neighbourhood``.
M centres (the occupied cells of all samples), K neighbours of a centre, G = 8 cells around a point.

Samples never meet, and nothing depends on how samples are batched. Every step is a sort or a
search of integer keys: memory grows with the number of points, and equal points give equal
results. A ball with more than K points is thinned by a fixed shuffle of the points' numbers,
so that its neighbours are spread over all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oneformer3d.lifting.chunks import bag_ranges
from oneformer3d.lifting.shapes import expect_shape

from .voxelize import scatter_mean

DEFAULT_BYTE_BUDGET = 64 << 20
_BYTES_PER_CANDIDATE = 64
# Knuth's multiplicative hash: consecutive numbers end up far from each other.
_SHUFFLE = 2654435761
_SHUFFLE_BITS = 32
# Inverse square distances are bounded at 1 cm.
_LEAST_SQUARE_DISTANCE = 1e-4


@dataclass(frozen=True)
class Neighbourhood:
    """Who attends to whom.

    Attributes:
        centre_of_point: (sum N,) int64, the cell that a point lies in.
        centres: (M, 3) mean position of the points of each cell.
        neighbour: (M, K) int64 points in the ball, 0 where there are fewer.
        is_neighbour: (M, K) bool.
        offset: (M, K, 3) from centre to neighbour, in radii; 0 where there is none.
        nearby: (sum N, 8) int64 centres of the 2×2×2 cells nearest to a point, 0 for empty cells.
        nearby_weight: (sum N, 8) inverse square distances, sum 1; 0 for empty cells.
    """

    centre_of_point: Tensor
    centres: Tensor
    neighbour: Tensor
    is_neighbour: Tensor
    offset: Tensor
    nearby: Tensor
    nearby_weight: Tensor


@torch.no_grad()
def find_neighbourhood(
    xyz: Tensor,
    num_points: Sequence[int],
    radius: float = 0.3,
    max_neighbours: int = 32,
    cell_size: float = 0.3,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> Neighbourhood:
    """Centres, their balls, and the centres around every point.

    Args:
        xyz: (sum N, 3) metres, the samples one after another.
        num_points: N of each sample.
        radius: of the balls in metres, not included.
        max_neighbours: K.
        cell_size: edge of the cells that become centres, in metres.
        byte_budget: bytes for temporary values of the ball query.

    Raises:
        ValueError: settings that are not positive, cells so large that the ball of a centre may
            be empty, no points, or counts that do not add up.
    """
    if min(radius, cell_size) <= 0 or max_neighbours < 1:
        raise ValueError('radius, cell_size and max_neighbours must be positive')
    if cell_size * 3**0.5 / 2 >= radius:
        raise ValueError(f'cell_size {cell_size} is too large for balls of radius {radius}')
    expect_shape('xyz', xyz, 'N 3', N=sum(num_points))
    if len(xyz) == 0:
        raise ValueError('xyz: expected at least one point, got none')

    # grids count cells from each sample's own corner
    xyz = xyz.detach().float()
    sample = torch.repeat_interleave(
        torch.arange(len(num_points), device=xyz.device),
        torch.tensor(num_points, device=xyz.device),
    )
    origin = _sample_minimum(xyz, sample, len(num_points))
    local = xyz - origin[sample]

    grid = _Grid.of(local, sample, cell_size)
    cells, centre_of_point = torch.unique(grid.keys(local, sample), return_inverse=True)
    num_centres = len(cells)
    centres = scatter_mean(local, centre_of_point, num_centres)  # (M, 3)
    centre_sample = torch.div(cells, grid.cells_per_sample, rounding_mode='floor')

    neighbour, is_neighbour = ball_query(
        local, sample, centres, centre_sample, radius, max_neighbours, byte_budget
    )  # (M, K)
    offset = (local[neighbour] - centres[:, None]) / radius  # (M, K, 3)

    nearby, nearby_weight = _nearby_centres(local, sample, grid, cells, centres)  # (sum N, 8)

    return Neighbourhood(
        centre_of_point=centre_of_point,
        centres=centres + origin[centre_sample],
        neighbour=neighbour,
        is_neighbour=is_neighbour,
        offset=offset.masked_fill(~is_neighbour[..., None], 0.0),
        nearby=nearby,
        nearby_weight=nearby_weight,
    )


def shuffled_rank(index: Tensor) -> Tensor:
    """A fixed order of the points of a sample that looks like chance: (N,) int64 < 2^32."""
    return (index * _SHUFFLE) % (1 << _SHUFFLE_BITS)


def ball_query(
    xyz: Tensor,
    sample: Tensor,
    centres: Tensor,
    centre_sample: Tensor,
    radius: float,
    max_neighbours: int,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> tuple[Tensor, Tensor]:
    """Points of the same sample nearer than ``radius``, the first K of them in shuffled order.

    Args:
        xyz: (N, 3) not negative, the samples one after another.
        sample: (N,) int64, not decreasing.
        centres: (M, 3).
        centre_sample: (M,) int64.
        radius: metres, not included.
        max_neighbours: K.
        byte_budget: bytes for temporary values.

    Returns:
        neighbour (M, K) int64, 0 where there is none, and is_neighbour (M, K) bool.
    """
    # candidates are the points of the 27 cells around a centre: three ranges of sorted keys a row
    grid = _Grid.of(xyz, sample, radius)
    keys, order = torch.sort(grid.keys(xyz, sample), stable=True)
    around = grid.keys(centres, centre_sample)[:, None] + grid.steps((-1, 0, 1), xyz.device)
    begin = torch.searchsorted(keys, around)
    counts = torch.searchsorted(keys, around, right=True) - begin
    rank = shuffled_rank(_index_in_sample(sample))

    # centres in chunks, so that their candidates fit the budget
    chunks = []
    ends = counts.sum(1).cumsum(0).cpu()
    for first, last in bag_ranges(ends, byte_budget // _BYTES_PER_CANDIDATE):
        centre, candidate = _expand(begin[first:last], counts[first:last])
        candidate = order[candidate]

        # ‖x − c‖² < r²
        difference = xyz[candidate] - centres[first:last][centre]
        inside = (difference * difference).sum(1) < radius * radius
        chunks.append(
            _first_in_rank(centre[inside], candidate[inside], rank, last - first, max_neighbours)
        )

    neighbour, is_neighbour = (torch.cat(parts) for parts in zip(*chunks))
    return neighbour, is_neighbour


@dataclass(frozen=True)
class _Grid:
    """Cells with one integer key each; an empty border keeps neighbours of cells apart."""

    cell_size: float
    shape: tuple[int, int, int]

    @staticmethod
    def of(xyz: Tensor, sample: Tensor, cell_size: float) -> '_Grid':
        width, depth, height = (_cell_of(xyz, cell_size).amax(0) + 3).tolist()
        num_samples = int(sample[-1]) + 1
        if num_samples * width * depth * height > 2**62:
            raise ValueError(f'a grid of {(width, depth, height)} cells is too large: check units')
        return _Grid(cell_size, (width, depth, height))

    @property
    def cells_per_sample(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def keys(self, xyz: Tensor, sample: Tensor) -> Tensor:
        return self.key(_cell_of(xyz, self.cell_size), sample)

    def key(self, cell: Tensor, sample: Tensor) -> Tensor:
        x, y, z = (cell + 1).unbind(-1)
        return ((sample * self.shape[0] + x) * self.shape[1] + y) * self.shape[2] + z

    def steps(self, values: Sequence[int], device: torch.device) -> Tensor:
        """Differences of keys between a cell and those around it."""
        around = [
            (x * self.shape[1] + y) * self.shape[2] + z
            for x in values
            for y in values
            for z in values
        ]
        return torch.tensor(around, device=device)


def _cell_of(xyz: Tensor, cell_size: float, shift: float = 0.0) -> Tensor:
    # A tensor, not a number: dividing by a number multiplies by its reciprocal on CUDA.
    return (xyz / xyz.new_tensor(cell_size) + shift).floor().long()


def _nearby_centres(
    xyz: Tensor, sample: Tensor, grid: _Grid, cells: Tensor, centres: Tensor
) -> tuple[Tensor, Tensor]:
    """The occupied ones of the 2×2×2 cells nearest to each point, and their weights."""
    corner = _cell_of(xyz, grid.cell_size, shift=-0.5)
    keys = grid.key(corner, sample)[:, None] + grid.steps((0, 1), xyz.device)
    index = torch.searchsorted(cells, keys).clamp(max=len(cells) - 1)
    occupied = cells[index] == keys
    index = index.masked_fill(~occupied, 0)  # (sum N, 8)

    # w = 1 / ‖c − x‖², sum 1
    square = ((centres[index] - xyz[:, None]) ** 2).sum(-1).clamp(min=_LEAST_SQUARE_DISTANCE)
    weight = square.reciprocal().masked_fill(~occupied, 0.0)
    return index, weight / weight.sum(1, keepdim=True)


def _first_in_rank(
    centre: Tensor, point: Tensor, rank: Tensor, num_centres: int, max_neighbours: int
) -> tuple[Tensor, Tensor]:
    """Of the pairs of each centre the K with the least rank, as a table."""
    order = torch.argsort((centre << _SHUFFLE_BITS) + rank[point])
    centre, point = centre[order], point[order]
    counts = torch.bincount(centre, minlength=num_centres)
    column = torch.arange(len(centre), device=centre.device) - (counts.cumsum(0) - counts)[centre]
    keep = column < max_neighbours

    table = torch.zeros(num_centres, max_neighbours, dtype=torch.int64, device=centre.device)
    filled = torch.zeros_like(table, dtype=torch.bool)
    table[centre[keep], column[keep]] = point[keep]
    filled[centre[keep], column[keep]] = True
    return table, filled


def _expand(begin: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Ranges (m, R) as one list: the row and the position of every element."""
    row = torch.arange(len(begin), device=begin.device).repeat_interleave(counts.sum(1))
    begin, counts = begin.flatten(), counts.flatten()
    start = begin - (counts.cumsum(0) - counts)
    position = torch.arange(int(counts.sum()), device=begin.device)
    return row, position + start.repeat_interleave(counts)


def _index_in_sample(sample: Tensor) -> Tensor:
    counts = torch.bincount(sample)
    return torch.arange(len(sample), device=sample.device) - (counts.cumsum(0) - counts)[sample]


def _sample_minimum(xyz: Tensor, sample: Tensor, num_samples: int) -> Tensor:
    index = sample[:, None].expand(-1, 3)
    return xyz.new_zeros(num_samples, 3).scatter_reduce(0, index, xyz, 'amin', include_self=False)
