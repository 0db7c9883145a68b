"""Feature maps of any number of views and scales to the points they see.

Enters: points (N, 3) in metres, ``features`` {name: (C, h, w)} of one view or {name: (V, C, h, w)}
of V views, the cameras of images of ``image_shape`` (H, W), depth maps or none. Leaves: one row of
all scales' channels for every point (and view), and which of them are visible. N points, V views,
ΣC channels of all scales, P visible (point, view) pairs.

The points are projected once for all views and scales, and only visible pairs are read; the rows
of the others are zeros. Back-projection of image features as in MVPNet (Jaritz, Gu and Su, 2019),
with the depth test that its nearest neighbours stand for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from .camera import resize_coordinate
from .chunks import DEFAULT_BYTE_BUDGET, check_byte_budget, num_rows, ranges
from .inputs import check_points, checked_views, feature_views
from .pairs import PixelPairs, visible_pairs
from .sampling import gather_pairs, sample_map
from .shapes import expect_shape, size_of
from .visibility import Visibility

MODES = ('bilinear', 'nearest', 'bicubic')
PADDING_MODES = ('zeros', 'border', 'reflection')
COMBINE = ('concat', 'sum')
_STAGES = {'res2': 'feat_1/4', 'res3': 'feat_1/8', 'res4': 'feat_1/16', 'res5': 'feat_1/32'}


def lift_features_to_points(
    points_3d: Tensor,
    features_2d: Mapping[str, Tensor],
    # cameras
    camera_intrinsics: Tensor,
    camera_extrinsics: Tensor,
    image_shape: tuple[int, int],
    # what is visible
    depth: Tensor | None = None,
    *,
    depth_intrinsics: Tensor | None = None,
    visibility: Visibility = Visibility(),
    # how maps are read
    mode: str = 'bilinear',
    padding_mode: str = 'zeros',
    combine: str = 'concat',
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> tuple[Tensor, Tensor]:
    """Read every scale of every view at every point that the view sees.

    Differentiable in the features, and, where the mode is not 'nearest', in points, intrinsics
    and extrinsics; which pairs are visible has no gradient.

    Args:
        points_3d: (N, 3) world coordinates in metres; rows that are not finite are never visible.
        features_2d: name → (C, h, w), or (V, C, h, w) for V views, each map of the whole image.
        camera_intrinsics: (3, 3), or (V, 3, 3), of the image.
        camera_extrinsics: (4, 4) or (V, 4, 4) camera to world.
        image_shape: (H, W) of the image.
        depth: (h, w) or (V, h, w) metres, 0 for missing; None tests the frustum alone.
        depth_intrinsics: (3, 3) or (V, 3, 3) of the depth maps at their own size, where those
            are of a camera of their own; None takes the image's, resized.
        visibility: what counts as visible.
        mode: 'bilinear', 'nearest' or 'bicubic'.
        padding_mode: what lies beyond the maps. Pixels outside the image are never read, so this
            is about the half cell between the outermost cell centres and the image's border:
            'border' and 'reflection' hold its values, 'zeros' fades them by up to a half.
        combine: 'concat' puts the scales side by side in the mapping's order, 'sum' adds maps
            of equal width.
        byte_budget: bytes for temporary values; the result comes on top.

    Returns:
        Features (N, ΣC) and visible (N,) bool for one view, (V, N, ΣC) and (V, N) for V views.
        The memory lies point by point, so ``features.transpose(0, 1)`` is contiguous. Rows that
        are not visible are zero.

    Raises:
        ValueError: shapes that do not fit, cameras that cannot project, feature values that are
            not finite, unknown options; the message says which.

    Example:
        >>> K = torch.tensor([[4.0, 0, 3.5], [0, 4, 2.5], [0, 0, 1]])
        >>> points = torch.tensor([[0.0, 0, 1], [0.5, 0, 1], [0, 0, -1]])
        >>> columns = torch.arange(8.0).expand(1, 6, 8)  # each pixel holds its column
        >>> lift_features_to_points(points, {'column': columns}, K, torch.eye(4), (6, 8))
        (tensor([[3.5000],
                [5.5000],
                [0.0000]]), tensor([ True,  True, False]))
    """
    _check_choice('mode', mode, MODES)
    _check_choice('padding_mode', padding_mode, PADDING_MODES)
    points = check_points(points_3d)
    views = checked_views(
        camera_intrinsics, camera_extrinsics, image_shape, depth, depth_intrinsics
    )
    num_points, num_views, size = len(points), len(views), views.camera.image_size
    maps = _scales(feature_views(features_2d, num_views, views.single), combine)
    pairs = visible_pairs(points, *views.cameras, visibility=visibility, byte_budget=byte_budget)

    # A row of the result is a point in a view; ordered by point they come sorted already.
    slots = pairs.point * num_views + pairs.view
    num_slots = num_points * num_views
    if mode == 'bilinear':
        weights = None
        if padding_mode == 'zeros':
            weights = [_fade(pairs.uv, size_of(x), size) for x in maps]
        slotted = replace(pairs, point=slots)
        rows, _ = gather_scales(
            maps, slotted, size, weights, num_slots, 'sum', combine, byte_budget
        )
    else:
        rows = _sample_scales(maps, pairs, size, mode, padding_mode, combine, byte_budget)
        rows = rows.new_zeros(num_slots, rows.shape[1]).index_copy(0, slots, rows)

    visible = slots.new_zeros(num_slots, dtype=torch.bool).index_fill(0, slots, True)
    if views.single:
        return rows, visible
    rows = rows.unflatten(0, (num_points, num_views)).transpose(0, 1)  # (V, N, ΣC)
    return rows, visible.reshape(num_points, num_views).t()


def lift_mean_features(
    points_3d: Tensor,
    features_2d: Mapping[str, Tensor],
    # cameras
    camera_intrinsics: Tensor,
    camera_extrinsics: Tensor,
    image_shape: tuple[int, int],
    # what is visible
    depth: Tensor | None = None,
    *,
    depth_intrinsics: Tensor | None = None,
    visibility: Visibility = Visibility(),
    # how views are combined
    weights: Tensor | None = None,
    combine: str = 'concat',
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> tuple[Tensor, Tensor]:
    """Weighted mean over the views that see a point, with no (V, N, ΣC) value ever made.

    Equals ``lift_features_to_points`` with ``padding_mode='border'`` averaged over its visible
    views; the arguments that the two share are described there.

    Args:
        weights: (V, N), or (N,) for one view, not negative; None weighs every view 1.

    Returns:
        (N, ΣC), zero where no view sees the point, and the sum of the weights (N,).

    Raises:
        ValueError: as ``lift_features_to_points``, and weights of another shape.

    Example:
        >>> K = torch.tensor([[4.0, 0, 3.5], [0, 4, 2.5], [0, 0, 1]])
        >>> poses = torch.eye(4).repeat(2, 1, 1)
        >>> maps = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)  # one cell for each image
        >>> points, weights = torch.tensor([[0.0, 0, 1]]), torch.tensor([[3.0], [1.0]])
        >>> lift_mean_features(points, {'a': maps}, K, poses, (6, 8), weights=weights)
        (tensor([[1.5000]]), tensor([4.]))
    """
    points = check_points(points_3d)
    views = checked_views(
        camera_intrinsics, camera_extrinsics, image_shape, depth, depth_intrinsics
    )
    maps = _scales(feature_views(features_2d, len(views), views.single), combine)
    if weights is not None:
        weights = weights[None] if views.single and weights.ndim == 1 else weights
        expect_shape('weights', weights, 'V N', V=len(views), N=len(points))
    pairs = visible_pairs(points, *views.cameras, visibility=visibility, byte_budget=byte_budget)

    pair_weights = None
    if weights is not None:
        pair_weights = [weights[pairs.view, pairs.point].to(maps[0].dtype)] * len(maps)
    size = views.camera.image_size
    return gather_scales(maps, pairs, size, pair_weights, len(points), 'mean', combine, byte_budget)


def extract_multiscale_features(image: Tensor, backbone: nn.Module) -> dict[str, Tensor]:
    """Feature maps of four strides, as the dictionary that is lifted.

    Args:
        image: (B, 3, H, W) or (3, H, W) floating point, normalised as the backbone expects it.
        backbone: returns a mapping with ``res2`` … ``res5``, or four maps, finest first.

    Returns:
        Keys ``feat_1/4``, ``feat_1/8``, ``feat_1/16`` and ``feat_1/32``; each (B, C, h, w). A
        map covers the image exactly when its stride divides both sides.

    Raises:
        ValueError: not an image, or a backbone that returns something else.

    Example:
        >>> def backbone(image):
        ...     return [image[..., ::stride, ::stride] for stride in (4, 8, 16, 32)]
        >>> maps = extract_multiscale_features(torch.zeros(3, 64, 96), backbone)
        >>> [tuple(x.shape[2:]) for x in maps.values()]
        [(16, 24), (8, 12), (4, 6), (2, 3)]
    """
    image = image[None] if image.ndim == 3 else image
    expect_shape('image', image, 'B 3 H W')
    if not image.is_floating_point():
        raise ValueError(f'image must be floating point, got {image.dtype}')
    maps = backbone(image)
    if not isinstance(maps, Mapping):
        maps = dict(zip(_STAGES, maps)) if len(maps) == len(_STAGES) else {}
    missing = [stage for stage in _STAGES if stage not in maps]
    if missing:
        raise ValueError(f'the backbone gives no {", ".join(missing)}')
    return {name: maps[stage] for stage, name in _STAGES.items()}


def gather_scales(
    maps: list[Tensor],
    pairs: PixelPairs,
    image_size: tuple[int, int],
    weights: list[Tensor] | None,
    num_bags: int,
    reduce: str,
    combine: str,
    byte_budget: int,
) -> tuple[Tensor, Tensor]:
    """``gather_pairs`` of every map, side by side or added up: (num_bags, C) and weight sums."""
    check_byte_budget(byte_budget)
    given = weights or []
    by_map: list[Tensor | None] = [*given] or [None] * len(maps)
    differentiable = torch.is_grad_enabled() and _any_gradient(*maps, *given, pairs.uv)
    if len(maps) == 1 or differentiable:
        scales = [
            gather_pairs(scale, pairs, image_size, weight, num_bags, reduce, byte_budget)
            for scale, weight in zip(maps, by_map)
        ]
        return _combined([rows for rows, _ in scales], combine), scales[-1][1]

    # A chunk of rows at a time, so that no whole scale stands beside the result; one scale after
    # the other, so that only one is copied to channels-last.
    columns = _columns(maps, combine)
    result = maps[0].new_zeros(num_bags, columns[-1].stop)
    weight_sum = maps[0].new_zeros(num_bags)
    widest = max(x.shape[1] for x in maps)
    size = num_rows(2 * widest * result.element_size(), byte_budget, result.device)
    limits = torch.arange(0, num_bags + size, size, device=pairs.point.device)
    firsts = torch.searchsorted(pairs.point, limits.clamp(max=num_bags)).tolist()

    for scale, weight, column in zip(maps, by_map, columns):
        scale = scale.contiguous(memory_format=torch.channels_last)
        for (begin, end), first, last in zip(ranges(num_bags, size), firsts, firsts[1:]):
            chunk = pairs.select(slice(first, last))
            chunk = replace(chunk, point=chunk.point - begin)
            chunk_weight = None if weight is None else weight[first:last]
            rows, weight_sum[begin:end] = gather_pairs(
                scale, chunk, image_size, chunk_weight, end - begin, reduce, byte_budget
            )
            result[begin:end, column] += rows
    return result, weight_sum


def _sample_scales(
    maps: list[Tensor],
    pairs: PixelPairs,
    image_size: tuple[int, int],
    mode: str,
    padding_mode: str,
    combine: str,
    byte_budget: int,
) -> Tensor:
    """``sample_map`` of every map at each view's visible pixels: (P, C), one row per pair."""
    order = pairs.view.argsort(stable=True)
    counts = torch.bincount(pairs.view, minlength=len(maps[0])).tolist()
    uv_of_view = pairs.uv[order].split(counts)
    scales = []
    for scale in maps:
        rows = [
            sample_map(x, uv, image_size, mode, padding_mode, byte_budget)
            for x, uv in zip(scale, uv_of_view)
        ]
        scales.append(torch.cat(rows) if rows else scale.new_zeros(0, scale.shape[1]))
    return _combined(scales, combine)[order.argsort()]


def _fade(uv: Tensor, map_size: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
    """(P,) share of a bilinear reading that falls on the map, the rest on zeros around it."""
    share = torch.ones_like(uv[:, 0])
    for axis, (cells, pixels) in enumerate(zip(reversed(map_size), reversed(image_size))):
        x = resize_coordinate(uv[:, axis], pixels, cells)
        share = share * (1 - (-x).clamp(min=0) - (x - (cells - 1)).clamp(min=0))
    return share


def _combined(scales: list[Tensor], combine: str) -> Tensor:
    if len(scales) == 1:
        return scales[0]
    return torch.cat(scales, dim=1) if combine == 'concat' else sum(scales[1:], scales[0])


def _columns(maps: list[Tensor], combine: str) -> list[slice]:
    """Columns of the result that each map goes to."""
    if combine == 'sum':
        return [slice(0, maps[0].shape[1])] * len(maps)
    ends = torch.tensor([x.shape[1] for x in maps]).cumsum(0).tolist()
    return [slice(begin, end) for begin, end in zip([0, *ends], ends)]


def _scales(maps: Mapping[str, Tensor], combine: str) -> list[Tensor]:
    """Maps that fit together, in the type that is summed in: float64 if one of them is."""
    _check_choice('combine', combine, COMBINE)
    widths = [x.shape[1] for x in maps.values()]
    if combine == 'sum' and len(set(widths)) > 1:
        raise ValueError(f"combine='sum' needs maps of one width, got {widths}")
    double = any(x.dtype == torch.float64 for x in maps.values())
    return [x.to(torch.float64 if double else torch.float32) for x in maps.values()]


def _any_gradient(*tensors: Tensor | None) -> bool:
    return any(x is not None and x.requires_grad for x in tensors)


def _check_choice(name: str, value: object, choices: Iterable) -> None:
    if value not in choices:
        raise ValueError(f'{name} must be one of {choices}, got {value!r}')
