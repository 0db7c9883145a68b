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
from .visibility import (
    ABS_TOL,
    NEAR,
    REL_TOL,
    depth_agrees,
    drop_depth_edges,
    in_frustum,
    majority_instance,
    nearest_pixel,
    visible_mask,
    zbuffer,
)

# Bytes that one (point, view) takes while a piece is projected and tested; measured.
_BYTES_PER_TEST = 64


@dataclass(frozen=True)
class PixelPairs:
    """Pairs of a point and a view that sees it, sorted by point, then by view.

    Attributes:
        point: (P,) int64 row of the point.
        view: (P,) int64 row of the view.
        uv: (P, 2) pixel (u, v) in the view's image.
        depth_z: (P,) z-depth in metres.
    """

    point: Tensor
    view: Tensor
    uv: Tensor
    depth_z: Tensor

    def __post_init__(self) -> None:
        num_pairs = len(self.point)
        shapes = [tuple(x.shape) for x in (self.point, self.view, self.uv, self.depth_z)]
        if shapes != [(num_pairs,), (num_pairs,), (num_pairs, 2), (num_pairs,)]:
            raise ValueError(f'pairs must be (P,), (P,), (P, 2) and (P,), got {shapes}')

    def __len__(self) -> int:
        return len(self.point)

    def select(self, keep: Tensor) -> 'PixelPairs':
        """The pairs under a (P,) bool mask, in the same order."""
        return PixelPairs(self.point[keep], self.view[keep], self.uv[keep], self.depth_z[keep])

    def to(self, device: torch.device | str) -> 'PixelPairs':
        """The pairs on another device."""
        fields = {name: getattr(self, name).to(device) for name in self.__dataclass_fields__}
        return replace(self, **fields)


@torch.no_grad()
def project_pairs(
    points: Tensor,
    camera: Camera,
    depth: Tensor | None = None,
    *,
    depth_camera: Camera | None = None,
    near: float = NEAR,
    abs_tol: float = ABS_TOL,
    rel_tol: float = REL_TOL,
    edge_reject: bool = False,
    instance_maps: Tensor | None = None,
    segments: Tensor | None = None,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> PixelPairs:
    """Project every point into every view and keep the pairs that ``visible_mask`` keeps.

    Which pairs are kept has no gradient; ``reproject_pairs`` gives pixels that have one.

    Args:
        points: (N, 3) floating point world coordinates in metres.
        camera: V views, batch shape (V,).
        depth: (V, h, w) metres, 0 for missing; None tests the frustum alone.
        depth_camera: V views with the depth maps' own intrinsics, where those are not the
            colour image's resized.
        near: nearest visible z-depth in metres.
        abs_tol: tolerance of the depth test in metres.
        rel_tol: tolerance of the depth test as a share of the measured depth.
        edge_reject: also reject pixels on a depth edge, see ``drop_depth_edges``.
        instance_maps: (V, h', w') integer 2D instance ids; with ``segments``, keeps only the
            pairs that show their segment's majority id, see ``majority_instance``.
        segments: (N,) int64 3D segment or instance of each point, −1 for none.
        byte_budget: bytes for temporary values; the pairs themselves come on top.

    Returns:
        The visible pairs, uv and depth_z of the points' type.
    """
    num_views = _check_views(points, camera)
    if depth is not None and depth.shape[:-2] != (num_views,):
        raise ValueError(f'depth must be ({num_views}, h, w), got {tuple(depth.shape)}')
    if (instance_maps is None) != (segments is None):
        raise ValueError('instance_maps and segments are given together or not at all')
    if depth is not None and edge_reject:
        depth = drop_depth_edges(depth, abs_tol, rel_tol)
    camera = camera.to(points.device, points.dtype)

    pieces: tuple[list[Tensor], ...] = ([], [], [], [], [])
    size = num_rows(max(1, num_views) * _BYTES_PER_TEST, byte_budget, points.device)
    for begin, end in ranges(max(1, len(points)), size):  # one empty piece, empty pairs
        piece = _frustum_pairs(points[begin:end], camera, near)
        if depth is not None:
            piece = _depth_pairs(
                piece, points[begin:end], camera, depth, depth_camera, abs_tol, rel_tol
            )
        piece = (piece[0] + begin, *piece[1:])
        for column, values in zip(pieces, piece):
            column.append(values)
    point, view, u, v, depth_z = (_join(column) for column in pieces)
    pairs = PixelPairs(point, view, torch.stack((u, v), dim=-1), depth_z)
    if instance_maps is None:
        return pairs
    ids = nearest_pixel(instance_maps, u, v, camera.image_size, view)
    return pairs.select(majority_instance(view, segments[point], ids))


def project_visible(
    points: Tensor,
    camera: Camera,
    depth: Tensor | None = None,
    *,
    near: float = NEAR,
    abs_tol: float = ABS_TOL,
    rel_tol: float = REL_TOL,
    edge_reject: bool = False,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> tuple[Tensor, Tensor, Tensor]:
    """The dense twin of ``project_pairs``: every point in every view, seen or not.

    Args:
        points: (..., N, 3) world coordinates in metres; leading dimensions broadcast against
            the camera's.
        camera: cameras (...).
        depth: (..., h, w) metres with the cameras' leading dimensions, or None.
        near: as in ``project_pairs``, and so are abs_tol, rel_tol and edge_reject.
        abs_tol: metres.
        rel_tol: share of the measured depth.
        edge_reject: also reject pixels on a depth edge.
        byte_budget: bytes for temporary values; the results come on top.

    Returns:
        uv (..., N, 2) finite for finite points, z (..., N) in metres, visible (..., N) bool.
    """
    if depth is not None and edge_reject:
        depth = drop_depth_edges(depth, abs_tol, rel_tol)
    lead = torch.broadcast_shapes(points.shape[:-2], camera.batch_shape)
    if depth is not None:
        depth = depth.expand(*lead, *depth.shape[-2:])
    tolerances = {'near': near, 'abs_tol': abs_tol, 'rel_tol': rel_tol}
    num_points = points.shape[-2]
    size = num_rows(lead.numel() * _BYTES_PER_TEST, byte_budget, points.device)
    pieces: tuple[list[Tensor], ...] = ([], [], [])
    for begin, end in ranges(max(1, num_points), size):  # one empty piece gives empty results
        uv, z = camera.project(points[..., begin:end, :])
        visible = visible_mask(uv, z, camera.image_size, depth, **tolerances)
        for column, values in zip(pieces, (uv, z, visible)):
            column.append(values)
    return tuple(_join(column, dim) for column, dim in zip(pieces, (-2, -1, -1)))


def zbuffer_views(
    points: Tensor,
    camera: Camera,
    point_size: int = 3,
    near: float = NEAR,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> Tensor:
    """Depth maps (V, H, W) in metres of the points themselves, see ``zbuffer``; 0 for none.

    A resized camera makes a coarser map with fewer gaps, which ``project_pairs`` takes too.
    """
    _check_views(points, camera)
    camera = camera.to(points.device, points.dtype)
    shape = (*camera.batch_shape, *camera.image_size)
    depth = points.new_full(shape, torch.inf)
    size = num_rows(max(1, shape[0]) * _BYTES_PER_TEST, byte_budget, points.device)
    for begin, end in ranges(len(points), size):
        uv, z = camera.project(points[begin:end])
        drawn = zbuffer(uv, z, camera.image_size, point_size, near)
        depth = torch.minimum(depth, drawn.masked_fill(drawn == 0, torch.inf))
    return depth.masked_fill(depth == torch.inf, 0)


def reproject_pairs(points: Tensor, camera: Camera, pairs: PixelPairs) -> PixelPairs:
    """The same pairs with uv and depth_z differentiable in the points and the cameras.

    Args:
        points: (N, 3), perhaps requiring gradients.
        camera: V views, whose tensors may require gradients too.
        pairs: from ``project_pairs`` of the same points and views.
    """
    seen_by = camera[pairs.view]
    uv, depth_z = seen_by.project(points[pairs.point][:, None])
    return replace(pairs, uv=uv[:, 0], depth_z=depth_z[:, 0])


def nearest_view(pairs: PixelPairs, num_points: int) -> Tensor:
    """For each point the view that sees it from nearest (least z-depth), −1 for none.

    Views at equal depth: the smallest index.

    Returns:
        (N,) int64.
    """
    least = pairs.depth_z.new_full((num_points,), torch.inf)
    least = least.scatter_reduce(0, pairs.point, pairs.depth_z.detach(), 'amin')
    nearest = pairs.depth_z == least[pairs.point]
    none = torch.iinfo(torch.int64).max
    view = pairs.view.new_full((num_points,), none)
    view = view.scatter_reduce(0, pairs.point[nearest], pairs.view[nearest], 'amin')
    return view.masked_fill(view == none, -1)


def _frustum_pairs(points: Tensor, camera: Camera, near: float) -> tuple[Tensor, ...]:
    """point, view, u, v, z of the pairs of these points that lie in a view's frustum."""
    u, v, z = project_coordinates(points, camera.intrinsics, camera.world_from_cam)
    seen = in_frustum(u, v, z, camera.image_size, near)
    point, view = seen.t().contiguous().nonzero(as_tuple=True)
    index = view * len(points) + point
    return point, view, *(x.reshape(-1)[index] for x in (u, v, z))


def _depth_pairs(
    piece: tuple[Tensor, ...],
    points: Tensor,
    camera: Camera,
    depth: Tensor,
    depth_camera: Camera | None,
    abs_tol: float,
    rel_tol: float,
) -> tuple[Tensor, ...]:
    """The pairs of a piece that agree with the depth maps."""
    point, view, u, v, z = piece
    if depth_camera is None:
        measured = nearest_pixel(depth, u, v, camera.image_size, view)
        keep = depth_agrees(measured, z, abs_tol, rel_tol)
    else:
        depth_camera = depth_camera.to(points.device, points.dtype)
        uvz = project_coordinates(points, depth_camera.intrinsics, depth_camera.world_from_cam)
        index = view * len(points) + point
        u, v, z = (x.reshape(-1)[index] for x in uvz)
        measured = nearest_pixel(depth, u, v, depth_camera.image_size, view)
        keep = depth_agrees(measured, z, abs_tol, rel_tol)
        keep &= in_frustum(u, v, z, depth_camera.image_size, 0.0)
    return tuple(x[keep] for x in piece)


def _join(pieces: list[Tensor], dim: int = 0) -> Tensor:
    """The pieces as one tensor; the list is emptied, so that memory is given back early."""
    joined = torch.cat(pieces, dim) if len(pieces) > 1 else pieces[0]
    pieces.clear()
    return joined


def _check_views(points: Tensor, camera: Camera) -> int:
    if points.ndim != 2 or points.shape[1] != 3 or not points.is_floating_point():
        raise ValueError(
            f'points must be floating point (N, 3), got {points.dtype} {tuple(points.shape)}'
        )
    if len(camera.batch_shape) != 1:
        raise ValueError(f'camera must hold views (V,), got {tuple(camera.batch_shape)}')
    return camera.batch_shape[0]
