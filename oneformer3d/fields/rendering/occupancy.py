"""Which cells of the unit box may hold matter, so that a field need not be queried elsewhere.

Enters: the RGB-D points of a scene, or its cameras and depth maps. Leaves: a grid (G, G, G) of
bool, read at unit positions (N, 3). Letters: G cells along an axis, N points, V views.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.lifting import Camera
from oneformer3d.lifting.shapes import expect_shape
from oneformer3d.lifting.visibility import in_frustum, nearest_pixel

from ..networks.scene_box import SceneBox
from .rays import unit_positions
from .samplers import Proposals, Sampler, inverse_cdf_edges
from .spacing import stratified_edges
from .volume import midpoints

# Cells that are projected at a time.
_CHUNK = 1 << 17


class OccupancyGrid(nn.Module):
    """Cells over [−1, 1]³, those outside never occupied.

    Args:
        occupied: (G, G, G) bool by x, y, z.

    Example:
        >>> occupied = torch.zeros(2, 2, 2, dtype=torch.bool)
        >>> occupied[1, 0, 0] = True
        >>> grid = OccupancyGrid(occupied)
        >>> grid.share, grid(torch.tensor([[0.5, -0.5, -0.5], [-0.5, -0.5, -0.5], [2.0, 0, 0]]))
        (0.125, tensor([ True, False, False]))
    """

    occupied: Tensor

    def __init__(self, occupied: Tensor) -> None:
        super().__init__()
        expect_shape('occupied', occupied, 'G G G')
        if occupied.dtype != torch.bool:
            raise ValueError(f'occupied: expected bool, got {occupied.dtype}')
        self.register_buffer('occupied', occupied)

    @classmethod
    def from_points(
        cls, points: Tensor, box: SceneBox, resolution: int = 128, margin: float = 0.1
    ) -> 'OccupancyGrid':
        """Cells near points; everything else counts as empty, observed or not.

        Args:
            points: (N, 3) world; those outside the box or not finite are left out.
            box: similarity into the unit box.
            resolution: G.
            margin: metres around every point that are occupied too; at least a cell.
        """
        unit = box.to(points.device).to_unit(points)
        unit = unit[torch.isfinite(unit).all(-1)]  # (N', 3)
        index, inside = _cells(unit, resolution)

        occupied = torch.zeros(resolution**3, dtype=torch.bool, device=points.device)
        occupied[index[inside]] = True
        grid = occupied.view(resolution, resolution, resolution)

        # a cell is 2 / G unit lengths wide
        reach = max(1, round(margin * float(box.scale) * resolution / 2))
        return cls(_dilated(grid, reach))

    @classmethod
    @torch.no_grad()
    def from_depth(
        cls,
        camera: Camera,
        depth: Tensor,
        box: SceneBox,
        resolution: int = 96,
        margin: float = 0.1,
    ) -> 'OccupancyGrid':
        """All cells but those that some view looks through: unobserved space stays occupied.

        Cells beside a measured point stay too, so thin things between pixels are not cleared.

        Args:
            camera: V views.
            depth: (V, H, W) z-depth in metres, 0 = missing (nothing is cleared there).
            box: similarity into the unit box.
            resolution: G.
            margin: a cell is cleared where a view measured at least this much behind it, beside
                half the cell's diagonal; metres.
        """
        box = box.to(depth.device)
        steps = (torch.arange(resolution, device=depth.device) + 0.5) * (2 / resolution) - 1
        unit = torch.stack(torch.meshgrid(steps, steps, steps, indexing='ij'), -1).view(-1, 3)
        centres = box.to_world(unit)  # (G³, 3)
        # half a cell's diagonal in metres, √3 / (G · scale), and the margin
        clearance = margin + 3**0.5 / (resolution * float(box.scale))

        occupied = torch.ones(len(centres), dtype=torch.bool, device=depth.device)
        measured = torch.zeros_like(occupied)
        for view in range(len(depth)):
            points = camera[view].unproject(depth[view])[depth[view] > 0]
            index, inside = _cells(box.to_unit(points), resolution)
            measured[index[inside]] = True

            for begin in range(0, len(centres), _CHUNK):
                chunk = slice(begin, begin + _CHUNK)
                occupied[chunk] &= ~_looked_through(
                    camera[view], depth[view], centres[chunk], clearance
                )

        shape = (resolution, resolution, resolution)
        return cls(occupied.view(shape) | _dilated(measured.view(shape), 1))

    @property
    def share(self) -> float:
        """Share of the unit box that is occupied."""
        return float(self.occupied.float().mean())

    def forward(self, unit_positions: Tensor) -> Tensor:
        """Whether positions (…, 3) of the unit box may hold matter, (…) bool."""
        index, inside = _cells(unit_positions, len(self.occupied))
        return self.occupied.view(-1)[index] & inside


class OccupancySampler(Sampler):
    """Intervals where cells are occupied, without querying the field.

    Args:
        occupancy: unit positions (…, 3) → which may hold matter.
        num_probes: even intervals whose middles are looked up.
        num_samples: S of the result.
        padding: weight of an empty interval, an occupied one having 1.
    """

    def __init__(
        self,
        occupancy: nn.Module,
        num_probes: int = 128,
        num_samples: int = 48,
        padding: float = 0.01,
    ) -> None:
        self.occupancy = occupancy
        self.num_probes, self.num_samples, self.padding = num_probes, num_samples, padding

    def __call__(self, field, rays, perturb=False, generator=None) -> tuple[Tensor, Proposals]:
        """Edges (R, S + 1) and no proposals."""
        probes = stratified_edges(rays, self.num_probes)
        positions = unit_positions(rays, midpoints(probes), field.scene_box)
        may_hold = self.occupancy(positions)  # (R, num_probes)
        edges = inverse_cdf_edges(
            probes, may_hold.to(probes), self.num_samples, perturb, generator, self.padding
        )
        return edges, []


def _cells(unit: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Flat cell (…) of unit positions (…, 3), clamped, and whether they are inside the box."""
    x, y, z = unit.abs().unbind(-1)
    inside = torch.maximum(torch.maximum(x, y), z) < 1  # a reduction over three is slow
    cell = ((unit.nan_to_num() + 1) * (resolution / 2)).clamp_(0, resolution - 1).int()
    x, y, z = cell.unbind(-1)
    return ((x * resolution + y) * resolution + z).long(), inside


def _dilated(grid: Tensor, reach: int) -> Tensor:
    """The grid with every occupied cell widened by ``reach`` cells along each axis."""
    values = grid[None, None].float()
    for axis in range(3):
        size, padding = [1, 1, 1], [0, 0, 0]
        size[axis], padding[axis] = 2 * reach + 1, reach
        values = F.max_pool3d(values, size, stride=1, padding=padding)
    return values[0, 0] > 0


def _looked_through(camera: Camera, depth: Tensor, points: Tensor, clearance: float) -> Tensor:
    """Whether a view measured something at least ``clearance`` behind each point (N, 3)."""
    uv, z = camera.project(points)
    u, v = uv.unbind(-1)
    measured = nearest_pixel(depth, u, v, camera.image_size)
    inside = in_frustum(u, v, z, camera.image_size, near=0.0)
    return inside & (measured > 0) & (z < measured - clearance)
