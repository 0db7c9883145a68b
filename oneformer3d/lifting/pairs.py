"""Visible (point, view) pairs: the sparse form in which many views of many points are kept.

Enters: points (N, 3) in metres, a ``Camera`` with V views, depth maps (V, h, w) in metres.
Leaves: ``PixelPairs``, one row for each of the P pairs in which a view sees a point, sorted by
point and then by view. A view of a room sees a fifth of it, so everything downstream touches P rows
instead of N x V.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .camera import Camera, project_coordinates
from .chunks import DEFAULT_BYTE_BUDGET, num_rows, ranges
from .depth_render import BYTES_PER_TEST, zbuffer_views
from .shapes import expect_shape
from .visibility import (
    Visibility,
    check_one_depth,
    depth_agrees,
    drop_depth_edges,
    in_frustum,
    majority_instance,
    nearest_pixel,
)


@dataclass(frozen=True)
class PixelPairs:
    """Pairs of a point and a view that sees it, sorted by point, then by view.

    Attributes:
        point: (P,) int64 row of the point.
        view: (P,) int64 row of the view.
        uv: (P, 2) pixel (u, v) in the view's image.
        depth_z: (P,) z-depth in metres.

    Example:
        >>> pairs = PixelPairs(
        ...     torch.tensor([0, 0, 2]), torch.tensor([0, 1, 1]), torch.zeros(3, 2), torch.ones(3)
        ... )
        >>> pairs.select(pairs.view == 1).point
        tensor([0, 2])
    """

    point: Tensor
    view: Tensor
    uv: Tensor
    depth_z: Tensor

    def __post_init__(self) -> None:
        num_pairs = len(self.point)
        for name, shape in (('point', 'P'), ('view', 'P'), ('uv', 'P 2'), ('depth_z', 'P')):
            expect_shape(f'pairs.{name}', getattr(self, name), shape, P=num_pairs)

    def __len__(self) -> int:
        return len(self.point)

    def select(self, keep: Tensor | slice) -> 'PixelPairs':
        """The pairs under a (P,) bool mask, at (P',) int64 rows, or of a slice."""
        return PixelPairs(self.point[keep], self.view[keep], self.uv[keep], self.depth_z[keep])

    def to(self, device: torch.device | str) -> 'PixelPairs':
        """The pairs on another device."""
        return PixelPairs(
            self.point.to(device),
            self.view.to(device),
            self.uv.to(device),
            self.depth_z.to(device),
        )


@torch.no_grad()
def project_pairs(
    points: Tensor,
    camera: Camera,
    depth: Tensor | None = None,
    depth_camera: Camera | None = None,
    *,
    visibility: Visibility = Visibility(),
    instance_maps: Tensor | None = None,
    segments: Tensor | None = None,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> PixelPairs:
    """Project every point into every view and keep the pairs that are visible.

    Which pairs are kept has no gradient; ``visible_pairs`` gives pixels that have one.

    Args:
        points: (N, 3) floating point world coordinates in metres.
        camera: V views, batch shape (V,).
        depth: (V, h, w) metres, 0 for missing; None tests the frustum alone.
        depth_camera: V views with the depth maps' own intrinsics, where those are not the
            colour image's resized.
        visibility: what counts as visible.
        instance_maps: (V, h', w') integer 2D instance ids; with ``segments``, keeps only the
            pairs that show their segment's majority id, see ``majority_instance``.
        segments: (N,) int64 3D segment or instance of each point, −1 for none.
        byte_budget: bytes for temporary values; the pairs themselves come on top.

    Returns:
        The visible pairs, uv and depth_z of the points' type.

    Example:
        >>> K = torch.tensor([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
        >>> camera = Camera(K, torch.eye(4)[None], (48, 64))
        >>> points = torch.tensor([[0.0, 0, 1], [0.0, 0, -1], [0.1, 0, 2]])
        >>> pairs = project_pairs(points, camera)
        >>> pairs.point, pairs.uv[:, 0]
        (tensor([0, 2]), tensor([31.5000, 36.5000]))
    """
    num_views = _check_views(points, camera)
    if (instance_maps is None) != (segments is None):
        raise ValueError('instance_maps and segments are given together or not at all')
    camera = camera.to(points.device, points.dtype)
    depth = _tested_depth(points, camera, depth, visibility, byte_budget)
    if depth is not None:
        expect_shape('depth', depth, 'V h w', V=num_views)

    columns: tuple[list[Tensor], ...] = ([], [], [], [], [])
    size = num_rows(max(1, num_views) * BYTES_PER_TEST, byte_budget, points.device)
    for begin, end in ranges(max(1, len(points)), size):  # one empty chunk, empty pairs
        chunk = points[begin:end]
        found = _frustum_pairs(chunk, camera, visibility.near)
        if depth is not None:
            found = _depth_pairs(found, chunk, camera, depth, depth_camera, visibility)
        for column, values in zip(columns, (found[0] + begin, *found[1:])):
            column.append(values)
    point, view, u, v, depth_z = (_join(column) for column in columns)

    pairs = PixelPairs(point, view, torch.stack((u, v), dim=-1), depth_z)
    if instance_maps is None or segments is None:
        return pairs
    ids = nearest_pixel(instance_maps, u, v, camera.image_size, view)
    return pairs.select(majority_instance(view, segments[point], ids))


def visible_pairs(
    points: Tensor,
    camera: Camera,
    depth: Tensor | None = None,
    depth_camera: Camera | None = None,
    *,
    visibility: Visibility = Visibility(),
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> PixelPairs:
    """``project_pairs`` with pixels that carry the gradients of points and cameras.

    Args:
        points: (N, 3) float32 or float64.
        camera: V views.
        depth: (V, h, w) metres, or None.
        depth_camera: V views with the depth maps' own intrinsics; None is ``camera`` resized.
        visibility: what counts as visible.
        byte_budget: bytes for temporary values.

    Raises:
        ValueError: a z-buffer wanted beside a depth map.

    Example:
        >>> K = torch.tensor([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
        >>> camera = Camera(K, torch.eye(4)[None], (48, 64))
        >>> points = torch.tensor([[0.0, 0, 1]], requires_grad=True)
        >>> visible_pairs(points, camera).uv.sum().backward()
        >>> points.grad  # du/dx = fx / z
        tensor([[100., 100.,   0.]])
    """
    camera = camera.to(points.device, points.dtype)
    # which pairs are visible has no gradient
    pairs = project_pairs(
        points,
        camera,
        depth,
        depth_camera=depth_camera,
        visibility=visibility,
        byte_budget=byte_budget,
    )
    differentiable = torch.is_grad_enabled() and any(
        x.requires_grad for x in (points, camera.intrinsics, camera.world_from_cam)
    )
    return reproject_pairs(points, camera, pairs) if differentiable else pairs


def project_visible(
    points: Tensor,
    camera: Camera,
    depth: Tensor | None = None,
    *,
    visibility: Visibility = Visibility(),
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> tuple[Tensor, Tensor, Tensor]:
    """The dense twin of ``project_pairs``: every point in every view, visible or not.

    Args:
        points: (..., N, 3) world coordinates in metres; leading dimensions broadcast against
            the camera's.
        camera: cameras (...).
        depth: (..., h, w) metres with the cameras' leading dimensions, or None.
        visibility: what counts as visible.
        byte_budget: bytes for temporary values; the results come on top.

    Returns:
        uv (..., N, 2) finite for finite points, z (..., N) in metres, visible (..., N) bool.

    Example:
        >>> K = torch.tensor([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
        >>> camera = Camera(K, torch.eye(4)[None], (48, 64))
        >>> points = torch.tensor([[0.0, 0, 1], [0.0, 0, -1], [0.1, 0, 2]])
        >>> uv, z, visible = project_visible(points, camera)
        >>> z, visible
        (tensor([[ 1., -1.,  2.]]), tensor([[ True, False,  True]]))
    """
    depth = _tested_depth(points, camera, depth, visibility, byte_budget)
    lead = torch.broadcast_shapes(points.shape[:-2], camera.batch_shape)
    if depth is not None:
        depth = depth.expand(*lead, *depth.shape[-2:])

    pixels, depths, sights = [], [], []
    num_points = points.shape[-2]
    size = num_rows(lead.numel() * BYTES_PER_TEST, byte_budget, points.device)
    for begin, end in ranges(max(1, num_points), size):  # one empty chunk gives empty results
        uv, z = camera.project(points[..., begin:end, :])
        u, v = uv.unbind(-1)
        visible = in_frustum(u, v, z, camera.image_size, visibility.near)
        if depth is not None:
            measured = nearest_pixel(depth, u, v, camera.image_size)
            visible &= depth_agrees(measured, z, visibility)
        pixels.append(uv)
        depths.append(z)
        sights.append(visible)
    return _join(pixels, -2), _join(depths, -1), _join(sights, -1)


def reproject_pairs(points: Tensor, camera: Camera, pairs: PixelPairs) -> PixelPairs:
    """The same pairs with uv and depth_z differentiable in the points and the cameras.

    Args:
        points: (N, 3), perhaps requiring gradients.
        camera: V views, whose tensors may require gradients too.
        pairs: from ``project_pairs`` of the same points and views.

    Example:
        >>> K = torch.tensor([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
        >>> camera = Camera(K, torch.eye(4)[None], (48, 64))
        >>> points = torch.tensor([[0.0, 0, 1]])
        >>> pairs = project_pairs(points, camera)
        >>> torch.equal(reproject_pairs(points, camera, pairs).uv, pairs.uv)
        True
    """
    camera_of_pair = camera[pairs.view]
    uv, depth_z = camera_of_pair.project(points[pairs.point][:, None])  # (P, 1, 2), (P, 1)
    return replace(pairs, uv=uv[:, 0], depth_z=depth_z[:, 0])


def nearest_view(pairs: PixelPairs, num_points: int) -> Tensor:
    """For each point the view that sees it from nearest (least z-depth), −1 for none.

    Views at equal depth: the smallest index.

    Returns:
        (N,) int64.

    Example:
        >>> depth_z = torch.tensor([2.0, 1.0, 3.0])
        >>> pairs = PixelPairs(
        ...     torch.tensor([0, 0, 2]), torch.tensor([0, 1, 1]), torch.zeros(3, 2), depth_z
        ... )
        >>> nearest_view(pairs, num_points=3)
        tensor([ 1, -1,  1])
    """
    least = pairs.depth_z.new_full((num_points,), torch.inf)
    least = least.scatter_reduce(0, pairs.point, pairs.depth_z.detach(), 'amin')
    nearest = pairs.depth_z == least[pairs.point]

    none = torch.iinfo(torch.int64).max
    view = pairs.view.new_full((num_points,), none)
    view = view.scatter_reduce(0, pairs.point[nearest], pairs.view[nearest], 'amin')
    return view.masked_fill(view == none, -1)


def _tested_depth(
    points: Tensor,
    camera: Camera,
    depth: Tensor | None,
    visibility: Visibility,
    byte_budget: int,
) -> Tensor | None:
    """The depth maps to test against: as given or drawn, without their edges; or None."""
    check_one_depth(depth, visibility)
    if visibility.occlusion == 'zbuffer':
        depth = zbuffer_views(points, camera, visibility, byte_budget)
    if depth is not None and visibility.edge_reject:
        depth = drop_depth_edges(depth, visibility)
    return depth


def _frustum_pairs(points: Tensor, camera: Camera, near: float) -> tuple[Tensor, ...]:
    """point, view, u, v, z of the pairs of these points that lie in a view's frustum."""
    u, v, z = project_coordinates(points, camera.intrinsics, camera.world_from_cam)  # (V, N)
    inside = in_frustum(u, v, z, camera.image_size, near)
    point, view = inside.t().contiguous().nonzero(as_tuple=True)
    index = view * len(points) + point
    return point, view, *(x.reshape(-1)[index] for x in (u, v, z))


def _depth_pairs(
    pairs: tuple[Tensor, ...],
    points: Tensor,
    camera: Camera,
    depth: Tensor,
    depth_camera: Camera | None,
    visibility: Visibility,
) -> tuple[Tensor, ...]:
    """The pairs of a chunk that agree with the depth maps."""
    point, view, u, v, z = pairs
    if depth_camera is None:
        measured = nearest_pixel(depth, u, v, camera.image_size, view)
        return tuple(x[depth_agrees(measured, z, visibility)] for x in pairs)

    depth_camera = depth_camera.to(points.device, points.dtype)
    uvz = project_coordinates(points, depth_camera.intrinsics, depth_camera.world_from_cam)
    index = view * len(points) + point
    u, v, z = (x.reshape(-1)[index] for x in uvz)
    measured = nearest_pixel(depth, u, v, depth_camera.image_size, view)
    keep = depth_agrees(measured, z, visibility)
    keep &= in_frustum(u, v, z, depth_camera.image_size, near=0.0)
    return tuple(x[keep] for x in pairs)


def _join(chunks: list[Tensor], dim: int = 0) -> Tensor:
    """The chunks as one tensor; the list is emptied, so that memory is given back early."""
    joined = torch.cat(chunks, dim) if len(chunks) > 1 else chunks[0]
    chunks.clear()
    return joined


def _check_views(points: Tensor, camera: Camera) -> int:
    expect_shape('points', points, 'N 3')
    if not points.is_floating_point():
        raise ValueError(f'points must be floating point, got {points.dtype}')
    if len(camera.batch_shape) != 1:
        raise ValueError(f'camera must hold views (V,), got {tuple(camera.batch_shape)}')
    return camera.batch_shape[0]
