"""Which points an image sees: frustum, depth test, depth edges, z-buffer, 2D instance masks.

Enters: pixels ``uv`` (..., N, 2) and z-depth ``z`` (..., N) from ``project``, ``image_size`` (H,
W), depth maps (..., h, w) in metres with 0 for missing. Leaves: boolean masks (..., N), never
sentinels. Leading dimensions are views or batches. N points, P (view, point) pairs.

A point is visible when it lies in front (``z > near``), inside the image [-0.5, W - 0.5) x
[-0.5, H - 0.5), and, where a depth map is given, within ``abs_tol + rel_tol * d`` of the depth d
of its nearest pixel ``floor(u + 0.5)``. Missing depth rejects. A depth map may have another
resolution than the image; it covers the same field of view. ``Visibility`` holds these numbers.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .camera import check_image_size

NEAR = 0.05  # metres
OCCLUSION = (None, 'zbuffer')


def _check_point_size(point_size: int) -> None:
    if point_size < 1 or point_size % 2 == 0:
        raise ValueError(f'point_size must be odd and positive, got {point_size}')


@dataclass(frozen=True)
class Visibility:
    """What counts as visible; lengths in metres.

    Attributes:
        near: nearest visible z-depth. No sensor measures as close as the default: it only keeps
            pixels and their gradients away from the division by zero. Raise it to reject what the
            scanner cannot see.
        abs_tol: tolerance of the depth test.
        rel_tol: tolerance of the depth test as a share of the measured depth.
        edge_reject: also reject pixels on a depth edge, see ``drop_depth_edges``.
        occlusion: 'zbuffer' draws the points themselves where there are no depth maps, and tests
            against that; None tests the frustum alone there.
        point_size: odd side in pixels of a point in the z-buffer, see ``zbuffer``.

    Raises:
        ValueError: a negative length, an even point size or an unknown occlusion.

    Example:
        >>> Visibility(abs_tol=0.02).tolerance(torch.tensor([1.0, 3.0]))
        tensor([0.0300, 0.0500])
    """

    near: float = NEAR
    abs_tol: float = 0.05
    rel_tol: float = 0.01
    edge_reject: bool = False
    occlusion: str | None = None
    point_size: int = 3

    def __post_init__(self) -> None:
        for name in ('near', 'abs_tol', 'rel_tol'):
            value = getattr(self, name)
            if not value >= 0:
                raise ValueError(f'{name} must not be negative, got {value}')
        if self.occlusion not in OCCLUSION:
            raise ValueError(f'occlusion must be one of {OCCLUSION}, got {self.occlusion!r}')
        _check_point_size(self.point_size)

    def tolerance(self, depth: Tensor) -> Tensor:
        """Metres by which a z-depth may differ from the measured ``depth``."""
        return self.abs_tol + self.rel_tol * depth


def visible_mask(
    uv: Tensor,
    z: Tensor,
    image_size: tuple[int, int],
    depth: Tensor | None = None,
    *,
    visibility: Visibility = Visibility(),
    instance_map: Tensor | None = None,
    segments: Tensor | None = None,
) -> Tensor:
    """Whether each point is visible at its pixel.

    Args:
        uv: (..., N, 2) pixels as (u, v).
        z: (..., N) z-depth in metres.
        image_size: (H, W) of the image that the pixels belong to.
        depth: (..., h, w) metres, same leading dimensions; None tests the frustum alone.
        visibility: what counts as visible; a z-buffer is drawn of these points.
        instance_map: (..., h', w') integer 2D instance ids; with ``segments``, keeps only points
            that show their segment's majority id, see ``majority_instance``.
        segments: (N,) or (..., N) int64 3D segment or instance of each point.

    Returns:
        (..., N) bool. Points with a pixel or depth that is not finite are False.

    Example:
        >>> uv, z = torch.tensor([[5.0, 2], [5, 2], [-1, 2]]), torch.tensor([1.0, 2, 1])
        >>> visible_mask(uv, z, (6, 8)), visible_mask(uv, z, (6, 8), torch.ones(6, 8))
        (tensor([ True,  True, False]), tensor([ True, False, False]))
    """
    _check_pixels(uv, z)
    check_image_size(image_size)
    check_one_depth(depth, visibility)
    if visibility.occlusion == 'zbuffer':
        depth = zbuffer(uv, z, image_size, visibility.point_size, visibility.near)
    u, v = uv.unbind(-1)
    visible = in_frustum(u, v, z, image_size, visibility.near)

    if depth is not None:
        _check_map('depth', depth, z)
        if visibility.edge_reject:
            depth = drop_depth_edges(depth, visibility)
        measured = nearest_pixel(depth, u, v, image_size)
        visible = visible & depth_agrees(measured, z, visibility)

    if (instance_map is None) != (segments is None):
        raise ValueError('instance_map and segments are given together or not at all')
    if instance_map is not None and segments is not None:
        _check_map('instance_map', instance_map, z)
        ids = nearest_pixel(instance_map, u, v, image_size)[visible]
        views = torch.arange(z[..., 0].numel(), device=z.device).reshape(*z.shape[:-1], 1)
        keep = majority_instance(
            views.expand(z.shape)[visible], segments.expand(z.shape)[visible], ids
        )
        visible = visible.masked_scatter(visible, keep)
    return visible


def in_frustum(
    u: Tensor, v: Tensor, z: Tensor, image_size: tuple[int, int], near: float = NEAR
) -> Tensor:
    """In front of the camera and inside the image: bool of the common shape of u, v and z."""
    height, width = image_size
    inside = (u >= -0.5) & (u < width - 0.5) & (v >= -0.5) & (v < height - 0.5)
    return inside & (z > near) & (z < torch.inf)


def depth_agrees(measured: Tensor, z: Tensor, visibility: Visibility = Visibility()) -> Tensor:
    """``|z - d| <= abs_tol + rel_tol * d`` for a depth d that is there (finite, above 0)."""
    present = (measured > 0) & (measured < torch.inf)
    return present & ((z - measured).abs() <= visibility.tolerance(measured))


def nearest_pixel(
    maps: Tensor, u: Tensor, v: Tensor, image_size: tuple[int, int], view: Tensor | None = None
) -> Tensor:
    """Value of the pixel that (u, v) falls in, ``floor(u + 0.5)``, at any map resolution.

    Args:
        maps: (..., h, w) maps of the whole image, of any type.
        u: (..., N) pixel column in an image of ``image_size``; any value, clamped to the map.
        v: (..., N) pixel row.
        image_size: (H, W).
        view: (P,) map of each pixel, when u and v are (P,) and the maps (V, h, w).

    Returns:
        Values shaped like u, of the maps' type.
    """
    height, width = maps.shape[-2:]
    columns = _cell(u, width, image_size[1])
    rows = _cell(v, height, image_size[0])
    index = rows * width + columns
    if view is not None:
        return maps.reshape(-1)[view * (height * width) + index]
    return maps.flatten(-2).gather(-1, index)


def drop_depth_edges(depth: Tensor, visibility: Visibility = Visibility()) -> Tensor:
    """The depth map with its edge pixels set to 0 (missing).

    A pixel lies on an edge when the present depths of its 3x3 neighbourhood span more than
    ``abs_tol + rel_tol * d``. Sensors mix fore- and background there.

    Example:
        >>> drop_depth_edges(torch.tensor([[1.0, 1.0, 1.0, 2.0, 2.0]]))
        tensor([[1., 1., 0., 0., 2.]])
    """
    span, present = depth_span(depth)
    smooth = span <= visibility.tolerance(depth)
    return depth.masked_fill(~(smooth & present), 0)


def depth_span(depth: Tensor) -> tuple[Tensor, Tensor]:
    """Largest less smallest present depth of each pixel's 3x3 neighbourhood, and what is present.

    Returns:
        (..., h, w) metres, meaningless where the pixel's own depth is missing, and (..., h, w)
        bool.
    """
    present = (depth > 0) & (depth < torch.inf)
    flat = depth.flatten(0, -3).unsqueeze(1) if depth.ndim > 2 else depth[None, None]
    if flat.numel() == 0:
        return depth.new_zeros(depth.shape), present
    absent = ~present.reshape(flat.shape)
    highest = F.max_pool2d(flat.masked_fill(absent, -torch.inf), 3, stride=1, padding=1)
    lowest = -F.max_pool2d((-flat).masked_fill(absent, -torch.inf), 3, stride=1, padding=1)
    return (highest - lowest).reshape(depth.shape), present


def zbuffer(
    uv: Tensor,
    z: Tensor,
    image_size: tuple[int, int],
    point_size: int = 1,
    near: float = NEAR,
) -> Tensor:
    """Depth map of the points themselves, for scans that come without one.

    Every pixel holds the smallest z of all points whose ``point_size`` x ``point_size`` square
    covers it (a scatter-min, so the order of the points does not matter).

    Args:
        uv: (..., N, 2) pixels.
        z: (..., N) z-depth in metres.
        image_size: (H, W) of the image and of the result.
        point_size: odd side of a point's square in pixels; large enough to close the gaps
            between neighbouring points of a surface.
        near: points nearer than this (metres) are left out.

    Returns:
        (..., H, W) metres, 0 where no point falls.

    Example:
        >>> uv = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 1.0]])
        >>> zbuffer(uv, torch.tensor([3.0, 2.0, 4.0]), (2, 4))
        tensor([[0., 2., 0., 0.],
                [0., 0., 4., 0.]])
    """
    _check_pixels(uv, z)
    _check_point_size(point_size)
    height, width = check_image_size(image_size)

    # A margin takes the points outside the image whose squares reach into it.
    margin = point_size // 2
    padded = (height + 2 * margin, width + 2 * margin)
    column, row = ((uv + 0.5).floor() + margin).unbind(-1)
    drawn = (column >= 0) & (column < padded[1]) & (row >= 0) & (row < padded[0])
    drawn = drawn & (z > near) & (z < torch.inf)
    index = (row * padded[1] + column).masked_fill(~drawn, 0).long()
    depth = z.new_full((*z.shape[:-1], padded[0] * padded[1]), torch.inf)
    depth = depth.scatter_reduce(-1, index, z.masked_fill(~drawn, torch.inf), 'amin')

    if margin:
        # The least depth over a window equals drawing every point as a square.
        depth = -F.max_pool2d(
            -depth.reshape(z.shape[:-1].numel(), 1, *padded), point_size, stride=1
        )
    depth = depth.reshape(*z.shape[:-1], height, width)
    return depth.masked_fill(depth == torch.inf, 0)


def majority_instance(view: Tensor, segment: Tensor, instance: Tensor) -> Tensor:
    """Mask-aware projection: which pairs show the 2D instance that their segment mostly shows.

    The pairs of one 3D segment in one view vote with the 2D instance id at their pixel; the id
    with the most votes wins, the smaller id when votes are equal. A pair counts only when its
    pixel has the winning id. Id 0 is an id like any other. A negative id or segment means
    unknown: such a pair does not vote and is kept.

    Args:
        view: (P,) integer view of each visible pair.
        segment: (P,) integer 3D segment (superpoint or instance) of its point.
        instance: (P,) integer 2D instance id at its pixel.

    Returns:
        (P,) bool, True for the pairs to keep.

    Example:
        >>> view, segment = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 0, 0, 1])
        >>> majority_instance(view, segment, instance=torch.tensor([7, 7, 4, 4]))
        tensor([ True,  True, False,  True])
    """
    known = (segment >= 0) & (instance >= 0)
    keep = ~known

    # one group per (view, segment), one candidate per (group, id)
    groups = torch.stack((view[known].long(), segment[known].long()), dim=1)
    group = torch.unique(groups, dim=0, return_inverse=True)[1]
    ids, id_of_pair = torch.unique(instance[known].long(), return_inverse=True)
    candidate, candidate_of_pair, votes = torch.unique(
        group * max(1, len(ids)) + id_of_pair, return_inverse=True, return_counts=True
    )
    group_of_candidate = candidate // max(1, len(ids))
    num_groups = int(group.max()) + 1 if len(group) else 0
    most = votes.new_zeros(num_groups).scatter_reduce(0, group_of_candidate, votes, 'amax')

    # Candidates are sorted by group and id: of those with the most votes the first one wins.
    order = torch.arange(len(candidate), device=view.device)
    order = order.masked_fill(votes < most[group_of_candidate], len(candidate))
    winner = order.new_full((num_groups,), len(candidate))
    winner = winner.scatter_reduce(0, group_of_candidate, order, 'amin')
    return keep.masked_scatter(known, candidate_of_pair == winner[group])


def check_one_depth(depth: Tensor | None, visibility: Visibility) -> None:
    """ValueError for a z-buffer wanted beside depth maps."""
    if visibility.occlusion == 'zbuffer' and depth is not None:
        raise ValueError("occlusion='zbuffer' is for views without depth; depth was given")


def _cell(coordinate: Tensor, num_cells: int, num_pixels: int) -> Tensor:
    """Cell of a map that a pixel coordinate falls in, clamped; not-a-number falls in cell 0."""
    cell = ((coordinate + 0.5) * (num_cells / num_pixels)).floor()
    return cell.nan_to_num(0.0).clamp(0, num_cells - 1).long()


def _check_pixels(uv: Tensor, z: Tensor) -> None:
    if tuple(uv.shape) != (*z.shape, 2):
        raise ValueError(
            f'uv: expected (..., N, 2) beside z (..., N), got {tuple(uv.shape)} and '
            f'{tuple(z.shape)}'
        )


def _check_map(name: str, maps: Tensor, z: Tensor) -> None:
    if maps.shape[:-2] != z.shape[:-1]:
        raise ValueError(
            f'{name} must have the leading dimensions of z {tuple(z.shape)}, '
            f'got {tuple(maps.shape)}'
        )
