"""Rays of pixels, and the one similarity between the world and a field's unit box.

Enters: the shared cameras (``lifting.Camera``), pixels (u, v), z-depth maps, world points. Leaves:
rays in world metres and the box they cross.

Everything outside a field is in world metres: origins, near and far, sample distances, depth,
queries. A field alone works in its *unit box* [−1, 1]³, reached by the similarity in its
``SceneBox``; a density per unit length becomes one per metre by the scale of that same similarity.

Directions are unit vectors and distances are Euclidean. A sensor's z-depth becomes a distance by
``t = z · z_scale`` with ``z_scale = ‖d_cam‖``, the length of the pixel's (x, y, 1) direction.

Letters: R rays, S samples per ray, V views, N points.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from oneformer3d.lifting import Camera, is_valid_pose
from oneformer3d.lifting.shapes import expect_shape

from ..networks.scene_box import SceneBox

# Semantic-NeRF's bounds, used where neither depth nor a box says better.
DEFAULT_NEAR, DEFAULT_FAR = 0.1, 10.0


@dataclass(frozen=True)
class Rays:
    """R rays in world coordinates.

    Attributes:
        origins: (R, 3) metres.
        directions: (R, 3) unit length.
        near: (R,) metres along the ray where sampling begins.
        far: (R,) metres where it ends; a ray with far = near holds nothing.
        z_scale: (R,) distance per z-depth.

    Example:
        >>> one = torch.ones(1)
        >>> rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0, 1]]), 0 * one, 5 * one, one)
        >>> rays.positions(torch.tensor([[0.5, 2.0]]))
        tensor([[[0.0000, 0.0000, 0.5000],
                 [0.0000, 0.0000, 2.0000]]])
    """

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor
    z_scale: Tensor

    def __post_init__(self) -> None:
        num_rays = len(self.origins)
        expect_shape('origins', self.origins, 'R 3')
        expect_shape('directions', self.directions, 'R 3', R=num_rays)
        expect_shape('near', self.near, 'R', R=num_rays)
        expect_shape('far', self.far, 'R', R=num_rays)
        expect_shape('z_scale', self.z_scale, 'R', R=num_rays)

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, index: slice | Tensor) -> 'Rays':
        """A subset of the rays."""
        return Rays(*(getattr(self, field.name)[index] for field in fields(self)))

    def split(self, num_rays: int) -> list['Rays']:
        """All rays in order, at most ``num_rays`` at a time."""
        return [self[begin : begin + num_rays] for begin in range(0, len(self), num_rays)]

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> 'Rays':
        """The rays on another device or in another floating point type."""
        values = (getattr(self, field.name) for field in fields(self))
        return Rays(*(value.to(device=device, dtype=dtype) for value in values))

    def positions(self, distances: Tensor) -> Tensor:
        """World points (R, S, 3) at distances (R, S) in metres."""
        return self.origins[:, None] + distances[..., None] * self.directions[:, None]


def scene_normalisation(
    points: Tensor | None = None,
    world_from_cam: Tensor | None = None,
    bounds: Tensor | None = None,
    margin: float = 0.05,
) -> SceneBox:
    """The box around a scene: centred, axis-aligned, its longest side 2 in unit lengths.

    Args:
        points: (N, 3) world points, for example the RGB-D points.
        world_from_cam: (V, 4, 4) poses, whose centres the box shall hold too.
        bounds: (2, 3) least and greatest corner, in place of points and poses.
        margin: share of each side that is added around.

    Raises:
        ValueError: nothing to bound, values that are not finite, a box without volume, or poses
            that are not rigid.

    Example:
        >>> box = scene_normalisation(bounds=torch.tensor([[0.0, 0, 0], [4, 2, 1]]), margin=0.0)
        >>> box.scale, box.to_unit(torch.tensor([[4.0, 2, 1]]))
        (tensor(0.5000), tensor([[1.0000, 0.5000, 0.2500]]))
    """
    if bounds is None:
        bounds = _bounds(points, world_from_cam)
    expect_shape('bounds', bounds, '2 3')
    low, high = bounds.double()
    half = (high - low) / 2 * (1 + margin)  # (3,)
    if not torch.isfinite(half).all() or not (half > 0).all():
        raise ValueError(f'scene bounds from {low.tolist()} to {high.tolist()} hold no volume')

    # x_unit = scale · (x − centre)
    scale = 1 / half.max()
    unit_from_world = torch.eye(4, dtype=torch.float64, device=half.device)
    unit_from_world[:3, :3] *= scale
    unit_from_world[:3, 3] = -(low + high) / 2 * scale
    return SceneBox(unit_from_world.float(), (half * scale).float())


def _bounds(points: Tensor | None, world_from_cam: Tensor | None) -> Tensor:
    """Least and greatest corner (2, 3) of points and camera centres."""
    corners = []
    if points is not None and len(points):
        corners.append(points.reshape(-1, 3))
    if world_from_cam is not None and len(world_from_cam):
        if not all(is_valid_pose(pose) for pose in world_from_cam):
            raise ValueError('world_from_cam: a pose is not a finite rigid motion')
        corners.append(world_from_cam[:, :3, 3])

    if not corners:
        raise ValueError('a scene box needs points, poses or bounds')
    every = torch.cat([corner.double() for corner in corners])
    return torch.stack((every.amin(0), every.amax(0)))


def pixel_rays(
    camera: Camera,
    view: Tensor,
    uv: Tensor,
    near: float = DEFAULT_NEAR,
    far: float = DEFAULT_FAR,
) -> Rays:
    """The rays through pixels; (0, 0) is the centre of the top-left pixel.

    Args:
        camera: V views, or a single one (then every view index must be 0).
        view: (R,) int64 index of the view.
        uv: (R, 2) pixels (column, row), any real numbers.
        near, far: z-depths in metres between which the rays are sampled.

    Raises:
        ValueError: lengths that differ, a view that is not there, or not 0 <= near < far.

    Example:
        >>> camera = Camera(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), torch.eye(4), (2, 2))
        >>> rays = pixel_rays(camera, torch.tensor([0]), torch.tensor([[1.0, 0.0]]))
        >>> rays.directions, rays.z_scale, rays.near
        (tensor([[0.7071, 0.0000, 0.7071]]), tensor([1.4142]), tensor([0.1414]))
    """
    (num_rays,) = expect_shape('view', view, 'R')
    expect_shape('uv', uv, 'R 2', R=num_rays)
    if not 0 <= near < far:
        raise ValueError(f'expected 0 <= near < far, got {near} and {far}')
    shape = camera.batch_shape or (1,)
    if len(view) and not 0 <= int(view.min()) <= int(view.max()) < shape[0]:
        raise ValueError(f'view indices must lie in 0 … {shape[0] - 1}')

    inverse = torch.linalg.inv(camera.intrinsics).expand(*shape, 3, 3)[view]  # (R, 3, 3)
    pose = camera.world_from_cam.expand(*shape, 4, 4)[view]  # (R, 4, 4)
    uv = uv.to(pose.dtype)
    pixel = torch.cat((uv, torch.ones_like(uv[:, :1])), dim=-1)  # (R, 3)

    # d_cam = K⁻¹ (u, v, 1), d = R d_cam / z: written out as sums, so that a ray depends neither on
    # its neighbours nor on TF32
    cam = (inverse * pixel[:, None]).sum(-1)  # (R, 3)
    world = (pose[:, :3, :3] * (cam / cam[:, 2:])[:, None]).sum(-1)  # (R, 3)
    z_scale = torch.linalg.vector_norm(world, dim=-1)
    return Rays(pose[:, :3, 3], world / z_scale[:, None], near * z_scale, far * z_scale, z_scale)


def image_rays(camera: Camera, near: float = DEFAULT_NEAR, far: float = DEFAULT_FAR) -> Rays:
    """The H · W rays of a single camera, row by row.

    Example:
        >>> camera = Camera(torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 1]]), torch.eye(4), (1, 3))
        >>> image_rays(camera).z_scale
        tensor([1.4142, 1.0000, 1.4142])
    """
    if camera.batch_shape:
        raise ValueError('image_rays takes a single camera; index the batch first')
    height, width = camera.image_size
    pixel = torch.arange(height * width, device=camera.world_from_cam.device)
    uv = torch.stack((pixel % width, pixel // width), dim=-1)
    return pixel_rays(camera, torch.zeros_like(pixel), uv, near, far)


def z_to_distance(depth: Tensor, rays: Rays) -> Tensor:
    """Sensor z-depth (R,) or (R, S) → distance along the rays, metres.

    Example:
        >>> camera = Camera(torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 1]]), torch.eye(4), (1, 3))
        >>> z_to_distance(torch.full((3,), 2.0), image_rays(camera))
        tensor([2.8284, 2.0000, 2.8284])
    """
    # t = z · ‖d_cam‖
    return depth * (rays.z_scale if depth.ndim == 1 else rays.z_scale[:, None])


def distance_to_z(distance: Tensor, rays: Rays) -> Tensor:
    """Distance along the rays (R,) or (R, S) → z-depth, metres; ``z_to_distance``'s inverse.

    Example:
        >>> camera = Camera(torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 1]]), torch.eye(4), (1, 3))
        >>> distance_to_z(torch.full((3,), 2.0), image_rays(camera))
        tensor([1.4142, 2.0000, 1.4142])
    """
    return distance / (rays.z_scale if distance.ndim == 1 else rays.z_scale[:, None])


def unit_positions(rays: Rays, distances: Tensor, box: SceneBox) -> Tensor:
    """Unit coordinates (R, S, 3) at distances (R, S) in metres.

    The rays are moved into the box once instead of each of their points.

    Example:
        >>> one = torch.ones(1)
        >>> rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0, 1]]), 0 * one, 5 * one, one)
        >>> box = scene_normalisation(bounds=torch.tensor([[-2.0, -2, -2], [2, 2, 2]]), margin=0.0)
        >>> unit_positions(rays, torch.tensor([[1.0]]), box)
        tensor([[[0.0000, 0.0000, 0.5000]]])
    """
    # x_unit = A (o + t d) + b = (A o + b) + t (A d)
    directions = rays.directions @ box.unit_from_world[:3, :3].to(rays.directions).t()
    origins = box.to_unit(rays.origins)
    return torch.addcmul(origins[:, None], distances[..., None], directions[:, None])


def clip_to_box(rays: Rays, box: SceneBox) -> Rays:
    """The rays between where they enter and leave the scene's box, within their near and far.

    A ray that misses the box gets far = near, and renders as nothing.

    Example:
        >>> one = torch.ones(1)
        >>> rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0, 1]]), 0 * one, 5 * one, one)
        >>> box = scene_normalisation(bounds=torch.tensor([[-2.0, -2, -2], [2, 2, 2]]), margin=0.0)
        >>> clip_to_box(rays, box).far
        tensor([2.])
    """
    box = box.to(rays.origins.device, rays.origins.dtype)
    origins = box.to_unit(rays.origins)
    directions = box.to_unit(rays.origins + rays.directions) - origins  # unit lengths per metre
    tiny = torch.finfo(directions.dtype).tiny ** 0.5
    directions = torch.where(directions.abs() < tiny, tiny, directions)

    # slabs: o + t d = ±h along each axis; inside from the last entry to the first exit
    low = (-box.half_extent - origins) / directions
    high = (box.half_extent - origins) / directions
    near = torch.maximum(torch.minimum(low, high).amax(-1), rays.near)
    far = torch.minimum(torch.maximum(low, high).amin(-1), rays.far)

    misses = far <= near
    near = torch.where(misses, rays.near, near)
    return replace(rays, near=near, far=torch.where(misses, near, far))


def sample_rays(
    image: Tensor,
    semantics_2d: Tensor,
    K: Tensor,
    RT: Tensor,
    batch_size: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random pixels of one image as rays with their targets (Semantic-NeRF, ICCV 2021).

    Args:
        image: (H, W, 3) uint8 0–255, or floats 0–1.
        semantics_2d: (H, W) integer labels.
        K: (3, 3) intrinsics of the image.
        RT: (4, 4) pose ``world_from_cam``, OpenCV axes.
        batch_size: R, drawn with replacement.
        generator: for repeatable draws.

    Returns:
        Origins (R, 3), unit directions (R, 3), colours (R, 3) in 0–1, labels (R,) int64.

    Example:
        >>> image, labels = torch.full((4, 6, 3), 255, dtype=torch.uint8), torch.full((4, 6), 7)
        >>> rays = sample_rays(image, labels, torch.eye(3), torch.eye(4), 2)
        >>> rays[0], rays[2], rays[3]
        (tensor([[0., 0., 0.],
                [0., 0., 0.]]), tensor([[1., 1., 1.],
                [1., 1., 1.]]), tensor([7, 7]))
    """
    height, width, _ = expect_shape('image', image, 'H W 3')
    expect_shape('semantics_2d', semantics_2d, 'H W', H=height, W=width)
    if batch_size < 1:
        raise ValueError(f'batch_size must be positive, got {batch_size}')

    # drawn on the generator's device, then moved, so that seeds mean the same
    device = image.device if generator is None else generator.device
    pixel = torch.randint(height * width, (batch_size,), generator=generator, device=device)
    pixel = pixel.to(image.device)  # (R,)
    row, column = pixel // width, pixel % width

    camera = Camera(K.to(image.device), RT.to(image.device), (height, width))
    rays = pixel_rays(camera, torch.zeros_like(pixel), torch.stack((column, row), dim=-1))
    colours = image[row, column]  # (R, 3)
    colours = colours.float() / 255 if colours.dtype == torch.uint8 else colours
    return rays.origins, rays.directions, colours, semantics_2d[row, column].long()
