"""Depth maps drawn from the cloud itself, for scans whose images come without any.

Enters: points (N, 3) in metres or a mapping that holds them under 'pos', cameras of images of
``image_shape`` (H, W). Leaves: z-depth (H, W) or (V, H, W) in metres, 0 where no point falls.
"""

from collections.abc import Mapping

from torch import Tensor

from .chunks import DEFAULT_BYTE_BUDGET
from .inputs import camera_views, check_points
from .pairs import zbuffer_views
from .visibility import ABS_TOL, NEAR, REL_TOL, drop_depth_edges


def render_depth_from_pointcloud(
    points: Tensor | Mapping[str, Tensor],
    intrinsics: Tensor,
    extrinsics: Tensor,
    image_shape: tuple[int, int],
    convention: str = 'opencv',
    *,
    point_size: int = 3,
    near: float = NEAR,
    drop_edges: bool = False,
    abs_tol: float = ABS_TOL,
    rel_tol: float = REL_TOL,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> Tensor:
    """Nearest z-depth of all points whose square covers a pixel.

    Squares that are too small leave gaps through which the far side shows; too large, they
    widen what is near over its surroundings. ``drop_edges`` takes the second error back: beside a
    jump in depth nothing is known, and a depth test rejects there.

    Args:
        points: (N, 3) world coordinates in metres, or a mapping with them under 'pos'; rows that
            are not finite are left out.
        intrinsics: (3, 3) or (V, 3, 3) of the image.
        extrinsics: (4, 4) or (V, 4, 4) camera to world.
        image_shape: (H, W) of the image and of the result.
        convention: 'opencv' or 'opengl' axes of ``extrinsics``. The intrinsics are OpenCV's in
            both, and so is the result: positive depth, first row on top.
        point_size: odd side of a point's square in pixels.
        near: points nearer than this (metres) are left out.
        drop_edges: set pixels on a depth edge to 0, see ``drop_depth_edges``.
        abs_tol: step in metres that makes an edge.
        rel_tol: step as a share of the depth.
        byte_budget: bytes for temporary values.

    Returns:
        (H, W), or (V, H, W) for V views, of the points' type. The depth has no gradient in the
        pixel that a point falls in, but it has one in the point's depth.

    Raises:
        ValueError: shapes that do not fit, a camera that cannot project, an even point size.
        KeyError: a mapping without 'pos'.
    """
    if isinstance(points, Mapping):
        if 'pos' not in points:
            raise KeyError(f"the point cloud has no 'pos', only {sorted(points)}")
        points = points['pos']
    points = check_points(points)
    camera, single = camera_views(intrinsics, extrinsics, image_shape, convention)
    depth = zbuffer_views(points, camera, point_size, near, byte_budget)
    if drop_edges:
        depth = drop_depth_edges(depth, abs_tol, rel_tol)
    return depth[0] if single else depth
