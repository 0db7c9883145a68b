"""Surface normals of a bare cloud: one plane per voxel and its neighbours.

Enters: points (N, 3) in metres. Leaves: unit normals (N, 3) without a side, zeros where no plane is
known. N points, M voxels. Time and memory grow with N alone, as no point looks for neighbours.
"""

import torch
from torch import Tensor

# A neighbourhood whose second spread is this small beside its first lies on a line.
_LINE = 1e-6
_LARGEST_KEY = 2**62


@torch.no_grad()
def estimate_normals(points: Tensor, voxel_size: float = 0.1) -> Tensor:
    """Normal of the plane fitted to the points of 3×3×3 voxels around each point's own.

    The direction of least spread: the last axis of a principal component analysis. All points of
    a voxel share it.

    Args:
        points: (N, 3) finite, metres.
        voxel_size: metres; a plane is fitted over three of them.

    Returns:
        (N, 3) unit vectors of the points' type, either side; zeros for fewer than three points
        or points on a line.

    Raises:
        ValueError: a voxel size that is not positive, or too small for the cloud's extent.

    Example:
        >>> v, u = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing='ij')
        >>> wall = torch.stack((u, torch.zeros(4, 4), v), dim=-1).reshape(-1, 3)
        >>> estimate_normals(wall, voxel_size=1.0)[0].abs()
        tensor([0., 1., 0.])
    """
    if voxel_size <= 0:
        raise ValueError(f'voxel_size must be positive, got {voxel_size}')
    if len(points) == 0:
        return points.new_zeros(0, 3)

    # one integer key per voxel, and each point's voxel
    local = points.double()
    local = local - local.mean(0)
    cell = (local / voxel_size).floor()
    cell = (cell - cell.amin(0)).long() + 1
    size = [int(x) + 2 for x in cell.amax(0)]
    if size[0] * size[1] * size[2] > _LARGEST_KEY:
        raise ValueError(f'voxel_size {voxel_size} m is too small for a cloud of {size} voxels')
    key = (cell[:, 0] * size[1] + cell[:, 1]) * size[2] + cell[:, 2]
    keys, voxel = key.unique(return_inverse=True)  # (M,), (N,)

    # count, Σp and Σppᵀ of each voxel, then of its 27 neighbours
    x, y, z = local.unbind(1)
    moments = torch.stack((torch.ones_like(x), x, y, z, x * x, x * y, x * z, y * y, y * z, z * z))
    of_voxel = moments.new_zeros(10, len(keys)).index_add(1, voxel, moments)  # (10, M)
    around = torch.zeros_like(of_voxel)
    for step in _steps(size):
        wanted = keys + step
        found = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        around += of_voxel[:, found] * (keys[found] == wanted)

    # Σ = E[ppᵀ] − E[p]E[p]ᵀ, symmetric
    count, mean, square = around[0], around[1:4] / around[0], around[4:] / around[0]
    rows, columns = torch.triu_indices(3, 3)
    upper = square - mean[rows] * mean[columns]
    covariance = upper.new_zeros(len(keys), 3, 3)
    covariance[:, rows, columns] = upper.T
    covariance[:, columns, rows] = upper.T

    spread, axes = torch.linalg.eigh(covariance)
    known = (count >= 3) & (spread[:, 1] > _LINE * spread[:, 2]) & (spread[:, 2] > 0)
    return (axes[:, :, 0] * known[:, None])[voxel].to(points.dtype)


def _steps(size: list[int]) -> list[int]:
    """Differences of the keys of a voxel's 27 neighbours, itself included."""
    steps = (-1, 0, 1)
    return [(dx * size[1] + dy) * size[2] + dz for dx in steps for dy in steps for dz in steps]
