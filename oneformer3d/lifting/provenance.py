"""Where a point's lifted feature came from: which views and pixels, and why not the others.

Enters: points (N, 3) in metres, V cameras, depth maps or none, weights (V, N). Leaves:
``Provenance``, for every point and view its pixel, depth, weight and one named reason.

The tests are those of ``visible_mask``, told apart: what counts here as ``SEEN`` is what lifting
reads.
"""

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from typing import TypedDict

import torch
from torch import Tensor

from .depth_render import zbuffer_views
from .inputs import Views, check_points, checked_views
from .shapes import expect_shape
from .visibility import (
    Visibility,
    check_one_depth,
    depth_agrees,
    drop_depth_edges,
    in_frustum,
    nearest_pixel,
)


class Reason(IntEnum):
    """Why a view does or does not contribute to a point; the first that holds is named.

    Example:
        >>> Reason(6).name
        'OCCLUDED'
    """

    SEEN = 0  # contributes
    NOT_FINITE = 1  # the point has a coordinate that is not a number
    BEHIND = 2  # behind the camera, or nearer than it sees
    OUTSIDE = 3  # in front, but beside the image
    NO_DEPTH = 4  # the depth map is empty at its pixel
    DEPTH_EDGE = 5  # at its pixel near and far mix
    OCCLUDED = 6  # the measured surface lies in front of it
    BEFORE_SURFACE = 7  # it lies in front of the measured surface, in empty space
    NO_WEIGHT = 8  # visible, but its weight is 0


class PointInView(TypedDict):
    """One point in one view: pixel (u, v), metres, share of the feature; None for no meaning."""

    view: int
    reason: str
    uv: tuple[float, float] | None
    depth_z: float | None
    measured: float | None
    weight: float


@dataclass(frozen=True)
class Provenance:
    """Sources of N points in V views.

    Attributes:
        reason: (V, N) uint8 ``Reason``.
        uv: (V, N, 2) pixel, meaningless unless the point is in front and finite.
        depth_z: (V, N) the point's z-depth in metres.
        measured: (V, N) depth in metres at its pixel, 0 for missing, outside or untested.
        weight: (V, N) share of the point's feature, adding up to 1 over its views or 0.

    Example:
        >>> one = torch.ones(1, 1)
        >>> traced = Provenance(0 * one.byte(), torch.zeros(1, 1, 2), 2 * one, 0 * one, one)
        >>> traced.of_point(0)[0]['reason'], traced.summary()['seen']
        ('seen', 1)
    """

    reason: Tensor
    uv: Tensor
    depth_z: Tensor
    measured: Tensor
    weight: Tensor

    @property
    def seen(self) -> Tensor:
        """(V, N) bool: what contributes."""
        return self.reason == Reason.SEEN

    def of_point(self, row: int) -> list[PointInView]:
        """Every view of one point, the heaviest first: view, reason, uv, depth_z, measured, weight.

        Values that mean nothing are None.

        Raises:
            IndexError: no such point.
        """
        if not 0 <= row < self.reason.shape[1]:
            raise IndexError(f'point {row} of {self.reason.shape[1]}')
        entries = []
        for view in range(len(self.reason)):
            reason = Reason(int(self.reason[view, row]))
            placed = reason not in (Reason.NOT_FINITE, Reason.BEHIND)  # its pixel means something
            measured = float(self.measured[view, row])

            u, v = self.uv[view, row].tolist()
            entries.append(
                PointInView(
                    view=view,
                    reason=reason.name.lower(),
                    uv=(u, v) if placed else None,
                    depth_z=float(self.depth_z[view, row]) if placed else None,
                    measured=measured if measured > 0 else None,
                    weight=float(self.weight[view, row]),
                )
            )

        return sorted(entries, key=lambda entry: (-entry['weight'], entry['view']))

    def summary(self) -> dict[str, int]:
        """How many (point, view) pairs each reason has, by name; reasons without pairs too."""
        counts = Counter(self.reason.flatten().tolist())
        return {reason.name.lower(): counts.get(int(reason), 0) for reason in Reason}


@torch.no_grad()
def trace_sources(
    points: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    image_shape: tuple[int, int],
    depth: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    cloud: Tensor | None = None,
    visibility: Visibility = Visibility(),
    depth_intrinsics: Tensor | None = None,
) -> Provenance:
    """Say for every point and view what lifting does with it.

    Give the points in question, not a whole scan: the result is (V, N).

    Args:
        points: (N, 3) metres.
        intrinsics: (3, 3) or (V, 3, 3) of the image.
        extrinsics: (4, 4) or (V, 4, 4) camera to world.
        image_shape: (H, W).
        depth: (h, w) or (V, h, w) metres, or None.
        weights: (V, N) not negative, for example ``compute_feature_confidence``; None is 1.
        cloud: (M, 3) drawn in the z-buffer, when ``points`` are only some of it.
        visibility: what counts as visible.
        depth_intrinsics: of the depth maps, where they are of a camera of their own; a point
            beside the depth map then has no depth.

    Raises:
        ValueError: shapes that do not fit, or cameras that cannot project.

    Example:
        >>> K = torch.tensor([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
        >>> points = torch.tensor([[0.0, 0, 1], [0, 0, 3], [0, 0, -1], [1, 0, 1]])
        >>> traced = trace_sources(points, K, torch.eye(4), (48, 64), depth=torch.ones(48, 64))
        >>> [Reason(value).name for value in traced.reason[0].tolist()]
        ['SEEN', 'OCCLUDED', 'BEHIND', 'OUTSIDE']
    """
    points = check_points(points)
    views = checked_views(intrinsics, extrinsics, image_shape, depth, depth_intrinsics)
    camera, depth = views.camera.to(points.device, points.dtype), views.depth
    check_one_depth(depth, visibility)
    if visibility.occlusion == 'zbuffer':
        cloud = points if cloud is None else check_points(cloud)
        depth = zbuffer_views(cloud, camera, visibility)
    uv, z = camera.project(points)  # (V, N, 2), (V, N)

    weight = torch.ones_like(z) if weights is None else weights.to(z)
    weight = weight[None] if views.single and weight.ndim == 1 else weight
    expect_shape('weights', weight, 'V N', V=len(views), N=len(points))

    # every fault that holds, the one that is named last
    inside = in_frustum(uv[..., 0], uv[..., 1], z, camera.image_size, visibility.near)
    faults = [(Reason.NO_WEIGHT, ~(weight > 0))]
    measured = torch.zeros_like(z)
    if depth is not None:
        measured, depth_faults = _test_depth(points, uv, z, inside, views, depth, visibility)
        faults += depth_faults
    faults += [
        (Reason.OUTSIDE, ~inside),
        (Reason.BEHIND, ~(z > visibility.near)),
        (Reason.NOT_FINITE, ~points.isfinite().all(-1).expand_as(z)),
    ]
    reason = torch.full(z.shape, Reason.SEEN, dtype=torch.uint8, device=z.device)
    for value, fault in faults:
        reason = reason.masked_fill(fault, int(value))

    weight = torch.where(reason == Reason.SEEN, weight, 0.0)
    total = weight.sum(0)
    return Provenance(reason, uv, z, measured, weight / torch.where(total > 0, total, 1.0))


def _test_depth(
    points: Tensor,
    uv: Tensor,
    z: Tensor,
    inside: Tensor,
    views: Views,
    depth: Tensor,
    visibility: Visibility,
) -> tuple[Tensor, list[tuple[Reason, Tensor]]]:
    """Measured depth at each pixel (V, N) of the maps (V, h, w), and what speaks against it."""
    (u, v), size, beside = uv.unbind(-1), views.camera.image_size, ~inside
    if views.depth_camera is not None:
        depth_camera = views.depth_camera.to(points.device, points.dtype)
        (u, v), size = depth_camera.project(points)[0].unbind(-1), depth_camera.image_size
        beside = ~in_frustum(u, v, z, size, visibility.near)

    found = nearest_pixel(depth, u, v, size).to(z.dtype)
    present = (found > 0) & (found < torch.inf) & ~beside
    disagrees = ~depth_agrees(found, z, visibility)
    faults = [
        (Reason.BEFORE_SURFACE, disagrees & (z < found)),
        (Reason.OCCLUDED, disagrees & (z > found)),
    ]
    if visibility.edge_reject:
        smooth = drop_depth_edges(depth, visibility)
        faults.append((Reason.DEPTH_EDGE, nearest_pixel(smooth, u, v, size) <= 0))
    faults.append((Reason.NO_DEPTH, ~present))
    return torch.where(inside & present, found, 0.0), faults
