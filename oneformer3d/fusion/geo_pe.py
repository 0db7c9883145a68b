"""Where a point is, in the room and for its camera: 64 raw numbers.

Enters: points (N, 3) of one scene and camera poses (V, 4, 4) in the same frame. Leaves: (N, 64).
N points, V views.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer3d.lifting.extent import bulk_extent
from oneformer3d.lifting.shapes import expect_shape

GEO_PE_CHANNELS = 64
_NUM_FREQUENCIES = 8


def build_geo_pe(
    points: Tensor, extrinsics: Tensor | None = None, view_of_point: Tensor | None = None
) -> Tensor:
    """The 64 raw numbers of a point's geometric encoding; the encoder's MLP takes them to 32.

    With p the point relative to the centre of the cloud's bounding box, in metres:

    ======= ====================================================================================
    channel content
    ======= ====================================================================================
    0–2     p
    3–26    sin(2^k p) for k = 0 … 7, three numbers for each k
    27–50   cos(2^k p), likewise
    51–53   size of the bounding box along x, y, z in metres
    54–56   centre of the point's camera minus the point, in metres
    57–62   directions of that camera's x axis and y axis in the points' frame, unit vectors
            (the 6-d rotation of Zhou et al., CVPR 2019)
    63      height above the lowest point of the bulk in metres
    ======= ====================================================================================

    Channels 54–62 are 0 for points that no camera sees. Everything but the height and the box
    is unchanged when points and cameras move together. Points and cameras have to be in one
    frame, so an augmentation moves both.

    Args:
        points: (N, 3) of one scene in metres.
        extrinsics: (4, 4) camera to world of the one camera, (V, 4, 4) of V, or None.
        view_of_point: (N,) int64, the camera of each point, −1 for none (``nearest_view``).
            None gives every point the one camera.

    Returns:
        (N, 64) of the points' type.

    Example:
        >>> points = torch.tensor([[0.0, 0.0, 0.0], [2.0, 4.0, 1.0]])
        >>> pose = torch.eye(4)
        >>> pose[:3, 3] = torch.tensor([1.0, 0.0, 1.0])
        >>> pe = build_geo_pe(points, pose)
        >>> pe.shape
        torch.Size([2, 64])
        >>> pe[:, :3]  # relative to the centre of the box
        tensor([[-1.0000, -2.0000, -0.5000],
                [ 1.0000,  2.0000,  0.5000]])
        >>> pe[1, 51:57]  # size of the box, then camera minus point
        tensor([ 2.,  4.,  1., -1., -4.,  0.])
        >>> pe[:, 63]  # height
        tensor([0., 1.])
    """
    expect_shape('points', points, 'N 3')
    if len(points) == 0:
        return points.new_zeros(0, GEO_PE_CHANNELS)

    low, high = bulk_extent(points)  # (3,)
    centred = points - (low + high) / 2  # (N, 3)
    box_size = (high - low).expand(len(points), 3)
    height = points[:, 2:] - low[2]

    # sin(2^k p), cos(2^k p)
    frequencies = 2.0 ** torch.arange(_NUM_FREQUENCIES, device=points.device, dtype=points.dtype)
    phases = (centred[:, None] * frequencies[:, None]).flatten(1)  # (N, 24)

    pose = _relative_pose(points, extrinsics, view_of_point)  # (N, 9)
    return torch.cat((centred, phases.sin(), phases.cos(), box_size, pose, height), dim=1)


def _relative_pose(
    points: Tensor, extrinsics: Tensor | None, view_of_point: Tensor | None
) -> Tensor:
    """(N, 9): offset to the camera centre and the camera's x and y axes; 0 without a camera."""
    if extrinsics is None:
        return points.new_zeros(len(points), 9)
    poses = extrinsics.to(points).reshape(-1, *extrinsics.shape[-2:])
    expect_shape('extrinsics', poses, 'V 4 4')
    if view_of_point is None:
        if len(poses) != 1:
            raise ValueError(f'{len(poses)} cameras need view_of_point')
        view_of_point = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    expect_shape('view_of_point', view_of_point, 'N', N=len(points))
    if len(poses) == 0:
        return points.new_zeros(len(points), 9)

    # an augmentation's scale is no part of the direction
    axes = F.normalize(poses[:, :3, :2].transpose(1, 2), dim=-1).flatten(1)  # (V, 6)
    view = view_of_point.clamp(min=0)
    pose = torch.cat((poses[view, :3, 3] - points, axes[view]), dim=1)  # (N, 9)
    return torch.where((view_of_point >= 0)[:, None], pose, 0.0)
