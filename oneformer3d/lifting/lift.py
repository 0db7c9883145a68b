"""Feature maps of any number of views and scales to the points they see.

Enters: points (N, 3) in metres, ``features`` {name: (C, h, w)} of one view or {name: (V, C, h, w)}
of V views, the cameras of images of ``image_shape`` (H, W), depth maps or none. Leaves: one row of
all scales' channels for every point (and view), and which of them are seen. N points, V views, ΣC
channels of all scales, P visible (point, view) pairs.

The points are projected once for all views and scales, and only visible pairs are read; the rows
of the others are zeros. Back-projection of image features as in MVPNet (Jaritz, Gu and Su, 2019),
with the depth test that its nearest neighbours stand for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from .chunks import DEFAULT_BYTE_BUDGET, check_byte_budget, num_rows, ranges
from .inputs import camera_views, check_points, depth_views, feature_views, own_depth_camera
from .pairs import PixelPairs, visible_pairs
from .sampling import gather_pairs, sample_map
from .visibility import Visibility

MODES = ('bilinear', 'nearest', 'bicubic')
PADDING_MODES = ('border', 'zeros', 'reflection')
COMBINE = ('concat', 'sum')


def lift_features_to_points(
    points: Tensor,
    features: Mapping[str, Tensor],
    intrinsics: Tensor,
    extrinsics: Tensor,
    image_shape: tuple[int, int],
    depth: Tensor | None = None,
    *,
    mode: str = 'bilinear',
    padding_mode: str = 'border',
    combine: str = 'concat',
    visibility: Visibility = Visibility(),
    depth_intrinsics: Tensor | None = None,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> tuple[Tensor, Tensor]:
    """Read every scale of every view at every point that the view sees.

    Differentiable in the features, and, where the mode is not 'nearest', in points, intrinsics
    and extrinsics; which pairs are visible has no gradient.

    Args:
        points: (N, 3) world coordinates in metres; rows that are not finite are never seen.
        features: name → (C, h, w), or (V, C, h, w) for V views; every map covers the whole image.
        intrinsics: (3, 3), or (V, 3, 3), of the image.
        extrinsics: (4, 4) or (V, 4, 4) camera to world.
        image_shape: (H, W) of the image.
        depth: (h, w) or (V, h, w) metres, 0 for missing; None tests the frustum alone.
        mode: 'bilinear', 'nearest' or 'bicubic'.
        padding_mode: what lies beyond the maps. Pixels outside the image are never read, so this
            is about the half cell between the outermost cell centres and the image's border:
            'border' and 'reflection' hold its values, 'zeros' fades them by up to a half.
        combine: 'concat' puts the scales side by side in the mapping's order, 'sum' adds maps
            of equal width.
        visibility: what counts as visible.
        depth_intrinsics: (3, 3) or (V, 3, 3) of the depth maps at their own size, where those
            are of a camera of their own; None takes the image's, resized.
        byte_budget: bytes for temporary values; the result comes on top.

    Returns:
        Features (N, ΣC) and visible (N,) bool for one view, (V, N, ΣC) and (V, N) for V views.
        The memory lies point by point, so ``features.transpose(0, 1)`` is contiguous. Rows that
        are not visible are zero.

    Raises:
        ValueError: shapes that do not fit, cameras that cannot project, feature values that are
            not finite, unknown options; the message says which.
    """
    _check_choice('mode', mode, MODES)
    _check_choice('padding_mode', padding_mode, PADDING_MODES)
    points = check_points(points)
    camera, single = camera_views(intrinsics, extrinsics, image_shape)
    num_points, num_views = len(points), camera.batch_shape[0]
    maps = _same_type(feature_views(features, num_views, single).values())
    _check_combine(combine, maps)
    depth = depth_views(depth, num_views, single)
    pairs = visible_pairs(
        points,
        camera,
        depth,
        depth_camera=own_depth_camera(depth, depth_intrinsics, extrinsics),
        visibility=visibility,
        byte_budget=byte_budget,
    )
    # A row of the result is a point in a view; ordered by point they come sorted already.
    slots = pairs.point * num_views + pairs.view
    num_slots = num_points * num_views
    if mode == 'bilinear':
        weights = None
        if padding_mode == 'zeros':
            weights = [_fade(pairs.uv, x.shape[-2:], camera.image_size) for x in maps]
        slotted = replace(pairs, point=slots)
        rows = _gather_scales(
            maps, slotted, camera.image_size, weights, num_slots, 'sum', combine, byte_budget
        )[0]
    else:
        rows = _sample_scales(
            maps, pairs, slots, num_slots, camera.image_size, mode, padding_mode, combine,
            byte_budget,
        )  # fmt: skip
    visible = slots.new_zeros(num_slots, dtype=torch.bool).index_fill(0, slots, True)
    if single:
        return rows, visible
    rows = rows.unflatten(0, (num_points, num_views)).transpose(0, 1)
    return rows, visible.reshape(num_points, num_views).t()


def lift_mean_features(
    points: Tensor,
    features: Mapping[str, Tensor],
    intrinsics: Tensor,
    extrinsics: Tensor,
    image_shape: tuple[int, int],
    depth: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    combine: str = 'concat',
    visibility: Visibility = Visibility(),
    depth_intrinsics: Tensor | None = None,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> tuple[Tensor, Tensor]:
    """Weighted mean over the views that see a point, with no (V, N, ΣC) value ever made.

    Equals ``lift_features_to_points`` (bilinear, border) averaged over its visible views.

    Args:
        points: (N, 3); all other arguments as in ``lift_features_to_points``.
        features: name → (C, h, w) or (V, C, h, w).
        intrinsics: (3, 3) or (V, 3, 3).
        extrinsics: (4, 4) or (V, 4, 4).
        image_shape: (H, W).
        depth: (h, w) or (V, h, w), or None.
        weights: (V, N), or (N,) for one view, not negative; None weighs every view 1.
        combine: 'concat' or 'sum'.
        visibility: what counts as visible.
        depth_intrinsics: of the depth maps, where they are of a camera of their own.
        byte_budget: bytes for temporary values.

    Returns:
        (N, ΣC), zero where no view sees the point, and the sum of the weights (N,).

    Raises:
        ValueError: as ``lift_features_to_points``, and weights of another shape.
    """
    points = check_points(points)
    camera, single = camera_views(intrinsics, extrinsics, image_shape)
    num_views = camera.batch_shape[0]
    maps = _same_type(feature_views(features, num_views, single).values())
    _check_combine(combine, maps)
    if weights is not None:
        weights = weights[None] if single and weights.ndim == 1 else weights
        if tuple(weights.shape) != (num_views, len(points)):
            raise ValueError(
                f'weights must be ({num_views}, {len(points)}), got {tuple(weights.shape)}'
            )
    depth = depth_views(depth, num_views, single)
    pairs = visible_pairs(
        points,
        camera,
        depth,
        depth_camera=own_depth_camera(depth, depth_intrinsics, extrinsics),
        visibility=visibility,
        byte_budget=byte_budget,
    )
    pair_weights = None
    if weights is not None:
        pair_weights = [weights[pairs.view, pairs.point].to(maps[0].dtype)] * len(maps)
    return _gather_scales(
        maps, pairs, camera.image_size, pair_weights, len(points), 'mean', combine, byte_budget
    )


def _gather_scales(
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
    weights = weights or [None] * len(maps)
    whole = len(maps) == 1 or (torch.is_grad_enabled() and _any_gradient(*maps, *weights, pairs.uv))
    if whole:
        pieces, weight_sum = [], None
        for scale, weight in zip(maps, weights):
            rows, weight_sum = gather_pairs(
                scale, pairs, image_size, weight, num_bags, reduce, byte_budget
            )
            pieces.append(rows)
        return _combined(pieces, combine), weight_sum

    # Piece by piece, so that no whole scale stands beside the result; one scale after the other,
    # so that only one is copied to channels-last.
    columns = _columns(maps, combine)
    result = maps[0].new_zeros(num_bags, columns[-1].stop)
    weight_sum = maps[0].new_zeros(num_bags)
    widest = max(x.shape[1] for x in maps)
    size = num_rows(2 * widest * result.element_size(), byte_budget, result.device)
    limits = torch.arange(0, num_bags + size, size, device=pairs.point.device)
    firsts = torch.searchsorted(pairs.point, limits.clamp(max=num_bags)).tolist()
    for scale, weight, column in zip(maps, weights, columns):
        scale = scale.contiguous(memory_format=torch.channels_last)
        for (begin, end), first, last in zip(ranges(num_bags, size), firsts, firsts[1:]):
            piece = pairs.select(slice(first, last))
            piece = replace(piece, point=piece.point - begin)
            part = None if weight is None else weight[first:last]
            rows, weight_sum[begin:end] = gather_pairs(
                scale, piece, image_size, part, end - begin, reduce, byte_budget
            )
            result[begin:end, column] += rows
    return result, weight_sum


def _sample_scales(
    maps: list[Tensor],
    pairs: PixelPairs,
    slots: Tensor,
    num_slots: int,
    image_size: tuple[int, int],
    mode: str,
    padding_mode: str,
    combine: str,
    byte_budget: int,
) -> Tensor:
    """``sample_map`` of every map at each view's visible pixels: rows (num_slots, C)."""
    order = pairs.view.argsort(stable=True)
    counts = torch.bincount(pairs.view, minlength=len(maps[0])).tolist()
    uv, slots = pairs.uv[order].split(counts), slots[order]
    scales = []
    for scale in maps:
        rows = [
            sample_map(x, pixels, image_size, mode, padding_mode, byte_budget)
            for x, pixels in zip(scale, uv)
        ]
        rows = torch.cat(rows) if rows else scale.new_zeros(0, scale.shape[1])
        scales.append(rows)
    rows = _combined(scales, combine)
    return rows.new_zeros(num_slots, rows.shape[1]).index_copy(0, slots, rows)


def _fade(uv: Tensor, map_size: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
    """(P,) share of a bilinear reading that falls on the map, the rest on zeros around it."""
    share = torch.ones_like(uv[:, 0])
    for axis, (cells, pixels) in enumerate(zip(reversed(map_size), reversed(image_size))):
        x = (uv[:, axis] + 0.5) * (cells / pixels) - 0.5
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
    columns, begin = [], 0
    for scale in maps:
        columns.append(slice(begin, begin + scale.shape[1]))
        begin += scale.shape[1]
    return columns


def _same_type(maps: Iterable[Tensor]) -> list[Tensor]:
    """Maps in the type that is summed in: float64 if one of them is, else float32."""
    maps = list(maps)
    double = any(x.dtype == torch.float64 for x in maps)
    return [x.to(torch.float64 if double else torch.float32) for x in maps]


def _any_gradient(*tensors: Tensor | None) -> bool:
    return any(x is not None and x.requires_grad for x in tensors)


def _check_combine(combine: str, maps: list[Tensor]) -> None:
    _check_choice('combine', combine, COMBINE)
    widths = [x.shape[1] for x in maps]
    if combine == 'sum' and len(set(widths)) > 1:
        raise ValueError(f"combine='sum' needs maps of one width, got {widths}")


def _check_choice(name: str, value: object, choices: tuple) -> None:
    if value not in choices:
        raise ValueError(f'{name} must be one of {choices}, got {value!r}')
