"""Reading feature maps at pixels: dense for every point, or sparse for visible pairs only.

Enters: feature maps (V, C, h, w) of any stride that cover the whole image, pixels (u, v) of an
image of ``image_size`` (H, W). Leaves: one row of C channels for every pixel or every point. V
views, C channels, N points, P (view, point) pairs.

Pixel u lies at ``(u + 0.5) w / W - 0.5`` among the w cell centres of a map, at every stride.
Between centres the reading is bilinear; beyond the outermost centres, up to half a cell inside
the border, it holds the border's value. Values are float32 (float64 for float64 maps) however
the maps are stored. Differentiable in the maps, the pixels and the weights.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .camera import check_image_size, resize_coordinate
from .chunks import DEFAULT_BYTE_BUDGET, bag_ranges, check_byte_budget, join, num_rows, ranges
from .pairs import PixelPairs
from .shapes import expect_shape

REDUCE = ('mean', 'sum', None)
# Bytes that one pair takes while its four corners and their weights are worked out; measured.
_BYTES_PER_PAIR = 288
# Left for the pairs when a copy of the maps takes the whole budget.
_LEAST_BYTES = 1 << 20
_INT32_MAX = torch.iinfo(torch.int32).max


def gather_pairs(
    feature_maps: Tensor,
    pairs: PixelPairs,
    image_size: tuple[int, int],
    weights: Tensor | None = None,
    num_points: int | None = None,
    reduce: str | None = 'mean',
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> tuple[Tensor, Tensor]:
    """Sample the maps at the visible pairs and reduce the views of each point.

    ``mean`` is ``sum_p w_p f_p / sum_p w_p`` over the pairs p of a point, ``sum`` its numerator,
    0 for a point without pairs or with weights that add up to 0.

    All corners of all views of a point are one bag of rows of the channels-last maps
    (``embedding_bag`` with the bilinear times the pair weights): no (N, V, C) and not even a
    (P, C) value is ever made.

    Args:
        feature_maps: (V, C, h, w), any floating point type. Channels-last maps of float32 are
            read in place; others are copied once, and the copy counts in the budget.
        pairs: sorted by point, as ``project_pairs`` makes them.
        image_size: (H, W) that ``pairs.uv`` belongs to.
        weights: (P,) not negative; None weighs every view 1.
        num_points: N, the rows of the result; may only be left out when reduce is None.
        reduce: 'mean', 'sum', or None for each pair's own sample, not weighted.
        byte_budget: bytes for temporary values; the result comes on top, and so does what
            autograd keeps. What cannot be cut is taken even where the budget is smaller: the
            views of a single point, and the copy of the maps with 1 MiB to work on.

    Returns:
        (N, C) and the sum of the weights (N,); with reduce None (P, C) and the weights (P,).

    Raises:
        ValueError: shapes that do not fit, pairs that are not sorted or out of range.

    Example:
        >>> maps = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)  # two views of one cell each
        >>> pairs = PixelPairs(
        ...     torch.tensor([0, 0, 2]), torch.tensor([0, 1, 1]), torch.zeros(3, 2), torch.ones(3)
        ... )
        >>> gather_pairs(maps, pairs, (6, 8), num_points=3)
        (tensor([[2.],
                [0.],
                [3.]]), tensor([2., 0., 1.]))
    """
    check_image_size(image_size)
    check_byte_budget(byte_budget)
    num_views = expect_shape('feature_maps', feature_maps, 'V C h w')[0]
    if not feature_maps.is_floating_point():
        raise ValueError(f'feature_maps must be floating point, got {feature_maps.dtype}')
    if reduce not in REDUCE:
        raise ValueError(f'reduce must be one of {REDUCE}, got {reduce!r}')
    if weights is not None:
        expect_shape('weights', weights, 'P', P=len(pairs))
    _check_pairs(pairs, num_views, num_points if reduce else None)

    dtype = _accumulation_type(feature_maps)
    weights = None if weights is None else weights.to(dtype)
    if reduce is None:
        starts = torch.arange(len(pairs) + 1, device=pairs.point.device)
        samples = _weighted_sums(feature_maps, pairs, image_size, None, starts, byte_budget)
        return samples, samples.new_ones(len(pairs)) if weights is None else weights

    if num_points is None:
        raise ValueError('num_points is needed to reduce over the views of each point')
    starts = bag_starts(pairs.point, num_points)
    summed = _weighted_sums(feature_maps, pairs, image_size, weights, starts, byte_budget)
    if weights is None:
        weight_sum = starts.diff().to(dtype)
    else:
        # unsafe: skips a check of the lengths that fails when there are none.
        weight_sum = torch.segment_reduce(
            weights, 'sum', lengths=starts.diff(), initial=0.0, unsafe=True
        )
    if reduce == 'mean':
        summed = _divide_rows(summed, torch.where(weight_sum > 0, weight_sum, 1.0))
    return summed, weight_sum


def sample_map(
    feature_map: Tensor,
    uv: Tensor,
    image_size: tuple[int, int],
    mode: str = 'bilinear',
    padding_mode: str = 'border',
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> Tensor:
    """Sample each map at each of its pixels, visible or not: the dense twin of ``gather_pairs``.

    Args:
        feature_map: (..., C, h, w), any floating point type and stride.
        uv: (..., N, 2) with the same leading dimensions. Pixels that are not finite are read at
            (0, 0); mask them, as any point that is not visible.
        image_size: (H, W) that uv belongs to.
        mode: 'bilinear', 'nearest' or 'bicubic' (``grid_sample``'s).
        padding_mode: 'border', 'zeros' or 'reflection' (``grid_sample``'s).
        byte_budget: bytes for temporary values; the result comes on top.

    Returns:
        (..., N, C) float32, or float64 for float64 maps.

    Example:
        >>> columns = torch.arange(4.0).expand(1, 3, 4)  # a quarter of the image's resolution
        >>> sample_map(columns, torch.tensor([[1.5, 0.0], [7.5, 0.0]]), (12, 16))
        tensor([[0.0000],
                [1.5000]])
    """
    height, width = check_image_size(image_size)
    expect_shape('feature_map', feature_map, '... C h w')
    expect_shape('uv', uv, '... N 2')
    lead, (num_channels, *_) = feature_map.shape[:-3], feature_map.shape[-3:]
    if uv.shape[:-2] != lead:
        raise ValueError(
            f'uv must have the leading dimensions of the maps {tuple(lead)}, got {tuple(uv.shape)}'
        )
    dtype = _accumulation_type(feature_map)
    maps = feature_map.reshape(lead.numel(), *feature_map.shape[-3:]).to(dtype)
    pixels = uv.reshape(lead.numel(), uv.shape[-2], 2)
    num_pixels = pixels.shape[1]
    if maps.numel() == 0 or pixels.numel() == 0:
        return maps.new_zeros(*lead, num_pixels, num_channels)

    scale = pixels.new_tensor([2.0 / width, 2.0 / height])
    row_bytes = len(maps) * (2 * num_channels * maps.element_size() + 48)
    size = num_rows(row_bytes, byte_budget, uv.device)

    def sampled(begin: int, end: int) -> Tensor:
        chunk = pixels[:, begin:end]
        chunk = torch.where(torch.isfinite(chunk), chunk, 0.0)
        # x = 2 (u + ½)/W − 1, as ``pixel_to_grid_coords``
        grid = ((chunk + 0.5) * scale - 1).to(dtype)[:, None]  # (B, 1, n, 2)
        rows = F.grid_sample(maps, grid, mode, padding_mode, align_corners=False)
        return rows[:, :, 0].transpose(1, 2)  # (B, n, C)

    rows = join((sampled(*limits) for limits in ranges(num_pixels, size)), num_pixels, dim=1)
    return rows.reshape(*lead, num_pixels, num_channels)


def read_pairs(
    feature_maps: Sequence[Tensor], pairs: PixelPairs, image_size: tuple[int, int]
) -> Tensor:
    """Each pair's own sample of every map (V, C, h, w), side by side: (P, ΣC)."""
    rows = [gather_pairs(x, pairs, image_size, reduce=None)[0] for x in feature_maps]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def _weighted_sums(
    feature_maps: Tensor,
    pairs: PixelPairs,
    image_size: tuple[int, int],
    weights: Tensor | None,
    starts: Tensor,
    byte_budget: int,
) -> Tensor:
    """Weighted sum of the samples of each bag: pairs starts[i] … starts[i + 1] make row i."""
    num_views, num_channels, height, width = feature_maps.shape
    num_bags = len(starts) - 1
    dtype = _accumulation_type(feature_maps)
    table = feature_maps.permute(0, 2, 3, 1)  # (V, h, w, C)
    copied = table.dtype != dtype or not table.is_contiguous()
    table = table.to(dtype).reshape(-1, num_channels)  # (V·h·w, C)
    if len(table) == 0 or num_bags == 0 or num_channels == 0:
        return table.new_zeros(num_bags, num_channels)
    if copied:
        copied_bytes = table.numel() * table.element_size()
        byte_budget = max(byte_budget - copied_bytes, min(byte_budget, _LEAST_BYTES))

    # Half for the pairs of a chunk, half for its rows, which are copied into the result.
    max_pairs = num_rows(2 * _BYTES_PER_PAIR, byte_budget, table.device)
    max_bags = num_rows(2 * num_channels * table.element_size(), byte_budget, table.device)

    def bags(begin: int, end: int, first: int, last: int) -> Tensor:
        corners, corner_weights = _corners(
            pairs.uv[first:last], pairs.view[first:last], image_size, (height, width), num_views
        )
        # Σ w · (bilinear weight of a corner) · (its row of the table)
        corner_weights = corner_weights.to(dtype)
        if weights is not None:
            corner_weights = corner_weights * weights[first:last, None]
        return F.embedding_bag(
            corners.flatten(),
            table,
            ((starts[begin : end + 1] - first) * 4).to(corners.dtype),
            mode='sum',
            per_sample_weights=corner_weights.flatten(),
            include_last_offset=True,
        )

    chunks = bag_chunks(starts, max_pairs, max_bags)
    return join((bags(*limits) for limits in chunks), num_bags)


def _corners(
    uv: Tensor,
    view: Tensor,
    image_size: tuple[int, int],
    map_size: tuple[int, int],
    num_views: int,
) -> tuple[Tensor, Tensor]:
    """Rows (P, 4) of the channels-last maps around each pixel, and their bilinear weights."""
    (height, width), (image_height, image_width) = map_size, image_size
    u, v = uv.unbind(-1)
    column, right = _cell_and_share(u, width, image_width)
    row, below = _cell_and_share(v, height, image_height)

    index_type = torch.int32 if num_views * height * width <= _INT32_MAX else torch.int64
    column, row = column.to(index_type), row.to(index_type)
    base = (view.to(index_type) * height + row) * width + column
    # Maps of a single row or column have no second neighbour; its weight is 0.
    step_right, step_below = min(1, width - 1), min(1, height - 1) * width
    corners = torch.stack(
        (base, base + step_right, base + step_below, base + (step_right + step_below)), dim=1
    )  # (P, 4)

    left, above = 1 - right, 1 - below
    weights = torch.stack((above * left, above * right, below * left, below * right), dim=1)
    return corners, weights


def _cell_and_share(pixel: Tensor, num_cells: int, num_pixels: int) -> tuple[Tensor, Tensor]:
    """Cell centre before a pixel coordinate, and the share of the one after it."""
    pixel = torch.where(torch.isfinite(pixel), pixel, 0.0)
    x = resize_coordinate(pixel, num_pixels, num_cells).clamp(0, num_cells - 1)
    cell = x.detach().floor().clamp(max=max(0, num_cells - 2))
    return cell, x - cell


def bag_chunks(starts: Tensor, max_pairs: int, max_bags: int) -> list[tuple[int, int, int, int]]:
    """Consecutive bags [begin, end) with their pairs [first, last), each within both limits.

    A single bag may be larger than ``max_pairs``.
    """
    starts = starts.cpu()
    return [
        (begin, end, int(starts[begin]), int(starts[end]))
        for begin, end in bag_ranges(starts[1:], max_pairs, max_bags)
    ]


def bag_starts(point: Tensor, num_points: int) -> Tensor:
    """(N + 1,) int64: the pairs of point i are rows starts[i] … starts[i + 1]."""
    rows = torch.arange(num_points + 1, device=point.device)
    return torch.searchsorted(point.contiguous(), rows)


def _divide_rows(rows: Tensor, divisor: Tensor) -> Tensor:
    if rows.requires_grad or divisor.requires_grad:
        return rows / divisor[:, None]
    return rows.div_(divisor[:, None])  # our own result, not an argument


def _accumulation_type(maps: Tensor) -> torch.dtype:
    return torch.float64 if maps.dtype == torch.float64 else torch.float32


def _check_pairs(pairs: PixelPairs, num_views: int, num_points: int | None) -> None:
    if len(pairs) == 0:
        return
    limits = [('view', pairs.view, num_views)]
    if num_points is not None:
        limits.append(('point', pairs.point, num_points))
        if (pairs.point[1:] < pairs.point[:-1]).any():
            raise ValueError('pairs must be sorted by point')
    for name, index, limit in limits:
        low, high = (int(x) for x in index.aminmax())
        if low < 0 or high >= limit:
            raise ValueError(f'pairs name {name} {low} … {high}, but there are {limit}')
