"""Where a scene lies: the box around it, and the cells of that box that may hold matter.

Enters: rays with measured depth. Leaves: ``SceneBox``, ``OccupancyGrid``. Letters: N points.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..networks.scene_box import SceneBox
from ..rendering.occupancy import OccupancyGrid
from ..rendering.rays import scene_normalisation, z_to_distance
from ..scene.batches import STEPS_PER_TURN, RayPool
from ..scene.scene import FieldScene
from .fit_settings import FitSettings

_BOX_QUANTILE = 1e-3
_BEHIND = 0.25  # metres left around, for a surface to become opaque in
_BOX_PIXELS = 20_000  # that the scene's box is put around where there is no depth
_OCCUPANCY_BATCHES = 10


def scene_box_of(
    scene: FieldScene, views: Sequence[int], settings: FitSettings, pool: RayPool | None = None
) -> SceneBox:
    """The box around what the views measure and the places they see it from.

    Without depth it holds what the views could see up to ``far``. A thousandth of the measured
    points on either side of each axis is taken for noise.
    """
    poses = scene.camera.world_from_cam[torch.tensor(views)]
    pool = pool or RayPool(scene, views, settings.seed, settings.pool_bytes)
    points = measured_points(pool, settings)
    if not len(points):
        batch = pool.batch(0, _BOX_PIXELS, with_features=False)
        points = (batch.rays.origins + batch.rays.directions * settings.far).cpu()
    low, high = torch.quantile(points, torch.tensor([_BOX_QUANTILE, 1 - _BOX_QUANTILE]), dim=0)
    bounds = torch.stack((low - _BEHIND, high + _BEHIND))
    bounds[0] = torch.minimum(bounds[0], poses[:, :3, 3].amin(0) - _BEHIND)
    bounds[1] = torch.maximum(bounds[1], poses[:, :3, 3].amax(0) + _BEHIND)
    return scene_normalisation(bounds=bounds, margin=0.0)


def measured_points(
    pool: RayPool, settings: FitSettings, num_batches: int = 1, per_batch: int = 100_000
) -> Tensor:
    """World points (N, 3) at random pixels with depth up to ``far``; none without depth."""
    pieces = [torch.zeros(0, 3)]
    for step in range(num_batches):
        batch = pool.batch(step * STEPS_PER_TURN, per_batch, with_features=False)
        if 'depth' in batch.targets:
            depth = batch.targets['depth']
            inside = (depth > 0) & (depth <= settings.far)
            distance = z_to_distance(depth, batch.rays)[:, None]
            pieces.append(batch.rays.positions(distance)[:, 0][inside].cpu())
    return torch.cat(pieces)


def occupancy_of(
    box: SceneBox, settings: FitSettings, pool: RayPool, points: Tensor | None
) -> OccupancyGrid | None:
    """Cells near measured points, and the scan's own where there are some; None without depth."""
    batches = _OCCUPANCY_BATCHES * -(-len(pool.views) // pool.views_in_memory)
    measured = measured_points(pool, settings, batches)
    if not settings.occupancy_resolution or not len(measured):
        return None
    if points is not None:
        measured = torch.cat((measured, points))
    return OccupancyGrid.from_points(
        measured, box, settings.occupancy_resolution, settings.occupancy_margin
    )
