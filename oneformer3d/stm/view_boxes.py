"""Masks over superpoints → where each query is in every view, and how much of it is visible there.

Enters: the points, superpoints and ``PosedViews`` of a sample (``DecoderScene``), and weights of
superpoints for each query (Q, S). Leaves: ``ViewBoxes``: centre, scale and ratio in every view, and
the share of the query's points that are visible there.

Letters: N points, S superpoints, V views, Q queries, P visible pairs.

Everything a box needs are sums over points, so the sums of superpoints are made once per sample and
a query's are a product of its weights with them: no point is touched again.

A box takes a query's points as spread evenly: its side is √12 standard deviations. In mode 'extent'
the 3D centre and the 3D covariance are projected, the covariance through the derivative of the
projection at the centre (as Gaussians are splatted, Zwicker et al., EWA, 2001). In mode 'pixels'
mean and variance are those of the pixels of the visible points, so that what hides a part of the
query moves the box to the rest.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from oneformer3d.lifting.camera import invert_pose
from oneformer3d.lifting.shapes import expect_shape
from oneformer3d.lifting.visibility import NEAR
from oneformer3d.structures import DecoderScene

MODES = ('extent', 'pixels')
SIDE = math.sqrt(12.0)  # of a uniform distribution, in standard deviations
LEAST_SIDE = 2.0  # pixels; a superpoint of one point has no extent


@dataclass(frozen=True)
class ViewBoxes:
    """Queries in views.

    Attributes:
        xyzr: (Q, V, 4) centre u, v (pixels of the image), log2 of the scale in pixels and log2 of
            height over width; finite everywhere.
        visible: (Q, V) 0…1, the share of the query's points that the view sees; 0 where its
            centre is not in front of the camera.
    """

    xyzr: Tensor
    visible: Tensor


@dataclass(frozen=True)
class SuperpointViews:
    """Sums over the points of each superpoint; coordinates relative to an origin, for precision.

    Attributes:
        count: (S,) points.
        first: (S, 3) sums of coordinates.
        second: (S, 9) sums of their products.
        origin: (3,) metres.
        visible: (S, V) visible points.
        pixels: (S, V, 4) sums of u, v, u², v² of them, relative to the middle of the image.
        world_from_cam: (V, 4, 4) camera to the coordinates of the points.
        intrinsics: (V, 3, 3), or None.
        image_size: (H, W).
    """

    count: Tensor
    first: Tensor
    second: Tensor
    origin: Tensor
    visible: Tensor
    pixels: Tensor
    world_from_cam: Tensor
    intrinsics: Tensor | None
    image_size: tuple[int, int]

    @property
    def middle(self) -> Tensor:
        """(2,) pixel (u, v) in the middle of the image."""
        height, width = self.image_size
        return self.first.new_tensor([(width - 1) / 2, (height - 1) / 2])


@torch.no_grad()
def superpoint_views(scene: DecoderScene) -> SuperpointViews:
    """Sums of every superpoint of a sample with views.

    Raises:
        ValueError: views of other points, or superpoints that are not one for each point.
    """
    views, ids = scene.views, scene.superpoints
    if views is None:
        raise ValueError('the sample has no views')
    num_points = len(scene.points)
    if views.num_points != num_points or len(ids) != num_points:
        raise ValueError(
            f'{views.scene_id or "sample"}: {num_points} points, but superpoints of {len(ids)} '
            f'and views of {views.num_points}'
        )
    num_superpoints = int(ids.max()) + 1

    # 3D: count, Σ x, Σ x xᵀ of each superpoint's points, relative to the mean for precision
    xyz = scene.points[:, :3].float()
    origin = xyz.mean(0)
    xyz = xyz - origin
    products = (xyz[:, :, None] * xyz[:, None]).flatten(1)  # (N, 9)
    columns = torch.cat((torch.ones_like(xyz[:, :1]), xyz, products), dim=1)
    sums = columns.new_zeros(num_superpoints, 13).index_add_(0, ids, columns)  # (S, 13)

    # pixels: count, Σ u, Σ u² of its visible points in each view, relative to the middle
    height, width = views.image_size
    middle = xyz.new_tensor([(width - 1) / 2, (height - 1) / 2])
    uv = views.pairs.uv.to(xyz) - middle
    cell = ids[views.pairs.point] * views.num_views + views.pairs.view
    columns = torch.cat((torch.ones_like(uv[:, :1]), uv, uv.square()), dim=1)
    pixels = columns.new_zeros(num_superpoints * views.num_views, 5).index_add_(0, cell, columns)
    pixels = pixels.unflatten(0, (num_superpoints, views.num_views))  # (S, V, 5)

    intrinsics = views.intrinsics
    if intrinsics is not None:
        intrinsics = intrinsics.to(xyz).expand(views.num_views, 3, 3)

    return SuperpointViews(
        count=sums[:, 0],
        first=sums[:, 1:4],
        second=sums[:, 4:],
        origin=origin,
        visible=pixels[..., 0],
        pixels=pixels[..., 1:],
        world_from_cam=views.augmented_from_cam.to(xyz),
        intrinsics=intrinsics,
        image_size=views.image_size,
    )


@torch.no_grad()
def query_boxes(weights: Tensor, sums: SuperpointViews, mode: str = 'extent') -> ViewBoxes:
    """Boxes of queries in every view.

    Args:
        weights: (Q, S), not negative; of the points of each superpoint.
        sums: of ``superpoint_views``.
        mode: 'extent' or 'pixels', see above.

    Raises:
        ValueError: an unknown mode, weights that are not finite or of other superpoints, or
            views without the intrinsics that 'extent' needs.
    """
    expect_shape('weights', weights, 'Q S', S=len(sums.count))
    if not torch.isfinite(weights).all() or (weights < 0).any():
        raise ValueError('weights: expected finite numbers of 0 or more')
    weights = weights.float()

    num_visible = weights @ sums.visible  # (Q, V)
    total = weights @ sums.count  # (Q,)
    visible = num_visible / total.clamp(min=1e-6)[:, None]
    if mode == 'pixels':
        centre, variance = _pixel_moments(weights, sums, num_visible)
    elif mode == 'extent':
        centre, variance, depth = _projected_moments(weights, sums, total)
        visible = torch.where(depth > NEAR, visible, 0.0)
    else:
        raise ValueError(f'mode: expected one of {MODES}, got {mode!r}')
    visible = visible.clamp(max=1.0)

    # the side of a uniform distribution is √12 standard deviations
    most = 2.0 * max(sums.image_size)
    side = (SIDE * variance.clamp(min=0).sqrt()).clamp(LEAST_SIDE, most)
    log_width, log_height = side.log2().unbind(-1)

    # Boxes that no view sees are never read; they only have to be numbers.
    centre = torch.where(visible[..., None] > 0, centre, sums.middle)
    centre = centre.clamp(-4 * most, 4 * most)

    scale, ratio = (log_width + log_height) / 2, log_height - log_width
    return ViewBoxes(torch.cat((centre, scale[..., None], ratio[..., None]), -1), visible)


def encode_boxes(boxes: ViewBoxes, sums: SuperpointViews, canvas: tuple[int, int]) -> Tensor:
    """(Q, V, 4) x, y, z, r on a canvas (H', W') that the pyramid's strides refer to, edge-based.

    The image lies on the whole canvas; its pixel u is at ``(u + 0.5) W' / W``.
    """
    scale_y, scale_x = (to / from_ for to, from_ in zip(canvas, sums.image_size))
    xyzr = boxes.xyzr
    centre = (xyzr[..., :2] + 0.5) * xyzr.new_tensor([scale_x, scale_y])
    scale = xyzr[..., 2:3] + (math.log2(scale_x) + math.log2(scale_y)) / 2
    ratio = xyzr[..., 3:] + math.log2(scale_y) - math.log2(scale_x)
    return torch.cat((centre, scale, ratio), dim=-1)


def _pixel_moments(
    weights: Tensor, sums: SuperpointViews, num_visible: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance (Q, V, 2) of the visible pixels."""
    num_superpoints, num_views = sums.visible.shape
    moments = (weights @ sums.pixels.reshape(num_superpoints, -1)).view(-1, num_views, 4)
    moments = moments / num_visible.clamp(min=1e-6)[..., None]
    mean = moments[..., :2]
    return mean + sums.middle, moments[..., 2:] - mean.square()


def _projected_moments(
    weights: Tensor, sums: SuperpointViews, total: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Projected 3D centre, variance along u and v (Q, V, 2), and depth of the centre (Q, V)."""
    if sums.intrinsics is None:
        raise ValueError("views have no intrinsics, which boxes of mode 'extent' need")

    total = total.clamp(min=1e-6)[:, None]
    mean = weights @ sums.first / total
    covariance = (weights @ sums.second / total).unflatten(1, (3, 3))
    covariance = covariance - mean[:, :, None] * mean[:, None]  # (Q, 3, 3)

    cam_from_world = invert_pose(sums.world_from_cam)
    rotation = cam_from_world[:, :3, :3]  # with the scale and mirror of an augmentation
    centre = torch.einsum('vij,qj->qvi', rotation, mean + sums.origin) + cam_from_world[:, :3, 3]
    depth = centre[..., 2]
    safe = depth.clamp(min=NEAR)
    ray = centre / safe[..., None]  # x / z, y / z, 1
    centre_uv = torch.einsum('vij,qvj->qvi', sums.intrinsics[:, :2], ray)

    # d(x / z) = (R_0 - x / z R_2) / z, likewise for y; u and v are linear in these two.
    slopes = rotation[:, :2] - ray[..., :2, None] * rotation[:, 2:]
    slopes = torch.einsum('vij,qvjk->qvik', sums.intrinsics[:, :2, :2], slopes)
    slopes = slopes / safe[..., None, None]

    # var(u) = J Σ Jᵀ
    variance = torch.einsum('qvik,qkl,qvil->qvi', slopes, covariance, slopes)
    return centre_uv, variance, depth
