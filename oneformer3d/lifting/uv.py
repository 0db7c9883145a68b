"""Pixels of points and map values at pixels, under their documented names.

Enters: points in metres, intrinsics, ``extrinsics`` (camera to world), feature maps. Leaves: pixels
(x, y) with their validity, sampled features. B batch, V views, N points, C channels.
"""

from torch import Tensor

from .camera import Camera
from .chunks import DEFAULT_BYTE_BUDGET
from .pairs import project_visible
from .sampling import sample_map
from .shapes import expect_shape
from .visibility import Visibility


def build_uv_index(
    points: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    image_size: tuple[int, int] | None = None,
    depth: Tensor | None = None,
    *,
    visibility: Visibility = Visibility(),
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> tuple[Tensor, Tensor]:
    """Pixel of every point in one image, and whether the image sees it there.

    Args:
        points: (N, 3) world coordinates in metres.
        intrinsics: (3, 3) of the image.
        extrinsics: (4, 4) camera to world.
        image_size: (H, W) of the image; without it nothing says where the image ends, and an
            error asks for it.
        depth: (h, w) metres of the same field of view, 0 for missing; None tests the frustum
            alone.
        visibility: what counts as valid.
        byte_budget: bytes for temporary values.

    Returns:
        uv (N, 2) pixels (x, y), with the centre of the top-left pixel at (0, 0), and valid (N,)
        bool. Pixels of points that are not valid are finite and mean nothing.

    Example:
        >>> import torch
        >>> K = torch.tensor([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
        >>> points = torch.tensor([[0.0, 0, 1], [0.1, 0, 1], [0, 0, -1]])
        >>> uv, valid = build_uv_index(points, K, torch.eye(4), (48, 64))
        >>> uv[valid]
        tensor([[31.5000, 23.5000],
                [41.5000, 23.5000]])
    """
    image_size = _given(image_size)
    expect_shape('points', points, 'N 3')
    expect_shape('intrinsics', intrinsics, '3 3')
    return build_uv_index_batch(
        points,
        intrinsics,
        extrinsics,
        image_size,
        depth,
        visibility=visibility,
        byte_budget=byte_budget,
    )


def build_uv_index_batch(
    points: Tensor,
    intrinsics: Tensor,
    extrinsics: Tensor,
    image_size: tuple[int, int] | None = None,
    depth: Tensor | None = None,
    *,
    visibility: Visibility = Visibility(),
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
        visibility: what counts as valid.
        byte_budget: bytes for temporary values.

    Returns:
        uv (..., N, 2) and valid (..., N) with the cameras' leading dimensions.

    Example:
        >>> import torch
        >>> K = torch.tensor([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
        >>> poses = torch.eye(4).repeat(2, 1, 1)
        >>> poses[1, 0, 3] = 0.5  # half a metre to the right
        >>> uv, valid = build_uv_index_batch(torch.tensor([[0.0, 0, 1]]), K, poses, (48, 64))
        >>> valid.tolist()
        [[True], [False]]
    """
    camera = Camera(intrinsics, extrinsics, _given(image_size))
    num_lead = len(camera.batch_shape)
    if num_lead == points.ndim - 1:
        points = points.unsqueeze(-3)  # (..., 1, N, 3)
    elif num_lead != points.ndim - 2:
        raise ValueError(
            f'points {tuple(points.shape)} do not fit cameras {tuple(camera.batch_shape)}'
        )

    uv, _, valid = project_visible(
        points, camera, depth, visibility=visibility, byte_budget=byte_budget
    )
    return uv, valid


def sample_img_feat(
    feat_map: Tensor,
    uv: Tensor,
    image_size: tuple[int, int] | None = None,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> Tensor:
    """Bilinear features of a map of any stride at pixels of the image that it covers.

    Args:
        feat_map: (C, h, w), or (1, C, h, w) with uv (N, 2), or (B, C, h, w) with uv (B, N, 2).
        uv: (N, 2) or (B, N, 2) pixels (x, y) of an image of ``image_size``.
        image_size: (H, W) that uv belongs to; an error asks for it.
        byte_budget: bytes for temporary values.

    Returns:
        (N, C) or (B, N, C), float32 (float64 for float64 maps). Pixels outside the image read
        its border: mask them with ``valid``.

    Example:
        >>> import torch
        >>> columns = torch.arange(4.0).expand(1, 3, 4)  # a quarter of the image's resolution
        >>> sample_img_feat(columns, torch.tensor([[1.5, 0.0], [7.5, 0.0]]), (12, 16))
        tensor([[0.0000],
                [1.5000]])
    """
    image_size = _given(image_size)
    if feat_map.ndim == 4 and uv.ndim == 2:
        if feat_map.shape[0] != 1:
            raise ValueError(
                f'one set of pixels {tuple(uv.shape)} needs one map, got {tuple(feat_map.shape)}'
            )
        feat_map = feat_map[0]
    return sample_map(feat_map, uv, image_size, byte_budget=byte_budget)


def _given(image_size: tuple[int, int] | None) -> tuple[int, int]:
    if image_size is None:
        raise ValueError(
            'give image_size=(H, W) of the image that the intrinsics and pixels belong to; '
            'a feature map has a size of its own'
        )
    return image_size
