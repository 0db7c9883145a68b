"""Points to voxels, and point features to superpoints.

Enters: per sample N×F point tensors. Leaves: a ``VoxelGrid`` (mean features of M voxels and the
row of every point), respectively mean features of superpoints. Letters as in ``structures``.

Voxels are found by sorting one integer key per point, so the rows have the same order on every
device; features are summed in float64, so their means agree between devices after rounding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from oneformer3d.lifting.shapes import expect_shape
from oneformer3d.structures import VoxelGrid

# Strided convolutions group voxels by coordinate // stride. Grids that keep the world's origin
# are only ever shifted by a multiple of every stride in use, so the grouping stays.
ORIGIN_STEP = 128
MAX_KEY = 2**62


def voxelize(
    points: Sequence[Tensor],
    features: Sequence[Tensor],
    voxel_size: float,
    elastic_coords: Sequence[Tensor | None] | None = None,
    subtract_min: bool = True,
    min_spatial_shape: int = 1,
    grid_starts: Tensor | None = None,
) -> VoxelGrid:
    """Average the features of all points that share a voxel.

    Args:
        points: per sample (N, ≥3) float, xyz in metres first.
        features: per sample (N, F) float, what is averaged.
        voxel_size: edge length in metres.
        elastic_coords: per sample (N, 3) float or None, coordinates in voxels that replace
            ``xyz / voxel_size``.
        subtract_min: start each sample's grid at its smallest coordinate; otherwise voxel borders
            stay at multiples of ``voxel_size`` in the world.
        min_spatial_shape: lower bound of the grid extent along each axis.
        grid_starts: (B, 3) float, how many voxels each sample's grid begins before where it would
            otherwise, fractions too; None and zeros change nothing.

    Raises:
        ValueError: an empty sample, unequal lengths, coordinates that are not finite, or a grid
            too large to index.
    """
    if len(points) == 0:
        raise ValueError('voxelize: expected at least one sample, got none')
    if voxel_size <= 0:
        raise ValueError(f'voxelize: expected a positive voxel_size, got {voxel_size}')

    if grid_starts is not None:
        expect_shape('grid_starts', grid_starts, 'B 3', B=len(points))

    coords = []
    for index, sample in enumerate(points):
        elastic = elastic_coords[index] if elastic_coords is not None else None
        start = grid_starts[index] if grid_starts is not None else None
        _check_sample(index, sample, features[index], elastic)
        coords.append(_grid_coords(sample, elastic, voxel_size, subtract_min, start))

    # one ascending key per voxel; points of the same key share it
    num_points = tuple(len(sample) for sample in points)
    batch_index = torch.repeat_interleave(
        torch.arange(len(points), device=points[0].device),
        torch.tensor(num_points, device=points[0].device),
    )
    coords = torch.cat(coords)  # (sum N, 3)
    extent = coords.amax(0) + 1
    voxel_keys, voxel_of_point = _unique_keys(batch_index, coords, extent)  # (M,), (sum N,)
    x, y, z = (max(n, min_spatial_shape) for n in extent.tolist())

    return VoxelGrid(
        features=scatter_mean(torch.cat(list(features)), voxel_of_point, len(voxel_keys)),
        coords=_coords_from_keys(voxel_keys, extent),
        voxel_of_point=voxel_of_point,
        spatial_shape=(x, y, z),
        num_points=num_points,
    )


def pool_superpoints(
    features: Tensor, superpoints: Sequence[Tensor], num_superpoints: Sequence[int] | None = None
) -> list[Tensor]:
    """Mean feature of every superpoint.

    Args:
        features: (sum N, D) point features.
        superpoints: per sample (N,) int64 dense ids 0…S−1.
        num_superpoints: S of each sample, read from the ids by default.

    Returns:
        Per sample (S, D), the dtype of ``features``.

    Raises:
        ValueError: ids and features of different length, negative ids, or ids with gaps.
    """
    if sum(map(len, superpoints)) != len(features):
        raise ValueError(
            f'expected superpoint ids of {len(features)} points, got {sum(map(len, superpoints))}'
        )
    if num_superpoints is None:
        num_superpoints = [int(ids.max()) + 1 for ids in superpoints]

    # ids of one sample after those of the others
    offset_ids, offset = [], 0
    for ids, count in zip(superpoints, num_superpoints):
        offset_ids.append(ids.long() + offset)
        offset += count
    offset_ids = torch.cat(offset_ids)  # (sum N,)

    sizes = torch.bincount(offset_ids, minlength=offset)
    if len(sizes) != offset or not bool((sizes > 0).all()):
        raise ValueError(
            f'superpoint ids must be dense: {int((sizes == 0).sum())} of {offset} have no point'
        )
    return list(scatter_mean(features, offset_ids, offset, sizes).split(list(num_superpoints)))


def scatter_mean(
    values: Tensor, index: Tensor, num_rows: int, counts: Tensor | None = None
) -> Tensor:
    """Mean of the rows of ``values`` (N, D) per ``index`` (N,); rows without a member are zero.

    Values without a gradient are summed in float64, others in float32 at least.
    """
    precise = torch.float32 if values.requires_grad else torch.float64
    if counts is None:
        counts = torch.bincount(index, minlength=num_rows)
    sums = values.new_zeros((num_rows, values.shape[1]), dtype=precise)
    sums = sums.index_add(0, index, values.to(precise))  # (num_rows, D)
    return (sums / counts.clamp(min=1).to(precise)[:, None]).to(values.dtype)


def _check_sample(index: int, points: Tensor, features: Tensor, elastic: Tensor | None) -> None:
    if points.ndim != 2 or points.shape[1] < 3 or len(points) == 0:
        raise ValueError(f'sample {index}: expected points (N ≥ 1, ≥ 3), got {tuple(points.shape)}')
    if len(features) != len(points):
        raise ValueError(f'sample {index}: {len(points)} points but {len(features)} features')
    if elastic is not None:
        expect_shape(f'sample {index}: elastic_coords', elastic, 'N 3', N=len(points))


def _grid_coords(
    points: Tensor,
    elastic: Tensor | None,
    voxel_size: float,
    subtract_min: bool,
    start: Tensor | None,
) -> Tensor:
    """(N, 3) int64 voxel coordinates of one sample, none negative."""
    coords = points[:, :3] if elastic is None else elastic
    if not bool(torch.isfinite(coords).all()):
        raise ValueError('coordinates are not finite: a point cloud holds NaN or infinity')
    if subtract_min:
        coords = coords - coords.amin(0)
    if elastic is None:
        # A tensor, not a number: dividing by a number multiplies by its reciprocal on CUDA.
        coords = coords / coords.new_tensor(voxel_size)
    if start is not None:
        coords = coords + start.to(coords)
    coords = coords.floor().long()
    if subtract_min:
        return coords
    return coords - coords.amin(0).div(ORIGIN_STEP, rounding_mode='floor') * ORIGIN_STEP


def _unique_keys(batch: Tensor, coords: Tensor, extent: Tensor) -> tuple[Tensor, Tensor]:
    size_x, size_y, size_z = (int(n) for n in extent.tolist())
    if (int(batch[-1]) + 1) * size_x * size_y * size_z > MAX_KEY:
        raise ValueError(f'a grid of {size_x}×{size_y}×{size_z} voxels is too large: check units')
    # key = ((b X + x) Y + y) Z + z
    keys = ((batch * size_x + coords[:, 0]) * size_y + coords[:, 1]) * size_z + coords[:, 2]
    return torch.unique(keys, return_inverse=True)


def _coords_from_keys(keys: Tensor, extent: Tensor) -> Tensor:
    columns = []
    for size in extent.flip(0).tolist():
        columns.append(keys % size)
        keys = keys.div(size, rounding_mode='floor')
    return torch.stack([keys, *columns[::-1]], dim=1).int()
