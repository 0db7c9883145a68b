"""How far a scene reaches: its box, the cells that may hold matter, and what its views observed.

A field knows nothing of positions that no view observed.

Enters: pixels with measured depth, cameras and small depth maps of the views. Leaves: ``SceneBox``,
``OccupancyGrid``, and ``Observations``: whether each point (N, 3) was in some view and not behind
the surface there.

Letters: V views, h × w a small depth map, N points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oneformer3d.lifting import DEFAULT_BYTE_BUDGET, Camera
from oneformer3d.lifting.chunks import num_rows, ranges
from oneformer3d.lifting.shapes import expect_shape, size_of
from oneformer3d.lifting.visibility import Visibility, in_frustum, nearest_pixel

from ..networks.field import Field
from ..networks.scene_box import SceneBox
from ..rendering.occupancy import OccupancyGrid
from ..rendering.rays import (
    clip_to_box,
    distance_to_z,
    image_rays,
    scene_normalisation,
    z_to_distance,
)
from ..rendering.render import render_rays
from ..rendering.samplers import HierarchicalSampler, Sampler
from .batches import STEPS_PER_TURN, RayPool
from .scene import FieldScene

_BOX_QUANTILE = 1e-3
_OUTSIDE = 0.2  # of the points on either side, where space beyond the box is contracted
_BEHIND = 0.25  # metres left around, for a surface to become opaque in
_BOX_PIXELS = 20_000  # that the scene's box is put around where there is no depth
_OCCUPANCY_BATCHES = 10

_OBSERVED = Visibility(abs_tol=0.10, rel_tol=0.03)  # small maps are coarse at edges
_BYTES_PER_TEST = 96  # of one point in one view; measured


def scene_box_of(pool: RayPool, far: float, contracted: bool = False) -> SceneBox:
    """The box around what a pool's views measure up to ``far`` metres, and around their cameras.

    Without depth it holds what the views could see up to ``far``. A thousandth of the measured
    points on either side of each axis is taken for noise. Of a field that is contracted, the box is
    its undistorted middle: a fifth of the points on either side, or what is seen beyond a quarter
    of ``far``, lies outside.
    """
    points = measured_points(pool, far)  # (N, 3)
    if not len(points):
        reach = far / 4 if contracted else far
        batch = pool.batch(0, _BOX_PIXELS, with_features=False)
        points = (batch.rays.origins + batch.rays.directions * reach).cpu()

    share = _OUTSIDE if contracted else _BOX_QUANTILE
    low, high = torch.quantile(points, torch.tensor([share, 1 - share]), dim=0)
    bounds = torch.stack((low - _BEHIND, high + _BEHIND))  # (2, 3)

    # the cameras belong inside, rays begin there
    centres = pool.scene.camera.world_from_cam[torch.tensor(pool.views)][:, :3, 3]  # (V, 3)
    bounds[0] = torch.minimum(bounds[0], centres.amin(0) - _BEHIND)
    bounds[1] = torch.maximum(bounds[1], centres.amax(0) + _BEHIND)
    return scene_normalisation(bounds=bounds, margin=0.0)


def measured_points(
    pool: RayPool, far: float, num_batches: int = 1, per_batch: int = 100_000
) -> Tensor:
    """World points (N, 3) at random pixels with depth up to ``far``; none without depth."""
    if not pool.scene.has_depth:
        return torch.zeros(0, 3)

    chunks = []
    for step in range(num_batches):
        batch = pool.batch(step * STEPS_PER_TURN, per_batch, with_features=False)
        depth = batch.targets['depth']
        inside = (depth > 0) & (depth <= far)
        distance = z_to_distance(depth, batch.rays)[:, None]
        chunks.append(batch.rays.positions(distance)[:, 0][inside].cpu())
    return torch.cat(chunks)


def occupancy_of(
    pool: RayPool, box: SceneBox, far: float, resolution: int, margin: float
) -> OccupancyGrid | None:
    """Cells near measured points, and near the scan's own where there are some.

    Args:
        pool: whose views measured.
        box: that the cells divide.
        far: greatest z-depth that counts, metres.
        resolution: cells along the longest side; 0 for no grid.
        margin: metres around a point.

    Returns:
        None without depth or with a resolution of 0.
    """
    # every view is in memory once
    points = measured_points(pool, far, _OCCUPANCY_BATCHES * pool.num_turns)
    if not resolution or not len(points):
        return None

    if pool.scene.points is not None:
        points = torch.cat((points, pool.scene.points.xyz))
    return OccupancyGrid.from_points(points, box, resolution, margin)


@dataclass(frozen=True, eq=False)
class Observations:
    """What V views observed.

    Attributes:
        camera: V views of the small maps' size.
        depth: (V, h, w) float32 z-depth in metres, 0 where it is not known.
    """

    camera: Camera
    depth: Tensor

    def __post_init__(self) -> None:
        (views,), (height, width) = self.camera.batch_shape, self.camera.image_size
        expect_shape('depth', self.depth, 'V h w', V=views, h=height, w=width)

    @torch.no_grad()
    def observed(self, points: Tensor, byte_budget: int = DEFAULT_BYTE_BUDGET) -> Tensor:
        """Whether some view observed each position, as empty space or as a surface.

        A point counts where it lies in a view's frustum and at most a tolerance of 10 cm and 3 %
        behind the view's depth; where depth is unknown the view observed nothing.

        Args:
            points: (N, 3) world coordinates; those that are not finite were not observed.
            byte_budget: of temporary values.

        Returns:
            (N,) bool.
        """
        camera = self.camera.to(points.device, points.dtype)
        depth = self.depth.to(points.device)
        finite = torch.isfinite(points).all(-1)
        points = torch.where(finite[:, None], points, 0.0)

        observed = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        rows = num_rows(len(depth) * _BYTES_PER_TEST, byte_budget, points.device)
        for begin, end in ranges(len(points), rows):
            uv, z = camera.project(points[begin:end])  # (V, n, 2), (V, n)
            u, v = uv.unbind(-1)
            measured = nearest_pixel(depth, u, v, camera.image_size)
            reach = measured + _OBSERVED.tolerance(measured)
            inside = in_frustum(u, v, z, camera.image_size, _OBSERVED.near)
            observed[begin:end] = (inside & (measured > 0) & (z <= reach)).any(0)  # (n,)
        return observed & finite

    def state(self) -> dict[str, Tensor]:
        """Tensors for a file."""
        return {
            'intrinsics': self.camera.intrinsics,
            'world_from_cam': self.camera.world_from_cam,
            'depth': self.depth.half(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> 'Observations':
        """Observations from ``state``."""
        depth = state['depth'].float()
        camera = Camera(state['intrinsics'], state['world_from_cam'], size_of(depth))
        return cls(camera, depth)


def small_depth(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Depth (H, W) → (h, w): the greatest depth of each cell, so that a cell on an edge does not
    call unobserved what is visible beside the edge; 0 only where all of the cell is missing."""
    return torch.nn.functional.adaptive_max_pool2d(depth[None].float(), size)[0]


def observe(
    scene: FieldScene,
    views: Sequence[int],
    field: Field | None = None,
    far: float = 10.0,
    sampler: Sampler | None = None,
    max_side: int = 80,
) -> Observations:
    """What some views observed: the sensor's depth, and a field's where the sensor has none.

    Args:
        scene: of the views.
        views: indices.
        field: renders what was not measured; None leaves it unknown.
        far: greatest z-depth that is looked for, metres.
        sampler: along the rays; None samples evenly and where the field finds matter.
        max_side: of the small depth maps, which have one size even where images differ.
    """
    scale = min(1.0, max_side / max(scene.camera.image_size))
    height, width = (max(1, round(side * scale)) for side in scene.camera.image_size)
    size = (height, width)
    maps, cameras = [], []
    for view in views:
        content = scene.read(view)
        camera = scene.view_camera(view, content).resize(size)
        depth = torch.zeros(size)
        if content.depth is not None:
            depth = small_depth(content.depth, size)
        if field is not None:
            depth = _fill(depth, camera, field, far, sampler or HierarchicalSampler(32, 32))
        maps.append(depth)
        cameras.append(camera)

    camera = Camera(
        torch.stack([camera.intrinsics for camera in cameras]),
        torch.stack([camera.world_from_cam for camera in cameras]),
        size,
    )
    return Observations(camera, torch.stack(maps))


@torch.no_grad()
def _fill(depth: Tensor, camera: Camera, field: Field, far: float, sampler: Sampler) -> Tensor:
    """The depth map with rendered depth where it is missing; rays that meet nothing see ``far``."""
    missing = (depth == 0).flatten()
    if not missing.any():
        return depth

    rays = image_rays(camera, _OBSERVED.near, far)[missing].to(field.unit_from_world.device)
    if not field.contracted:
        rays = clip_to_box(rays, field.scene_box)
    rendered = render_rays(field, rays, sampler, (), perturb=False)
    end = distance_to_z(rays.far, rays)
    found = torch.where(rendered.accumulation > 0.5, rendered.depth, end)
    return depth.flatten().masked_scatter(missing, found.cpu()).view_as(depth)
