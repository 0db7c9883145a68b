"""Depth maps drawn from the cloud itself, for scans whose images come without any.

Enters: points (N, 3) in metres or a mapping that holds them under 'pos', cameras of images (H, W).
Leaves: z-depth (H, W) or (V, H, W) in metres, 0 where no point falls.
"""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from .camera import Camera
from .chunks import DEFAULT_BYTE_BUDGET, num_rows, ranges
from .inputs import camera_views, check_points
from .visibility import Visibility, drop_depth_edges, zbuffer

# Bytes that one (point, view) takes while a chunk is projected and tested; measured.
BYTES_PER_TEST = 64


def render_depth_from_pointcloud(
    points: Tensor | Mapping[str, Tensor],
    intrinsics: Tensor,
    extrinsics: Tensor,
    resolution: tuple[int, int],
    convention: str = 'opencv',
    *,
    visibility: Visibility = Visibility(),
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> Tensor:
    """Nearest z-depth of all points whose square covers a pixel.

    Squares that are too small leave gaps through which the far side shows; too large, they
    widen what is near over its surroundings. ``edge_reject`` takes the second error back: beside
    a jump in depth nothing is known, and a depth test rejects there.

    Args:
        points: (N, 3) world coordinates in metres, or a mapping with them under 'pos'; rows that
            are not finite are left out.
        intrinsics: (3, 3) or (V, 3, 3) of the image.
        extrinsics: (4, 4) or (V, 4, 4) camera to world.
        resolution: (W, H) of the image, width first as cameras are sold; the result is (H, W).
            Where the intrinsics' centre tells that the two are swapped, a warning says so.
        convention: 'opencv' or 'opengl' axes of ``extrinsics``. The intrinsics are OpenCV's in
            both, and so is the result: positive depth, first row on top.
        visibility: ``point_size`` and ``near`` of the points drawn; with ``edge_reject``, pixels
            on a depth edge are 0.
        byte_budget: bytes for temporary values.

    Returns:
        (H, W), or (V, H, W) for V views, of the points' type. The depth has no gradient in the
        pixel that a point falls in, but it has one in the point's depth.

    Raises:
        ValueError: shapes that do not fit, a camera that cannot project.
        KeyError: a mapping without 'pos'.

    Example:
        >>> points = torch.tensor([[1.0, 0, 1], [2.0, 0, 2]])  # one behind the other
        >>> render_depth_from_pointcloud(points, torch.eye(3), torch.eye(4), (3, 2))
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """
    if isinstance(points, Mapping):
        if 'pos' not in points:
            raise KeyError(f"the point cloud has no 'pos', only {sorted(points)}")
        points = points['pos']
    points = check_points(points)
    width, height = resolution
    camera, single = camera_views(intrinsics, extrinsics, (height, width), convention)
    _warn_if_swapped(camera)
    depth = zbuffer_views(points, camera, visibility, byte_budget)
    if visibility.edge_reject:
        depth = drop_depth_edges(depth, visibility)
    return depth[0] if single else depth


def zbuffer_views(
    points: Tensor,
    camera: Camera,
    visibility: Visibility = Visibility(),
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> Tensor:
    """Depth maps (..., H, W) in metres of the points themselves, see ``zbuffer``; 0 for none.

    A resized camera makes a coarser map with fewer gaps, which ``project_pairs`` takes too.

    Args:
        points: (..., N, 3) metres; leading dimensions broadcast against the camera's.
        camera: cameras (...).
        visibility: ``point_size`` and ``near`` are read.
        byte_budget: bytes for temporary values.

    Example:
        >>> camera = Camera(torch.eye(3), torch.eye(4)[None], (2, 3))
        >>> points = torch.tensor([[1.0, 0, 1], [2.0, 0, 2]])  # one behind the other
        >>> zbuffer_views(points, camera, Visibility(point_size=1))
        tensor([[[0., 1., 0.],
                 [0., 0., 0.]]])
    """
    camera = camera.to(points.device, points.dtype)
    lead = torch.broadcast_shapes(points.shape[:-2], camera.batch_shape)
    depth = points.new_full((*lead, *camera.image_size), torch.inf)
    size = num_rows(max(1, lead.numel()) * BYTES_PER_TEST, byte_budget, points.device)
    for begin, end in ranges(points.shape[-2], size):
        uv, z = camera.project(points[..., begin:end, :])
        drawn = zbuffer(uv, z, camera.image_size, visibility.point_size, visibility.near)
        depth = torch.minimum(depth, drawn.masked_fill(drawn == 0, torch.inf))
    return depth.masked_fill(depth == torch.inf, 0)


def _warn_if_swapped(camera: Camera) -> None:
    """Say so where the intrinsics' centre is in the middle of the image only after (H, W)."""
    height, width = camera.image_size
    centre = camera.intrinsics.detach()[..., :2, 2].reshape(-1, 2)
    if height == width or len(centre) == 0:
        return

    size = centre.new_tensor([width, height])
    off = ((centre + 0.5) / size - 0.5).abs().amax()
    off_swapped = ((centre + 0.5) / size.flip(0) - 0.5).abs().amax()
    if off_swapped < 0.05 < off:
        warnings.warn(
            f'resolution is (width, height), got {(width, height)}: the centre of the intrinsics '
            f'suggests {(height, width)}',
            stacklevel=3,
        )
