"""Which places the training views saw: a field knows nothing of the others.

Enters: cameras and small depth maps of the views. Leaves: whether each point (N, 3) was in some
view, not behind what that view shows.

Letters: V views, h × w a small depth map, N points.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from oneformer3d.lifting import DEFAULT_BYTE_BUDGET, Camera
from oneformer3d.lifting.chunks import num_rows, ranges
from oneformer3d.lifting.visibility import NEAR, in_frustum, nearest_pixel

from ..networks.field import Field
from ..rendering.rays import clip_to_box, distance_to_z, image_rays
from ..rendering.render import render_rays
from ..rendering.samplers import HierarchicalSampler
from ..scene.scene import FieldScene

ABS_TOL, REL_TOL = 0.10, 0.03  # metres and share: small maps are coarse at edges
_BYTES_PER_TEST = 96  # of one point in one view; measured


@dataclass(frozen=True, eq=False)
class Observations:
    """What V views saw.

    Attributes:
        camera: V views of the small maps' size.
        depth: (V, h, w) float32 z-depth in metres, 0 where it is not known.
    """

    camera: Camera
    depth: Tensor

    def __post_init__(self) -> None:
        expected = (*self.camera.batch_shape, *self.camera.image_size)
        if tuple(self.depth.shape) != expected:
            raise ValueError(f'depth maps {tuple(self.depth.shape)} of cameras {expected}')

    @torch.no_grad()
    def observed(self, points: Tensor, byte_budget: int = DEFAULT_BYTE_BUDGET) -> Tensor:
        """Whether some view saw each place, as empty space or as a surface.

        A point counts where it lies in a view's frustum and at most a tolerance of 10 cm and 3 %
        behind the view's depth; where depth is unknown the view saw nothing.

        Args:
            points: (N, 3) world coordinates; those that are not finite were not seen.
            byte_budget: of temporary values.

        Returns:
            (N,) bool.
        """
        camera = self.camera.to(points.device, points.dtype)
        depth = self.depth.to(points.device)
        finite = torch.isfinite(points).all(-1)
        points = torch.where(finite[:, None], points, 0.0)
        seen = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        size = num_rows(len(depth) * _BYTES_PER_TEST, byte_budget, points.device)
        for begin, end in ranges(len(points), size):
            uv, z = camera.project(points[begin:end])
            u, v = uv.unbind(-1)
            measured = nearest_pixel(depth, u, v, camera.image_size)
            reach = measured + ABS_TOL + REL_TOL * measured
            inside = in_frustum(u, v, z, camera.image_size, NEAR)
            seen[begin:end] = (inside & (measured > 0) & (z <= reach)).any(0)
        return seen & finite

    def state(self) -> dict[str, Tensor]:
        """Tensors for a file."""
        return {
            'intrinsics': self.camera.intrinsics,
            'world_from_cam': self.camera.world_from_cam,
            'depth': self.depth.half(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> 'Observations':
        """From ``state``."""
        depth = state['depth'].float()
        camera = Camera(state['intrinsics'], state['world_from_cam'], tuple(depth.shape[-2:]))
        return cls(camera, depth)


def small_depth(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Depth (H, W) → (h, w): the greatest depth of each cell, so that a cell on an edge does not
    call unseen what is seen beside the edge; 0 only where all of the cell is missing."""
    return torch.nn.functional.adaptive_max_pool2d(depth[None].float(), size)[0]


def observe(
    scene: FieldScene,
    views: Sequence[int],
    field: Field | None = None,
    far: float = 10.0,
    max_side: int = 80,
) -> Observations:
    """What some views saw: the sensor's depth, and a field's where the sensor has none.

    Args:
        scene: of the views.
        views: indices.
        field: renders what was not measured; None leaves it unknown.
        far: greatest z-depth that is looked for, metres.
        max_side: of the small depth maps.
    """
    maps, cameras = [], []
    for view in views:
        content = scene.read(view)
        full = tuple(content.rgb.shape[:2])
        scale = min(1.0, max_side / max(full))
        camera = replace(scene.camera[view], image_size=full)
        size = tuple(max(1, round(side * scale)) for side in scene.camera.image_size)
        camera = camera.resize(size)
        depth = torch.zeros(size)
        if content.depth is not None:
            depth = small_depth(content.depth, size)
        if field is not None:
            depth = _fill(depth, camera, field, far)
        maps.append(depth)
        cameras.append(camera)
    camera = Camera(
        torch.stack([camera.intrinsics for camera in cameras]),
        torch.stack([camera.world_from_cam for camera in cameras]),
        tuple(maps[0].shape),
    )
    return Observations(camera, torch.stack(maps))


@torch.no_grad()
def _fill(depth: Tensor, camera: Camera, field: Field, far: float) -> Tensor:
    """The depth map with rendered depth where it is missing; rays that meet nothing see ``far``."""
    missing = (depth == 0).flatten()
    if not missing.any():
        return depth
    rays = image_rays(camera, NEAR, far)[missing].to(field.unit_from_world.device)
    rays = clip_to_box(rays, field.scene_box)
    outputs = render_rays(field, rays, HierarchicalSampler(32, 32), (), perturb=False)
    end = distance_to_z(rays.far, rays)
    found = torch.where(outputs.accumulation > 0.5, outputs.depth, end)
    return depth.flatten().masked_scatter(missing, found.cpu()).view_as(depth)
