"""Depth of views that have none, drawn from the scan's own points.

A scan and photos of it are enough: its points say how far each pixel looks.

Enters: a ``FieldScene`` without depth but with ``points``. Leaves: the scene with depth maps, 0
where no point falls and beside jumps in depth.

Letters: N points, H × W pixels.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from oneformer3d.lifting import Camera
from oneformer3d.lifting.visibility import NEAR, in_frustum, nearest_pixel, zbuffer

from .scene import FieldScene, ViewContent

_MAX_HALF = 15  # pixels, of a square's side
_SAMPLE = 20_000  # points that tell the spacing
_MOST_SPACING = 0.15  # metres; what lies farther apart says nothing of what is between
_TRIED = 4  # views that tell whether there are enough points
_LEAST_KNOWN = 1 / 3  # of their pixels
_NEIGHBOURS = 4  # points that a pixel's depth is the mean of
_SAME = 0.03  # of the depth: on one surface
_SPAN = 3.0  # times the spacing: as far apart in depth may neighbours be that lie on a slope


def with_drawn_depth(scene: FieldScene) -> FieldScene:
    """The scene with depth of its points in every view.

    It is returned as it is where it has depth, and where its points tell the depth of less than
    a third of the pixels: around so few, most of the scene would count as empty.
    """
    if scene.has_depth or scene.points is None:
        return scene
    points = scene.points.xyz
    spacing = min(point_spacing(points), _MOST_SPACING)

    def drawn(view: int, content: ViewContent) -> Tensor:
        return draw_depth(points, scene.view_camera(view, content), spacing)

    def read(view: int) -> ViewContent:
        content = scene.read(view)
        return replace(content, depth=drawn(view, content))

    tried = {round(k * (len(scene) - 1) / (_TRIED - 1)) for k in range(_TRIED)}
    known = [float((drawn(view, scene.read(view)) > 0).float().mean()) for view in tried]
    if sum(known) < _LEAST_KNOWN * len(known):
        return scene
    return replace(scene, read=read, has_depth=True)


def draw_depth(points: Tensor, camera: Camera, spacing: float) -> Tensor:
    """Z-depth (H, W) of the surface that points lie on, 0 where unknown.

    A pixel takes the mean of the visible points around it, of 1/z, which is linear in the pixel on
    a plane. It knows nothing where they are far off or do not lie on one surface.

    Args:
        points: (N, 3) world coordinates in metres.
        camera: of one view.
        spacing: metres between neighbouring points.
    """
    uv, z = camera.project(points)  # (N, 2), (N,)
    nearest = _nearest_depth(uv, z, camera, spacing)  # (H, W)
    u, v = uv.unbind(-1)
    limit = nearest_pixel(nearest, u, v, camera.image_size) * (1 + _SAME) + spacing
    visible = in_frustum(u, v, z, camera.image_size) & (z <= limit)
    uv, z = uv[visible], z[visible]
    if len(z) < _NEIGHBOURS:
        return torch.zeros(camera.image_size)

    height, width = camera.image_size
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2)
    distance, index = map(torch.from_numpy, KDTree(uv.numpy()).query(pixels, k=_NEIGHBOURS))

    # 1/d = Σ w / z / Σ w, w = 1 / (distance² + ½)
    around = z[index]  # (H·W, K)
    weights = (1 / (distance**2 + 0.5)).to(z)
    depth = weights.sum(-1) / (weights / around).sum(-1)  # (H·W,)
    reach = spacing * float(camera.intrinsics[1, 1]) / depth  # pixels
    one_surface = around.amax(-1) - around.amin(-1) <= _SPAN * spacing + _SAME * depth
    known = one_surface & (distance[:, 0] <= reach)
    return torch.where(known, depth, 0).view(height, width)


def _nearest_depth(uv: Tensor, z: Tensor, camera: Camera, spacing: float) -> Tensor:
    """Depth (H, W) of points as squares that shrink with distance, which hide what is behind."""
    ahead = z > NEAR
    uv, z = uv[ahead], z[ahead]
    focal = float(camera.intrinsics[1, 1])
    depth = torch.full(camera.image_size, torch.inf)

    # one size of squares for each doubling of the distance
    band = torch.log2(z).floor().int()
    for power in band.unique().tolist():
        half = math.ceil((spacing * focal / 2.0**power - 1) / 2)
        size = 2 * min(max(half, 0), _MAX_HALF) + 1  # odd, so that it has a middle
        within = band == power
        drawn = zbuffer(uv[within], z[within], camera.image_size, size, NEAR)
        depth = torch.minimum(depth, drawn.masked_fill(drawn == 0, torch.inf))
    return depth.masked_fill(depth == torch.inf, 0)


def point_spacing(points: Tensor) -> float:
    """Median distance (metres) from a point of (N, 3) to its fourth neighbour, of a sample.

    On a surface that is the step of a grid, and ``1.1 / √density`` of random points.

    Example:
        >>> grid = torch.arange(10.0)
        >>> point_spacing(0.5 * torch.cartesian_prod(grid, grid, torch.zeros(1)))
        0.5
    """
    xyz = points[torch.isfinite(points).all(-1)].numpy()
    if len(xyz) <= _NEIGHBOURS:
        return 0.0
    rows = np.random.default_rng(0).permutation(len(xyz))[:_SAMPLE]
    distances, _ = KDTree(xyz).query(xyz[rows], k=_NEIGHBOURS + 1)  # itself is the first
    return float(np.median(distances[:, -1]))
