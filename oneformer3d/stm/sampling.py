"""Points on a pyramid of maps → features: bilinear within a level, softly between levels.

Enters: points (x, y, level) of B samples, maps (B, C, T, h, w) per level. Leaves: features of
every group of channels at its own points. Coordinates are edge-based: the left border of a map is
x = 0 and its right one ``w * stride``, so that the centre of cell j is at ``(j + 0.5) * stride``.
Our pixels, whose first centre is 0, enter as ``u + 0.5``.

Letters: B samples, N queries, T frames, G groups (heads), P points of a group, C channels, c = C/G,
L levels, R rows of a table, K rows that a bag sums.

All maps become one table, a row for each cell and group (``LevelTable``). Four corners on each
level are one bag of rows, summed by ``embedding_bag`` with bilinear times level weights: no
feature is made that is not returned. Where all frames share their points a row holds all T
frames, and the corners are worked out once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer3d.lifting.shapes import expect_shape, size_of

_INT32_MAX = torch.iinfo(torch.int32).max


@dataclass(frozen=True)
class LevelTable:
    """A pyramid as rows to gather; made once, read by every stage.

    Attributes:
        rows: (I * cells * G, width), ordered by image, cell (level after level, row-major) and
            group.
        sizes: (h, w) of each level.
        strides: pixels per cell of each level.
        num_groups: G.
        num_images: I: samples, or frames of all samples.
        num_frames: T. Shared tables have I = B and width = T * c, others I = B * T and width = c.
        shared: frames share their points.
    """

    rows: Tensor
    sizes: tuple[tuple[int, int], ...]
    strides: tuple[float, ...]
    num_groups: int
    num_images: int
    num_frames: int = 1
    shared: bool = False

    @property
    def num_cells(self) -> int:
        """Cells of an image, all levels together."""
        return sum(height * width for height, width in self.sizes)


def make_sample_points(offset: Tensor, num_group: int, xyzr: Tensor) -> Tensor:
    """Points of boxes: ``centre + offset * (w, h)`` and ``level = z + offset``.

    ``w, h = 2 ** (z - r / 2), 2 ** (z + r / 2)`` (Gao et al., AdaMixer, CVPR 2022).

    Args:
        offset: (B, N, num_group * 3), in units of the box.
        num_group: G * P.
        xyzr: (B, N, 4).

    Returns:
        (B, N, 1, num_group, 3) as x, y, level.

    Raises:
        ValueError: shapes that do not fit.
    """
    batch_size, num_queries, _ = expect_shape('offset', offset, 'B N O', O=num_group * 3)
    expect_shape('xyzr', xyzr, 'B N 4', B=batch_size, N=num_queries)
    offset = offset.unflatten(-1, (1, num_group, 3))
    box = xyzr[:, :, None, None]  # (B, N, 1, 1, 4)

    # w, h = 2^(z - r/2), 2^(z + r/2)
    half_ratio = box[..., 3:4] * 0.5
    extent = torch.exp2(torch.cat((box[..., 2:3] - half_ratio, box[..., 2:3] + half_ratio), -1))

    # xy = centre + offset (w, h),  level = z + offset
    xy = box[..., :2] + offset[..., :2] * extent
    return torch.cat((xy, box[..., 2:3] + offset[..., 2:3]), dim=-1)


def translate_to_linear_weight(ref: Tensor, num_total: int, tau: float = 2.0) -> Tensor:
    """Share of each level: ``softmax_i(-(ref - i)² / tau)``, (...) → (..., num_total)."""
    if num_total < 1 or tau <= 0:
        raise ValueError(f'expected levels and tau above 0, got {num_total} and {tau}')
    grid = torch.arange(num_total, device=ref.device, dtype=ref.dtype)
    return torch.softmax(-(ref[..., None] - grid).square() / tau, dim=-1)


def MHAQ3D(  # noqa: N802
    sample_points: Tensor, value: Tensor, weight: Tensor | None = None, n_points: int = 1
) -> Tensor:
    """Sample one level.

    Args:
        sample_points: (B, Hq, Wq, G * P, 2), 0…1 from border to border; or
            (B, T, Hq, Wq, G * P, 2), where every frame has its own.
        value: (B, C, T, h, w).
        weight: factors of the samples, as ``sample_points`` without the last dimension, or None.
        n_points: P.

    Returns:
        (B, C / G, G, T, P, Hq, Wq).

    Raises:
        ValueError: shapes that do not fit.
    """
    _check_points(sample_points, 2, n_points)
    num_groups = sample_points.shape[-2] // n_points
    table = level_table([value], [1], num_groups, shared=sample_points.ndim == 5)
    size = sample_points.new_tensor([value.shape[4], value.shape[3]])
    if weight is None:
        weight = torch.ones_like(sample_points[..., 0])
    if weight.shape != sample_points.shape[:-1]:
        raise ValueError(
            f'weight: expected {tuple(sample_points.shape[:-1])}, got {tuple(weight.shape)}'
        )
    return _sample(sample_points * size, weight[..., None], table, n_points)


def SAMPLE4D(  # noqa: N802
    sample_points: Tensor,
    values: Sequence[Tensor] | LevelTable,
    featmap_strides: Sequence[float] | None = None,
    n_points: int = 1,
    num_levels: int | None = None,
    mapping_stride: float = 3.0,
    tau: float = 2.0,
) -> tuple[Tensor, None]:
    """Sample a pyramid (Wu et al., "STMixer: A One-Stage Sparse Action Detector", CVPR 2023).

    Args:
        sample_points: (B, Hq, Wq, G * P, 3) as x, y in pixels (edge-based) and level; or
            (B, T, Hq, Wq, G * P, 3), where every frame has its own.
        values: L maps (B, C, T, h, w), or the table that ``level_table`` made of them.
        featmap_strides: pixels per cell of each level; of the table when values is one.
        n_points: P.
        num_levels: L; all levels by default.
        mapping_stride: what is subtracted from the level of a point.
        tau: softness of the choice of a level.

    Returns:
        (B, C / G, G, T, P, Hq, Wq), and None.

    Raises:
        ValueError: numbers of levels, strides, groups or frames that do not fit.
    """
    _check_points(sample_points, 3, n_points)
    num_groups = sample_points.shape[-2] // n_points
    shared = sample_points.ndim == 5

    if isinstance(values, LevelTable):
        table = values
        if (table.num_groups, table.shared) != (num_groups, shared):
            raise ValueError(
                f'table: made for {table.num_groups} groups and '
                f'{"shared points" if table.shared else "points of each frame"}, sampled with '
                f'{num_groups} groups and points {tuple(sample_points.shape)}'
            )
    else:
        values, strides = _checked_levels(values, featmap_strides, num_levels)
        table = level_table(values, strides, num_groups, shared)

    weights = translate_to_linear_weight(
        sample_points[..., 2] - mapping_stride, len(table.sizes), tau
    )
    return _sample(sample_points[..., :2], weights, table, n_points), None


def level_table(
    values: Sequence[Tensor], strides: Sequence[float], num_groups: int, shared: bool = True
) -> LevelTable:
    """Maps (B, C, T, h, w) of each level as one table; see ``LevelTable``.

    Raises:
        ValueError: not one stride per level, levels of different B, C or T, or channels that
            the groups do not divide.
    """
    values, strides = _checked_levels(values, strides, None)
    batch_size, channels, num_frames = values[0].shape[:3]
    if channels % num_groups:
        raise ValueError(f'values: {num_groups} groups do not divide {channels} channels')
    width = channels // num_groups

    tables = []
    for value in values:
        # (B, T, h, w, G, c): free where maps are channels-last already
        cells = value.permute(0, 2, 3, 4, 1).unflatten(-1, (num_groups, width))
        if shared:
            tables.append(cells.permute(0, 2, 3, 4, 1, 5).flatten(4).flatten(1, 2))
        else:
            tables.append(cells.flatten(0, 1).flatten(1, 2))
    rows = torch.cat(tables, dim=1).flatten(0, 2)  # (I · cells · G, width)

    return LevelTable(
        rows=rows,
        sizes=tuple(size_of(value) for value in values),
        strides=strides,
        num_groups=num_groups,
        num_images=batch_size if shared else batch_size * num_frames,
        num_frames=num_frames,
        shared=shared,
    )


def corners(
    xy: Tensor, level_weights: Tensor, sizes: Sequence[tuple[int, int]], strides: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """The four cells around every point on every level, with their weights.

    Args:
        xy: (..., 2) pixels, edge-based.
        level_weights: (..., L).
        sizes: (h, w) of each level.
        strides: of each level.

    Returns:
        Cells (..., 4L) int64 of an image with all its levels one after another, and weights
        (..., 4L), 0 for corners outside the map. Points that are not finite have weights 0.
    """
    device, dtype = xy.device, xy.dtype
    height, width = torch.tensor(sizes, device=device, dtype=dtype).unbind(1)
    stride = torch.tensor(strides, device=device, dtype=dtype)
    first = (height * width).cumsum(0) - height * width  # cell of each level's corner

    finite = torch.isfinite(xy).all(-1, keepdim=True)
    x, y = torch.where(finite, xy, -1e6)[..., None].unbind(-2)
    column, weight_x = _axis(x / stride - 0.5, width)
    row, weight_y = _axis(y / stride - 0.5, height)

    # bilinear weights times the level's; axes (..., level, row, column)
    cells = first[:, None, None] + row[..., :, None] * width[:, None, None] + column[..., None, :]
    weights = (weight_y * level_weights[..., None])[..., :, None] * weight_x[..., None, :]
    return cells.flatten(-3).long(), weights.flatten(-3)


def gather_rows(rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """``out[n] = sum_k weights[n, k] * rows[index[n, k]]``.

    Args:
        rows: (R, width) of a floating point type.
        index: (n, K) int.
        weights: (n, K).

    Returns:
        (n, width) of the type of ``rows``.
    """
    if index.numel() == 0 or len(rows) == 0:
        return rows.new_zeros(len(index), rows.shape[1]) + (rows.sum() + weights.sum()) * 0
    if max(len(rows), index.numel()) <= _INT32_MAX:
        index = index.int()
    weights = weights.to(rows.dtype).contiguous()
    summed = F.embedding_bag(index, rows.detach(), mode='sum', per_sample_weights=weights)
    if rows.requires_grad and torch.is_grad_enabled():
        return _RowGradient.apply(summed, rows, index, weights.detach())
    return summed


class _RowGradient(torch.autograd.Function):
    """Passes the sums on; in the backward pass gives the rows their gradient.

    ``embedding_bag``'s own gradient of a dense table visits every row of every bag on its own.
    Sorted by row, the gradients of the bags are themselves bags: four times faster on a CPU.
    """

    @staticmethod
    def forward(ctx, summed: Tensor, rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(index, weights)
        ctx.num_rows = len(rows)
        return summed.view_as(summed)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        index, weights = ctx.saved_tensors
        num_corners = index.shape[1]
        index = index.flatten()

        # sorted by row, the bags that read a row are a bag of gradients
        order = torch.argsort(index, stable=True)
        starts = F.pad(torch.bincount(index, minlength=ctx.num_rows).cumsum(0), (1, 0))
        bag = order.div(num_corners, rounding_mode='floor').to(index.dtype)

        grad_rows = F.embedding_bag(
            bag,
            grad.contiguous(),
            starts.to(index.dtype),
            mode='sum',
            per_sample_weights=weights.flatten()[order],
            include_last_offset=True,
        )
        return grad, grad_rows, None, None


def _sample(xy: Tensor, level_weights: Tensor, table: LevelTable, num_points: int) -> Tensor:
    """Points (B, [T,] Hq, Wq, G * P, 2) of a table → (B, c, G, T, P, Hq, Wq)."""
    batch_shape = xy.shape[: 1 if table.shared else 2]
    if batch_shape.numel() != table.num_images:
        raise ValueError(
            f'sample_points: points of {tuple(batch_shape)} (samples, frames), but maps of '
            f'{table.num_images // (1 if table.shared else table.num_frames)} samples with '
            f'{table.num_frames} frames'
        )

    num_groups = table.num_groups
    cells, weights = corners(xy, level_weights, table.sizes, table.strides)

    # row = (image · cells + cell) G + group
    image = torch.arange(table.num_images, device=xy.device).view(*batch_shape, 1, 1, 1, 1)
    group = torch.arange(num_groups, device=xy.device).repeat_interleave(num_points)[:, None]
    index = (image * table.num_cells + cells) * num_groups + group
    out = gather_rows(table.rows, index.flatten(0, -2), weights.flatten(0, -2))

    query_shape = xy.shape[-4:-2]
    if table.shared:
        out = out.view(*batch_shape, *query_shape, num_groups, num_points, table.num_frames, -1)
        return out.permute(0, 6, 3, 5, 4, 1, 2)
    out = out.view(*batch_shape, *query_shape, num_groups, num_points, -1)
    return out.permute(0, 6, 4, 1, 5, 2, 3)


def _axis(position: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Cells (..., L, 2) before and after a position along one axis, and their weights."""
    before = position.detach().floor()
    share = position - before
    # Clamped first, so that far away points stay within the numbers that are exact.
    cell = torch.stack((before, before + 1), dim=-1)
    inside = (cell >= 0) & (cell < size[:, None])
    weights = torch.stack((1 - share, share), dim=-1) * inside
    return torch.minimum(cell.clamp(min=0), size[:, None] - 1), weights


def _checked_levels(
    values: Sequence[Tensor], strides: Sequence[float] | None, num_levels: int | None
) -> tuple[list[Tensor], tuple[float, ...]]:
    values = list(values)
    strides = () if strides is None else tuple(strides)
    num_levels = len(values) if num_levels is None else num_levels
    if num_levels < 1 or len(values) < num_levels or len(strides) < num_levels:
        raise ValueError(
            f'expected maps and strides of {num_levels} levels (at least 1), got {len(values)} '
            f'maps and {len(strides)} strides'
        )
    if num_levels == len(values) and len(strides) != num_levels:
        raise ValueError(f'{len(values)} levels but {len(strides)} strides')

    values, strides = values[:num_levels], strides[:num_levels]
    for level, value in enumerate(values):
        if value.ndim != 5 or value.shape[:3] != values[0].shape[:3]:
            raise ValueError(
                f'level {level}: expected maps (B, C, T, h, w) of one B, C and T, got '
                f'{tuple(value.shape)} beside {tuple(values[0].shape)}'
            )
    if min(strides) <= 0:
        raise ValueError(f'strides must be above 0, got {strides}')
    return values, strides


def _check_points(sample_points: Tensor, last: int, num_points: int) -> None:
    if sample_points.ndim not in (5, 6) or sample_points.shape[-1] != last:
        raise ValueError(
            f'sample_points: expected (B, Hq, Wq, G * P, {last}) or (B, T, Hq, Wq, G * P, {last}), '
            f'got {tuple(sample_points.shape)}'
        )
    if num_points < 1 or sample_points.shape[-2] % num_points:
        raise ValueError(
            f'sample_points: {sample_points.shape[-2]} points are not groups of {num_points}'
        )
