"""Small corrections of the cameras that are learnt with a field, for poses that are not exact.

Enters: a rotation vector in radians and a shift in metres for each of V learnt views, (V, 6), both
along the world's axes. Leaves: rays and cameras that are moved by them. A camera turns about its
own centre. The mean of all corrections is held at nothing, since a field that moves with all of its
cameras would show the same.

Letters: V views, R rays.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from oneformer3d.lifting import Camera
from oneformer3d.lifting.shapes import expect_shape

from ..rendering.rays import Rays


def corrected_rays(rays: Rays, corrections: Tensor, row: Tensor) -> Rays:
    """Rays moved by the corrections (V, 6) of their views.

    Args:
        rays: R.
        corrections: of the learnt views.
        row: (R,) view of each ray among them.
    """
    rotation, shift = _motions(corrections)
    directions = (rotation[row] @ rays.directions[..., None])[..., 0]  # (R, 3)
    return replace(rays, origins=rays.origins + shift[row], directions=directions)


def corrected_camera(camera: Camera, corrections: Tensor, views: Sequence[int]) -> Camera:
    """The camera with the poses of some views corrected.

    Args:
        camera: of all views.
        corrections: (V, 6).
        views: V indices of the views they belong to.
    """
    expect_shape('corrections', corrections, 'V 6', V=len(views))
    rotation, shift = (x.detach().to(camera.world_from_cam) for x in _motions(corrections))
    poses, rows = camera.world_from_cam.clone(), torch.tensor(views)
    poses[rows, :3, :3] = rotation @ poses[rows, :3, :3]
    poses[rows, :3, 3] = poses[rows, :3, 3] + shift
    return replace(camera, world_from_cam=poses)


def rotation_matrix(vector: Tensor) -> Tensor:
    """Rotation vectors (…, 3) in radians → matrices (…, 3, 3), ``exp([ω]×)``.

    Example:
        >>> rotation_matrix(torch.tensor([0.0, 0.0, torch.pi / 2])).round(decimals=3).abs()
        tensor([[0., 1., 0.],
                [1., 0., 0.],
                [0., 0., 1.]])
    """
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = ((zero, -z, y), (z, zero, -x), (-y, x, zero))
    cross = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # (…, 3, 3)
    return torch.linalg.matrix_exp(cross)


def _motions(corrections: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations (V, 3, 3) and shifts (V, 3) with a mean of nothing."""
    turn, shift = (corrections - corrections.mean(0)).split(3, dim=-1)
    return rotation_matrix(turn), shift
