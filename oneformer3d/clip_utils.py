"""Helpers of the CLIP branch under their documented names, thin over ``lifting``.

In: points in metres, OpenCV cameras (``extrinsics`` is camera to world), CLIP feature maps, the
visual tower of an ``open_clip`` model. Out: pixels and validity of points, sampled features,
the 64 raw numbers of the geometric encoding, and a tower that trains only its last blocks.
B batch, V views, N points, C channels.
"""

import torch
from torch import Tensor, nn

from .lifting.camera import Camera
from .lifting.chunks import DEFAULT_BYTE_BUDGET
from .lifting.pairs import project_visible
from .lifting.sampling import sample_map
from .lifting.visibility import ABS_TOL, NEAR, REL_TOL

GEO_PE_CHANNELS = 64
_NUM_FREQUENCIES = 8


def build_uv_index(
    points: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    image_size: tuple[int, int],
    depth: Tensor | None = None,
    *,
    near: float = NEAR,
    abs_tol: float = ABS_TOL,
    rel_tol: float = REL_TOL,
    edge_reject: bool = False,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> tuple[Tensor, Tensor]:
    """Pixel of every point in one image, and whether the image sees it there.

    Args:
        points: (N, 3) world coordinates in metres.
        intrinsics: (3, 3) of the image.
        extrinsics: (4, 4) camera to world.
        image_size: (H, W) of the image.
        depth: (h, w) metres of the same field of view, 0 for missing; None tests the frustum
            alone.
        near: nearest valid z-depth in metres.
        abs_tol: tolerance of the depth test in metres.
        rel_tol: tolerance of the depth test as a share of the measured depth.
        edge_reject: also reject pixels on a depth edge.
        byte_budget: bytes for temporary values.

    Returns:
        uv (N, 2) pixels (x, y), with the centre of the top-left pixel at (0, 0), and valid (N,)
        bool. Pixels of points that are not valid are finite and mean nothing.
    """
    for name, tensor, ndim in (('points', points, 2), ('intrinsics', intrinsics, 2)):
        if tensor.ndim != ndim:
            raise ValueError(f'{name} must have {ndim} dimensions, got {tuple(tensor.shape)}')
    return build_uv_index_batch(
        points,
        intrinsics,
        extrinsics,
        image_size,
        depth,
        near=near,
        abs_tol=abs_tol,
        rel_tol=rel_tol,
        edge_reject=edge_reject,
        byte_budget=byte_budget,
    )


def build_uv_index_batch(
    points: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    image_size: tuple[int, int],
    depth: Tensor | None = None,
    *,
    near: float = NEAR,
    abs_tol: float = ABS_TOL,
    rel_tol: float = REL_TOL,
    edge_reject: bool = False,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> tuple[Tensor, Tensor]:
    """``build_uv_index`` for a batch of clouds, many views, or both at once.

    Cameras with one leading dimension more than the points are that many views of each cloud:

    ========== ============== ================
    points     cameras        uv
    ========== ============== ================
    (N, 3)     (V, …)         (V, N, 2)
    (B, N, 3)  (B, …)         (B, N, 2)
    (B, N, 3)  (B, V, …)      (B, V, N, 2)
    ========== ============== ================

    Args:
        points: (N, 3) or (B, N, 3) world coordinates in metres.
        intrinsics: (..., 3, 3); may lack leading dimensions that all cameras share.
        extrinsics: (..., 4, 4) camera to world.
        image_size: (H, W) of all images.
        depth: (..., h, w) metres beside the cameras, or None.
        near: as in ``build_uv_index``, and so are the arguments below.
        abs_tol: metres.
        rel_tol: share of the measured depth.
        edge_reject: also reject pixels on a depth edge.
        byte_budget: bytes for temporary values.

    Returns:
        uv (..., N, 2) and valid (..., N) with the cameras' leading dimensions.
    """
    camera = Camera(intrinsics, extrinsics, image_size)
    num_lead = len(camera.batch_shape)
    if num_lead == points.ndim - 1:
        points = points.unsqueeze(-3)
    elif num_lead != points.ndim - 2:
        raise ValueError(
            f'points {tuple(points.shape)} do not fit cameras {tuple(camera.batch_shape)}'
        )
    uv, _, valid = project_visible(
        points,
        camera,
        depth,
        near=near,
        abs_tol=abs_tol,
        rel_tol=rel_tol,
        edge_reject=edge_reject,
        byte_budget=byte_budget,
    )
    return uv, valid


def sample_img_feat(
    feat_map: Tensor,
    uv: Tensor,
    image_size: tuple[int, int],
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> Tensor:
    """Bilinear features of a map of any stride at pixels of the image that it covers.

    Args:
        feat_map: (C, h, w), or (1, C, h, w) with uv (N, 2), or (B, C, h, w) with uv (B, N, 2).
        uv: (N, 2) or (B, N, 2) pixels (x, y) of an image of ``image_size``.
        image_size: (H, W) that uv belongs to.
        byte_budget: bytes for temporary values.

    Returns:
        (N, C) or (B, N, C), float32 (float64 for float64 maps). Pixels outside the image read
        its border: mask them with ``valid``.
    """
    if feat_map.ndim == 4 and uv.ndim == 2:
        if feat_map.shape[0] != 1:
            raise ValueError(
                f'one set of pixels {tuple(uv.shape)} needs one map, got {tuple(feat_map.shape)}'
            )
        feat_map = feat_map[0]
    return sample_map(feat_map, uv, image_size, byte_budget=byte_budget)


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


def freeze_clip_except_last_blocks(visual: nn.Module, num_train_blocks: int = 0) -> None:
    """Freeze an ``open_clip`` visual tower except its last residual blocks, in place.

    Frozen parameters need no gradient, and frozen parts stay in eval mode (batch norm keeps its
    statistics, patches are not dropped) even when the model around them calls ``.train()``.
    Embeddings, norms, projections and attention pooling outside the blocks are always frozen.

    Args:
        visual: a ViT (``transformer.resblocks``), a ``ModifiedResNet`` (``layer1`` … ``layer4``)
            or a timm tower with ``trunk.blocks``.
        num_train_blocks: how many of the last blocks train; 0 freezes everything.

    Raises:
        TypeError: a tower without such blocks.
        ValueError: more blocks than there are.
    """
    blocks = _residual_blocks(visual)
    if not 0 <= num_train_blocks <= len(blocks):
        raise ValueError(
            f'num_train_blocks must be between 0 and {len(blocks)}, got {num_train_blocks}'
        )
    visual.requires_grad_(False)
    trained = blocks[len(blocks) - num_train_blocks :]
    for block in trained:
        block.requires_grad_(True)
    visual.train = _TrainOnly(visual, trained)
    visual.train(visual.training)


class _TrainOnly:
    """Stands in for ``module.train``: only the given blocks follow the mode.

    An object and not a closure, so that the module can still be pickled and copied.
    """

    def __init__(self, module: nn.Module, blocks: list[nn.Module]) -> None:
        self.module = module
        self.blocks = blocks

    def __call__(self, mode: bool = True) -> nn.Module:
        type(self.module).train(self.module, False)
        for block in self.blocks:
            block.train(mode)
        return self.module


def _residual_blocks(visual: nn.Module) -> list[nn.Module]:
    """Residual blocks of a visual tower from input to output."""
    if hasattr(visual, 'transformer') and hasattr(visual.transformer, 'resblocks'):
        return list(visual.transformer.resblocks)
    if all(hasattr(visual, f'layer{i}') for i in range(1, 5)):
        return [block for i in range(1, 5) for block in getattr(visual, f'layer{i}')]
    if hasattr(visual, 'trunk') and hasattr(visual.trunk, 'blocks'):
        return list(visual.trunk.blocks)
    raise TypeError(f'{type(visual).__name__} has no residual blocks known here')
