"""What callers hand over, checked and brought into one form: views, feature maps, points.

Enters: points, intrinsics, camera-to-world poses, depth and feature maps of one view, without a
leading dimension, or of V views. Leaves: ``Views`` and maps (V, C, h, w), or a ValueError that
names the fault.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from .camera import Camera
from .shapes import expect_shape, size_of

# A 3x3 block whose determinant is this small beside its entries has no usable inverse.
_SINGULAR = 1e-6
CONVENTIONS = ('opencv', 'opengl')


@dataclass(frozen=True)
class Views:
    """V cameras and what they measured; made by ``checked_views``.

    Attributes:
        camera: of the images, batch shape (V,).
        depth: (V, h, w) metres, or None.
        depth_camera: of the depth maps, or None where that is ``camera`` resized.
        single: whether one view without a leading dimension was given.
    """

    camera: Camera
    depth: Tensor | None
    depth_camera: Camera | None
    single: bool

    def __len__(self) -> int:
        return self.camera.batch_shape[0]

    @property
    def cameras(self) -> tuple[Camera, Tensor | None, Camera | None]:
        """Camera, depth and depth camera, as ``visible_pairs`` takes them."""
        return self.camera, self.depth, self.depth_camera


def checked_views(
    intrinsics: Tensor,
    extrinsics: Tensor,
    image_shape: tuple[int, int],
    depth: Tensor | None = None,
    depth_intrinsics: Tensor | None = None,
) -> Views:
    """Views of plain tensors.

    Args:
        intrinsics: (3, 3) or (V, 3, 3) of the image.
        extrinsics: (4, 4) or (V, 4, 4) camera to world, metres.
        image_shape: (H, W) of the image that the intrinsics belong to.
        depth: (h, w) of a single view, or (V, h, w), metres; or None.
        depth_intrinsics: of the depth maps at their own size, where those are of a camera of
            their own.

    Raises:
        ValueError: as ``camera_views`` and ``depth_views``, or intrinsics of no depth maps.
    """
    camera, single = camera_views(intrinsics, extrinsics, image_shape)
    depth = depth_views(depth, camera.batch_shape[0], single)
    if depth_intrinsics is None:
        return Views(camera, depth, None, single)
    if depth is None:
        raise ValueError('depth_intrinsics are given without depth')
    depth_camera, _ = camera_views(depth_intrinsics.detach(), extrinsics.detach(), size_of(depth))
    return Views(camera, depth, depth_camera, single)


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
        lead = '' if matrix.ndim == 2 else 'V '
        expect_shape(name, matrix, f'{lead}{side} {side}')

    # one view, V views, or V views that share one of the matrices
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
    height, width = image_shape
    return Camera(intrinsics, extrinsics, (height, width)), single


def opencv_from_opengl(pose: Tensor) -> Tensor:
    """A camera-to-world pose (..., 4, 4) with OpenCV axes, of one with OpenGL's: y and z turned.

    Its own inverse.

    Example:
        >>> opencv_from_opengl(torch.eye(4)).diagonal()
        tensor([ 1., -1., -1.,  1.])
    """
    return pose * pose.new_tensor([1.0, -1.0, -1.0, 1.0])


def feature_views(
    features: Mapping[str, Tensor], num_views: int, single: bool
) -> dict[str, Tensor]:
    """Feature maps by name, each (V, C, h, w), in the mapping's order.

    Args:
        features: name → (C, h, w) of the single view, or (V, C, h, w).
        num_views: V.
        single: whether the maps may lack the leading dimension.

    Raises:
        ValueError: no maps, a wrong shape or type, or a value that is not finite; each names the
            map.
    """
    if not isinstance(features, Mapping) or not features:
        raise ValueError('features must be a mapping of at least one name to a feature map')
    views = {}
    for key, maps in features.items():
        name = f'features[{key!r}]'
        maps = maps[None] if single and maps.ndim == 3 else maps
        expect_shape(name, maps, 'V C h w', V=num_views)
        _check_map(name, maps)
        _check_finite(name, maps.detach())
        views[key] = maps
    return views


@overload
def depth_views(depth: Tensor, num_views: int, single: bool) -> Tensor: ...
@overload
def depth_views(depth: None, num_views: int, single: bool) -> None: ...
def depth_views(depth: Tensor | None, num_views: int, single: bool) -> Tensor | None:
    """Depth maps (V, h, w), or None as given.

    Raises:
        ValueError: another shape, or not floating point metres.
    """
    if depth is None:
        return None
    depth = depth[None] if single and depth.ndim == 2 else depth
    expect_shape('depth', depth, 'V h w', V=num_views)
    _check_map('depth', depth)
    return depth


def check_points(points: Tensor) -> Tensor:
    """Points (N, 3) in float32 or float64; half precision is widened.

    Raises:
        ValueError: another shape or type.
    """
    expect_shape('points', points, 'N 3')
    if not points.is_floating_point():
        raise ValueError(f'points must be floating point, got {points.dtype}')
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


def _check_map(name: str, maps: Tensor) -> None:
    if not maps.is_floating_point():
        raise ValueError(f'{name} must be floating point, got {maps.dtype}')
    if min(maps.shape[1:]) < 1:
        raise ValueError(f'{name} is empty: {tuple(maps.shape)}')


def _check_finite(name: str, maps: Tensor) -> None:
    # One pass in the good case: a sum is finite unless a value is not, or it overflowed.
    if maps.sum(dtype=torch.promote_types(maps.dtype, torch.float32)).isfinite():
        return
    wrong = ~maps.isfinite().flatten(1).all(1)
    _name_views(name, 'holds values that are not finite', wrong)
