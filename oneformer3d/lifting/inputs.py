"""What callers hand over, checked and brought into one form: views, feature maps, points.

Enters: points, intrinsics, camera-to-world poses and feature maps of one view, without a leading
dimension, or of V views. Leaves: a ``Camera`` of V views and maps (V, C, h, w), or a ValueError
that names the fault.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from .camera import Camera

# A 3x3 block whose determinant is this small beside its entries has no usable inverse.
_SINGULAR = 1e-6
CONVENTIONS = ('opencv', 'opengl')


def camera_views(
    intrinsics: Tensor,
    extrinsics: Tensor,
    image_shape: tuple[int, int],
    convention: str = 'opencv',
) -> tuple[Camera, bool]:
    """Cameras of V views, and whether one view without a leading dimension was given.

    Args:
        intrinsics: (3, 3), or (V, 3, 3).
        extrinsics: (4, 4) or (V, 4, 4) camera to world, metres. One of the two may lack the
            leading dimension: all views then share it.
        image_shape: (H, W) of the image that the intrinsics belong to.
        convention: 'opencv' (z forward, y down) or 'opengl' (z backward, y up) axes of the poses.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a focal length of zero, a
            pose that cannot be inverted, or an unknown convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f'convention must be one of {CONVENTIONS}, got {convention!r}')
    for name, matrix, side in (('intrinsics', intrinsics, 3), ('extrinsics', extrinsics, 4)):
        if matrix.ndim not in (2, 3) or tuple(matrix.shape[-2:]) != (side, side):
            raise ValueError(
                f'{name} must be ({side}, {side}) or (V, {side}, {side}), got {tuple(matrix.shape)}'
            )
    single = intrinsics.ndim == 2 and extrinsics.ndim == 2
    counts = [len(x) for x in (intrinsics, extrinsics) if x.ndim == 3]
    if len(set(counts)) > 1:
        raise ValueError(f'{counts[0]} intrinsics but {counts[1]} extrinsics were given')
    num_views = counts[0] if counts else 1
    intrinsics = intrinsics.expand(num_views, 3, 3)
    extrinsics = extrinsics.expand(num_views, 4, 4)
    _check_intrinsics(intrinsics.detach())
    _check_poses(extrinsics.detach())
    if convention == 'opengl':
        extrinsics = opencv_from_opengl(extrinsics)
    return Camera(intrinsics, extrinsics, tuple(image_shape)), single


def opencv_from_opengl(pose: Tensor) -> Tensor:
    """A camera-to-world pose (..., 4, 4) with OpenCV axes, of one with OpenGL's: y and z turned.

    Its own inverse.
    """
    return pose * pose.new_tensor([1.0, -1.0, -1.0, 1.0])


def feature_views(
    features: Mapping[str, Tensor], num_views: int, single: bool
) -> dict[str, Tensor]:
    """Feature maps by name, each (V, C, h, w), in the mapping's order.

    Args:
        features: name → (C, h, w) of the single view, or (V, C, h, w).
        num_views: V.
        single: whether the maps have no leading dimension.

    Raises:
        ValueError: no maps, a wrong shape or type, or a value that is not finite; each names the
            map.
    """
    if not isinstance(features, Mapping) or not features:
        raise ValueError('features must be a mapping of at least one name to a feature map')
    views = {}
    for name, maps in features.items():
        if single and maps.ndim == 3:
            maps = maps[None]
        if maps.ndim != 4 or not maps.is_floating_point():
            lead = '' if single else 'V, '
            raise ValueError(
                f'features[{name!r}] must be floating point ({lead}C, h, w), got {maps.dtype} '
                f'{tuple(maps.shape)}'
            )
        if len(maps) != num_views:
            raise ValueError(f'features[{name!r}] holds {len(maps)} views, the cameras {num_views}')
        if min(maps.shape[1:]) < 1:
            raise ValueError(f'features[{name!r}] is empty: {tuple(maps.shape)}')
        _check_finite(f'features[{name!r}]', maps.detach())
        views[name] = maps
    return views


def depth_views(depth: Tensor | None, num_views: int, single: bool) -> Tensor | None:
    """Depth maps (V, h, w), or None as given.

    Raises:
        ValueError: another shape, or not floating point metres.
    """
    if depth is None:
        return None
    if single and depth.ndim == 2:
        depth = depth[None]
    if depth.ndim != 3 or len(depth) != num_views or not depth.is_floating_point():
        raise ValueError(
            f'depth must be floating point metres ({num_views}, h, w), got {depth.dtype} '
            f'{tuple(depth.shape)}'
        )
    if min(depth.shape[1:]) < 1:
        raise ValueError(f'depth is empty: {tuple(depth.shape)}')
    return depth


def own_depth_camera(
    depth: Tensor | None, depth_intrinsics: Tensor | None, extrinsics: Tensor
) -> Camera | None:
    """Views of the depth maps (V, h, w) with intrinsics of their own, or None without any.

    Raises:
        ValueError: intrinsics without depth maps, or as ``camera_views``.
    """
    if depth_intrinsics is None:
        return None
    if depth is None:
        raise ValueError('depth_intrinsics are given without depth')
    size = tuple(depth.shape[-2:])
    return camera_views(depth_intrinsics.detach(), extrinsics.detach(), size)[0]


def check_points(points: Tensor) -> Tensor:
    """Points (N, 3) in float32 or float64; half precision is widened.

    Raises:
        ValueError: another shape or type.
    """
    if points.ndim != 2 or points.shape[1] != 3 or not points.is_floating_point():
        raise ValueError(
            f'points must be floating point (N, 3), got {points.dtype} {tuple(points.shape)}'
        )
    return points if points.dtype == torch.float64 else points.float()


def _check_intrinsics(intrinsics: Tensor) -> None:
    _name_views('intrinsics', 'are not finite', ~intrinsics.isfinite().all(-1).all(-1))
    focal = intrinsics.diagonal(dim1=-2, dim2=-1)[..., :2]
    _name_views('intrinsics', 'have a focal length of zero', (focal == 0).any(-1))


def _check_poses(poses: Tensor) -> None:
    _name_views('extrinsics', 'are not finite', ~poses.isfinite().all(-1).all(-1))
    last_row = poses.new_tensor([0.0, 0.0, 0.0, 1.0])
    wrong = (poses[:, 3] - last_row).abs().amax(-1) > 1e-3
    _name_views('extrinsics', 'do not end in the row (0, 0, 0, 1)', wrong)
    linear = poses[:, :3, :3].double()
    size = linear.flatten(1).norm(dim=1)
    singular = torch.linalg.det(linear).abs() <= _SINGULAR * size**3
    _name_views('extrinsics', 'are singular', singular)


def _name_views(name: str, fault: str, wrong: Tensor) -> None:
    if wrong.any():
        raise ValueError(f'{name} {fault}: view {wrong.nonzero()[:, 0].tolist()}')


def _check_finite(name: str, maps: Tensor) -> None:
    # One pass in the good case: a sum is finite unless a value is not, or it overflowed.
    if maps.sum(dtype=torch.promote_types(maps.dtype, torch.float32)).isfinite():
        return
    wrong = ~maps.isfinite().flatten(1).all(1)
    _name_views(name, 'holds values that are not finite', wrong)
