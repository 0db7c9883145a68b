"""Pinhole camera: world points to pixels and depth maps back to world points.

Enters: points (..., N, 3) in metres, intrinsics (..., 3, 3), poses ``world_from_cam`` (..., 4, 4).
Leaves: pixels (..., N, 2) as (u, v) = (column, row) with z-depth (..., N), or points (..., H, W,
    3).

OpenCV axes: x right, y down, z forward. The centre of the top-left pixel is (0, 0), so an image
covers [-0.5, W - 0.5) x [-0.5, H - 0.5). ``intrinsics`` always belong to the image they are given
with. Leading dimensions (batch, views) broadcast. Only torch is used here.

Small products are written out as sums: their results then depend neither on how many points are
projected at once, nor on autocast or TF32, which would round a matrix product's pixels.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .shapes import expect_shape

# Depths nearer to the camera plane than this are pushed away from zero before the division, so
# that pixels and gradients stay finite; such points are never visible.
_MIN_ABS_DEPTH = 1e-6


@dataclass(frozen=True)
class Camera:
    """One pinhole camera, or a batch of them that share an image size.

    Attributes:
        intrinsics: (..., 3, 3) of the image.
        world_from_cam: (..., 4, 4) camera to world, metres.
        image_size: (H, W) of the image the intrinsics belong to.

    Example:
        >>> K = torch.tensor([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
        >>> camera = Camera(K, torch.eye(4), (48, 64))
        >>> camera.project(torch.tensor([[0.1, 0.0, 2.0]]))
        (tensor([[36.5000, 23.5000]]), tensor([2.]))
        >>> camera.resize((24, 32)).project(torch.tensor([[0.1, 0.0, 2.0]]))[0]
        tensor([[18.0000, 11.5000]])
    """

    intrinsics: Tensor
    world_from_cam: Tensor
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        expect_shape('intrinsics', self.intrinsics, '... 3 3')
        expect_shape('world_from_cam', self.world_from_cam, '... 4 4')
        check_image_size(self.image_size)

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions, for example (V,) for V views and () for a single camera."""
        return torch.broadcast_shapes(self.intrinsics.shape[:-2], self.world_from_cam.shape[:-2])

    def __getitem__(self, index: int | slice | Tensor) -> 'Camera':
        """Cameras picked along the first batch dimension."""
        shape = self.batch_shape
        if not shape:
            raise ValueError('a single camera has no batch dimension to index')
        return replace(
            self,
            intrinsics=self.intrinsics.expand(*shape, 3, 3)[index],
            world_from_cam=self.world_from_cam.expand(*shape, 4, 4)[index],
        )

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (..., N, 2) and z-depth (..., N) of world points; see ``project``."""
        expect_shape('points', points, '... 3')
        u, v, depth_z = project_coordinates(points, self.intrinsics, self.world_from_cam)
        return torch.stack((u, v), dim=-1), depth_z

    def unproject(self, depth: Tensor) -> Tensor:
        """World points (..., H, W, 3) of a depth map of this image; see ``unproject``.

        Raises:
            ValueError: the depth map has another size; resize the camera first.
        """
        height, width = self.image_size
        expect_shape('depth', depth, '... H W', H=height, W=width)
        return unproject(depth, self.intrinsics, self.world_from_cam)

    def resize(self, size: tuple[int, int]) -> 'Camera':
        """The camera of the whole image resized to (H', W'), both axes on their own."""
        intrinsics = resize_intrinsics(self.intrinsics, self.image_size, size)
        return replace(self, intrinsics=intrinsics, image_size=tuple(size))

    def crop(self, top: int, left: int, height: int, width: int) -> 'Camera':
        """The camera of a window of the image; one that reaches outside it is a padding."""
        first, second, last = self.intrinsics.unbind(-2)
        intrinsics = torch.stack((first - left * last, second - top * last, last), dim=-2)
        return replace(self, intrinsics=intrinsics, image_size=(height, width))

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> 'Camera':
        """The camera on another device or in another floating point type."""
        return replace(
            self,
            intrinsics=self.intrinsics.to(device=device, dtype=dtype),
            world_from_cam=self.world_from_cam.to(device=device, dtype=dtype),
        )


def project(points: Tensor, intrinsics: Tensor, world_from_cam: Tensor) -> tuple[Tensor, Tensor]:
    """Project world points into an image: ``z [u, v, 1]^T = K cam_from_world [x, y, z, 1]^T``.

    Nothing is clipped: a point behind the camera has ``depth_z <= 0`` and a meaningless (finite)
    pixel, one outside the image a pixel outside it. Visibility is for the caller to decide.

    Args:
        points: (..., N, 3) world coordinates in metres.
        intrinsics: (..., 3, 3) of the image.
        world_from_cam: (..., 4, 4) camera to world. It may carry the scale or mirror of an
            augmentation (``augmented_from_world @ world_from_cam``); depth is then still in the
            camera's own metres.

    Returns:
        Pixels (..., N, 2) as (u, v), and z-depth (..., N) in metres.

    Example:
        >>> K = torch.tensor([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
        >>> uv, depth_z = project(torch.tensor([[0.0, 0, 1], [0.1, 0, 1]]), K, torch.eye(4))
        >>> uv
        tensor([[31.5000, 23.5000],
                [41.5000, 23.5000]])
    """
    expect_shape('points', points, '... 3')
    expect_shape('intrinsics', intrinsics, '... 3 3')
    expect_shape('world_from_cam', world_from_cam, '... 4 4')
    u, v, depth_z = project_coordinates(points, intrinsics, world_from_cam)
    return torch.stack((u, v), dim=-1), depth_z


def project_coordinates(
    points: Tensor, intrinsics: Tensor, world_from_cam: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """``project`` with its three outputs apart, unchecked: u, v and depth_z, each (..., N)."""
    m = invert_pose(world_from_cam)[..., None]  # (..., 4, 4, 1)
    k = intrinsics[..., None]
    x, y, z = points.movedim(-1, 0).contiguous().unbind(0)

    # p_cam = R p + t
    x_cam, y_cam, depth_z = (
        m[..., i, 0, :] * x + m[..., i, 1, :] * y + m[..., i, 2, :] * z + m[..., i, 3, :]
        for i in range(3)
    )

    # u = (fx·X + s·Y)/Z + cx, v = fy·Y/Z + cy
    away_from_zero = torch.where(depth_z < 0, -_MIN_ABS_DEPTH, _MIN_ABS_DEPTH).to(depth_z)
    safe_z = torch.where(depth_z.abs() < _MIN_ABS_DEPTH, away_from_zero, depth_z)
    x_ray, y_ray = x_cam / safe_z, y_cam / safe_z
    u, v = (k[..., i, 0, :] * x_ray + k[..., i, 1, :] * y_ray + k[..., i, 2, :] for i in range(2))
    return u, v, depth_z


def unproject(depth: Tensor, intrinsics: Tensor, world_from_cam: Tensor) -> Tensor:
    """Lift every pixel of a depth map to world coordinates.

    Missing depth (0) lands on the camera centre: mask those pixels with ``depth > 0``.

    Args:
        depth: (..., H, W) sensor z-depth in metres.
        intrinsics: (..., 3, 3) of the depth image.
        world_from_cam: (..., 4, 4) camera to world.

    Returns:
        World points (..., H, W, 3) in metres, of the depth's dtype.

    Example:
        >>> K = torch.tensor([[2.0, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
        >>> unproject(torch.full((2, 2), 4.0), K, torch.eye(4))[0]
        tensor([[-1., -1.,  4.],
                [ 1., -1.,  4.]])
    """
    expect_shape('intrinsics', intrinsics, '... 3 3')
    height, width = expect_shape('depth', depth, '... H W')[-2:]
    if not depth.is_floating_point():
        raise ValueError(f'depth must be floating point, got {depth.dtype}')
    u, v = pixel_grid((height, width), depth)

    # p_cam = z · K⁻¹ [u, v, 1]ᵀ
    inverse = torch.linalg.inv(intrinsics)[..., None]
    rays = [
        inverse[..., i, 0, :] * u + inverse[..., i, 1, :] * v + inverse[..., i, 2, :]
        for i in range(3)
    ]
    points_cam = torch.stack(rays, dim=-1) * depth.flatten(-2)[..., None]  # (..., H·W, 3)
    return transform_points(world_from_cam, points_cam).unflatten(-2, (height, width))


def pixel_grid(size: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Column u and row v of every pixel of an image (H, W), row by row: two (H·W,) vectors."""
    v, u = torch.meshgrid(
        torch.arange(size[0], dtype=like.dtype, device=like.device),
        torch.arange(size[1], dtype=like.dtype, device=like.device),
        indexing='ij',
    )
    return u.flatten(), v.flatten()


def transform_points(b_from_a: Tensor, points: Tensor) -> Tensor:
    """Apply an affine (..., 4, 4) to points (..., N, 3).

    Example:
        >>> b_from_a = torch.eye(4)
        >>> b_from_a[:3, 3] = torch.tensor([1.0, 2, 3])
        >>> transform_points(b_from_a, torch.tensor([[0.0, 0, 1]]))
        tensor([[1., 2., 4.]])
    """
    expect_shape('b_from_a', b_from_a, '... 4 4')
    columns = b_from_a[..., None, :3, :]
    return (
        points[..., 0:1] * columns[..., 0]
        + points[..., 1:2] * columns[..., 1]
        + points[..., 2:3] * columns[..., 2]
        + columns[..., 3]
    )


def invert_pose(a_from_b: Tensor) -> Tensor:
    """Inverse (..., 4, 4) of an affine whose last row is (0, 0, 0, 1).

    The 3x3 part is inverted, not transposed, so poses with an augmentation's scale or mirror are
    inverted exactly too.

    Example:
        >>> pose = torch.eye(4)
        >>> pose[:3, 3] = torch.tensor([1.0, 2, 3])
        >>> invert_pose(pose)[:3, 3]
        tensor([-1., -2., -3.])
    """
    expect_shape('a_from_b', a_from_b, '... 4 4')
    # [R t; 0 1]⁻¹ = [R⁻¹ −R⁻¹t; 0 1]
    inverse = torch.linalg.inv(a_from_b[..., :3, :3])
    translation = -(inverse * a_from_b[..., None, :3, 3]).sum(-1, keepdim=True)
    return torch.cat((torch.cat((inverse, translation), dim=-1), a_from_b[..., 3:, :]), dim=-2)


def resize_intrinsics(
    intrinsics: Tensor, size_from: tuple[int, int], size_to: tuple[int, int]
) -> Tensor:
    """Intrinsics (..., 3, 3) of the same image resized from (H, W) to (H', W'); a new tensor.

    Example:
        >>> K = torch.tensor([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
        >>> resize_intrinsics(K, (48, 64), (24, 32))
        tensor([[50.0000,  0.0000, 15.5000],
                [ 0.0000, 50.0000, 11.5000],
                [ 0.0000,  0.0000,  1.0000]])
    """
    expect_shape('intrinsics', intrinsics, '... 3 3')
    if min(*size_from, *size_to) <= 0:
        raise ValueError(f'image sizes must be positive, got {size_from} and {size_to}')
    scale_v, scale_u = (to / from_ for to, from_ in zip(size_to, size_from))
    # the rule of ``resize_pixels`` as a matrix: [s, 0, s/2 − 1/2] K
    return torch.stack(
        (
            intrinsics[..., 0, :] * scale_u + intrinsics[..., 2, :] * (0.5 * scale_u - 0.5),
            intrinsics[..., 1, :] * scale_v + intrinsics[..., 2, :] * (0.5 * scale_v - 0.5),
            intrinsics[..., 2, :],
        ),
        dim=-2,
    )


def resize_pixels(uv: Tensor, size_from: tuple[int, int], size_to: tuple[int, int]) -> Tensor:
    """Pixels (..., 2) of an image (H, W) as pixels of the same image resized to (H', W').

    Example:
        >>> resize_pixels(torch.tensor([[-0.5, -0.5], [63.5, 47.5]]), (48, 64), (12, 16))
        tensor([[-0.5000, -0.5000],
                [15.5000, 11.5000]])
    """
    u, v = uv.unbind(-1)
    return torch.stack(
        (
            resize_coordinate(u, size_from[1], size_to[1]),
            resize_coordinate(v, size_from[0], size_to[0]),
        ),
        dim=-1,
    )


def resize_coordinate(coordinate: Tensor, num_from: int | Tensor, num_to: int | Tensor) -> Tensor:
    """One axis of ``resize_pixels``, from an axis of so many pixels to one of ``num_to``."""
    # u' = (u + ½)·W'/W − ½: both images cover [−½, size − ½)
    return (coordinate + 0.5) * (num_to / num_from) - 0.5


def is_valid_pose(pose: Tensor, tolerance: float = 1e-3) -> bool:
    """Whether a (4, 4) pose is a finite rigid motion: orthonormal, det +1, last row (0, 0, 0, 1).

    Scanners mark lost tracking with inf or nan; such frames have to be dropped.

    Example:
        >>> is_valid_pose(torch.eye(4)), is_valid_pose(2 * torch.eye(4))
        (True, False)
    """
    expect_shape('pose', pose, '4 4')
    return bool(valid_poses(pose, tolerance))


def valid_poses(poses: Tensor, tolerance: float = 1e-3) -> Tensor:
    """``is_valid_pose`` of poses (..., 4, 4): (...) bool."""
    poses = poses.double()
    identity = torch.eye(4, dtype=poses.dtype, device=poses.device)
    finite = torch.isfinite(poses).all(-1).all(-1)  # (...)
    poses = torch.where(finite[..., None, None], poses, identity)

    rotation = poses[..., :3, :3]
    # R Rᵀ = 1, det R = 1, last row (0, 0, 0, 1)
    skew = (rotation @ rotation.mT - identity[:3, :3]).abs().amax((-2, -1))  # (...)
    mirror = (torch.linalg.det(rotation) - 1).abs()
    last_row = (poses[..., 3, :] - identity[3]).abs().amax(-1)
    return finite & (skew <= tolerance) & (mirror <= tolerance) & (last_row <= tolerance)


def check_image_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """The (H, W) as given, or ValueError when it is not two positive numbers."""
    if len(image_size) != 2 or min(image_size) <= 0:
        raise ValueError(f'image_size must be a positive (H, W), got {tuple(image_size)}')
    return image_size
