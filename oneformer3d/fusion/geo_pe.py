"""Geometric encoding of what a view sees: 64 raw numbers per point.

Enters: points in the camera's frame, poses. Leaves: (V, N, 64). V views, N points.
"""

import torch
from torch import Tensor, nn

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
    63      height above the lowest point in metres
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
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f'points must be (N, 3), got {tuple(points.shape)}')
    if len(points) == 0:
        return points.new_zeros(0, GEO_PE_CHANNELS)
    low, high = points.amin(0), points.amax(0)
    centred = points - (low + high) / 2
    frequencies = 2.0 ** torch.arange(_NUM_FREQUENCIES, device=points.device, dtype=points.dtype)
    phases = (centred[:, None] * frequencies[:, None]).flatten(1)
    box_size = (high - low).expand(len(points), 3)
    pose = _relative_pose(points, extrinsics, view_of_point)
    height = points[:, 2:] - low[2]
    return torch.cat((centred, phases.sin(), phases.cos(), box_size, pose, height), dim=1)


def _relative_pose(
    points: Tensor, extrinsics: Tensor | None, view_of_point: Tensor | None
) -> Tensor:
    """(N, 9): offset to the camera centre and the camera's x and y axes; 0 where unseen."""
    if extrinsics is None:
        return points.new_zeros(len(points), 9)
    poses = extrinsics.to(points).reshape(-1, *extrinsics.shape[-2:])
    if tuple(poses.shape[1:]) != (4, 4):
        raise ValueError(f'extrinsics must be (4, 4) or (V, 4, 4), got {tuple(extrinsics.shape)}')
    if view_of_point is None:
        if len(poses) != 1:
            raise ValueError(f'{len(poses)} cameras need view_of_point')
        view_of_point = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    if tuple(view_of_point.shape) != (len(points),):
        raise ValueError(
            f'view_of_point must be ({len(points)},), got {tuple(view_of_point.shape)}'
        )
    if len(poses) == 0:
        return points.new_zeros(len(points), 9)
    # An augmentation's scale is no part of the direction.
    axes = nn.functional.normalize(poses[:, :3, :2].transpose(1, 2), dim=-1).flatten(1)
    seen = (view_of_point >= 0)[:, None]
    view = view_of_point.clamp(min=0)
    pose = torch.cat((poses[view, :3, 3] - points, axes[view]), dim=1)
    return torch.where(seen, pose, 0.0)
