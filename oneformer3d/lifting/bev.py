"""Image features on a grid seen from above: splat them where depth puts them, read at points.

Enters: feature maps (V, C, h, w), cameras, and a depth: maps, a z-buffer of the points, or any
function of the images. Leaves: a grid (C, Y, X) and how much of it was hit, or rows (N, C) read
back at points. z is up; row y and column x grow with the world's y and x. V views, C channels, N
points, P lifted cells of the feature maps.

Every cell of a feature map is one sample: its depth is read at its centre, it is lifted to the
world, and falls into the column of the grid below it ("lift, splat", Philion and Fidler, 2020,
with depth given in place of its distribution).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .camera import Camera, pixel_grid
from .chunks import DEFAULT_BYTE_BUDGET
from .depth_render import zbuffer_views
from .inputs import camera_views, check_points, depth_views, feature_views
from .sampling import sample_map
from .shapes import expect_shape, size_of
from .visibility import Visibility, drop_depth_edges, nearest_pixel

REDUCE = ('mean', 'max', 'sum')
SPLAT = ('nearest', 'bilinear')
DepthFunction = Callable[[Tensor], Tensor]  # images (V, 3, H, W) → metres (V, h, w)


@dataclass(frozen=True)
class BEVFeatureLifting:
    """Where the grid lies and how samples meet in a cell.

    Attributes:
        resolution: side of a cell in metres.
        size: (Y, X) cells.
        center: world (x, y) of the grid's middle in metres.
        reduce: of the samples of a cell: 'mean', 'max' or 'sum'.
        splat: 'nearest' gives a sample to its cell; 'bilinear' shares it among the four cells
            whose centres surround it, so that gradients reach depth and poses too (not for
            'max').
        height_range: lowest and highest world z in metres that count, for example without the
            ceiling; None takes all.

    Example:
        >>> bev = BEVFeatureLifting(resolution=1.0, size=(2, 2), reduce='sum')
        >>> positions = torch.tensor([[-0.5, -0.5, 0.0], [-0.4, -0.6, 9.0], [0.5, 0.5, 0.0]])
        >>> bev.splat_rows(positions, torch.tensor([[1.0], [2.0], [4.0]]))
        (tensor([[[3., 0.],
                 [0., 4.]]]), tensor([[2., 0.],
                [0., 1.]]))
    """

    resolution: float = 0.1
    size: tuple[int, int] = (200, 200)
    center: tuple[float, float] = (0.0, 0.0)
    reduce: str = 'mean'
    splat: str = 'nearest'
    height_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.resolution <= 0 or len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(
                f'resolution and size must be positive, got {self.resolution} and {self.size}'
            )

        for name, value, choices in (
            ('reduce', self.reduce, REDUCE),
            ('splat', self.splat, SPLAT),
        ):
            if value not in choices:
                raise ValueError(f'{name} must be one of {choices}, got {value!r}')
        if self.reduce == 'max' and self.splat == 'bilinear':
            raise ValueError("reduce='max' has no shares; use splat='nearest'")

    def create_bev_features(
        self,
        points: Tensor | None,
        image_features: Sequence[Tensor] | Tensor,
        camera_params: Sequence[tuple[Tensor, Tensor]],
        bev_resolution: float | None = None,
        bev_size: tuple[int, int] | None = None,
        *,
        image_shape: tuple[int, int] | None = None,
        depth: Tensor | DepthFunction | None = None,
        images: Tensor | None = None,
        visibility: Visibility = Visibility(),
        byte_budget: int = DEFAULT_BYTE_BUDGET,
    ) -> tuple[Tensor, Tensor]:
        """Lift the maps by depth and splat them on the grid.

        Differentiable in the features; with bilinear splats also in depth and cameras.

        Args:
            points: (N, 3) metres, whose z-buffer is the depth where none is given; else None
                or the scan, which is not read.
            image_features: V of (C, h, w); each map covers the whole image.
            camera_params: V of intrinsics (3, 3) of the image and camera-to-world pose (4, 4),
                z of the world up.
            bev_resolution: side of a cell in metres for this call; None is ``resolution``.
            bev_size: (Y, X) cells for this call; None is ``size``.
            image_shape: (H, W) of the images that the intrinsics belong to; an error asks for
                it.
            depth: (V, H', W') metres, 0 for missing; or a function that estimates it from
                ``images``; None draws a z-buffer of ``points``.
            images: (V, 3, H, W), for the function.
            visibility: ``point_size`` and ``near`` of the z-buffer; with ``edge_reject``,
                samples on a depth edge are left out.
            byte_budget: bytes for temporary values of the z-buffer.

        Returns:
            Grid (C, Y, X), 0 where nothing fell, and the number (with bilinear splats the
            shares) of samples in each cell (Y, X).

        Raises:
            ValueError: shapes that do not fit, cameras that cannot project, no image_shape, no
                source of depth.
        """
        if bev_resolution is not None or bev_size is not None:
            grid = replace(
                self,
                resolution=self.resolution if bev_resolution is None else bev_resolution,
                size=self.size if bev_size is None else bev_size,
            )
            return grid.create_bev_features(
                points, image_features, camera_params, image_shape=image_shape, depth=depth,
                images=images, visibility=visibility, byte_budget=byte_budget,
            )  # fmt: skip
        if image_shape is None:
            raise ValueError('give image_shape=(H, W) of the images the intrinsics belong to')
        camera = _cameras(camera_params, len(image_features), image_shape)
        num_views = camera.batch_shape[0]
        stacked = torch.stack(list(image_features))
        maps = feature_views({'image_features': stacked}, num_views, False)['image_features']
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))

        # where the depth comes from
        if depth is None:
            depth = _drawn_depth(points, camera, visibility, byte_budget)
        elif callable(depth):
            depth = _estimated_depth(depth, images)
        depth = depth_views(depth, num_views, num_views == 1)
        if visibility.edge_reject:
            depth = drop_depth_edges(depth, visibility)

        # every cell that has a depth falls into the column below it
        positions, present = lift_cells(camera, depth, size_of(maps))
        if self.height_range is not None:
            low, high = self.height_range
            present = present & (positions[..., 2] >= low) & (positions[..., 2] <= high)
        rows = maps.permute(0, 2, 3, 1)[present]  # (P, C)
        return self.splat_rows(positions[present], rows)

    def splat_rows(self, positions: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Any samples on the grid.

        Args:
            positions: (P, 3) world coordinates in metres.
            rows: (P, C).

        Returns:
            Grid (C, Y, X) and the shares (Y, X), as ``create_bev_features``.
        """
        cell, share, sample = self._cells(positions)
        share = share.to(rows.dtype)
        height, width = self.size
        weight = share.new_zeros(height * width).index_add(0, cell, share)  # (Y·X,)

        picked = rows[sample]
        grid = rows.new_zeros(height * width, rows.shape[1])
        if self.reduce == 'max':
            index = cell[:, None].expand(-1, rows.shape[1])
            grid = grid.scatter_reduce(0, index, picked, 'amax', include_self=False)
        else:
            if self.splat == 'bilinear':
                picked = picked * share[:, None]
            grid = grid.index_add(0, cell, picked)  # (Y·X, C)
        if self.reduce == 'mean':
            grid = grid / torch.where(weight > 0, weight, 1.0)[:, None]
        return grid.T.unflatten(1, self.size), weight.unflatten(0, self.size)

    def read_at_points(
        self, bev: Tensor, points: Tensor, mode: str = 'bilinear'
    ) -> tuple[Tensor, Tensor]:
        """Read a grid in the columns of points.

        Args:
            bev: (C, Y, X) of this grid.
            points: (N, 3) metres.
            mode: 'bilinear', 'nearest' or 'bicubic'.

        Returns:
            (N, C), zeros outside the grid, and which points lie inside (N,) bool.

        Raises:
            ValueError: a grid of another size.
        """
        height, width = self.size
        expect_shape('bev', bev, 'C Y X', Y=height, X=width)
        uv = self.pixels(check_points(points))
        inside = ((uv >= -0.5) & (uv < uv.new_tensor([width - 0.5, height - 0.5]))).all(-1)
        rows = sample_map(bev, uv, self.size, mode)
        return torch.where(inside[:, None], rows, 0.0), inside

    def pixels(self, points: Tensor) -> Tensor:
        """(…, 3) metres → (…, 2) column and row; the centre of the first cell is (0, 0)."""
        height, width = self.size
        corner = points.new_tensor(self.center) - 0.5 * self.resolution * points.new_tensor(
            [width, height]
        )
        return (points[..., :2] - corner) / self.resolution - 0.5

    def _cells(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cell, share and sample of everything that falls on the grid: three (Q,) vectors."""
        uv = self.pixels(positions)
        height, width = self.size
        if self.splat == 'nearest':
            corner, weight = (uv + 0.5).floor()[None], uv.new_ones(1, len(uv))  # (1, P, 2)
        else:
            # the four cells around, each with the share (1 − |Δx|)(1 − |Δy|)
            first = uv.detach().floor()
            right, below = (uv - first).unbind(-1)
            step = uv.new_tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
            corner = first + step[:, None]  # (4, P, 2)
            across = torch.stack((1 - right, right, 1 - right, right))
            weight = across * torch.stack((1 - below, 1 - below, below, below))

        column, row = corner.unbind(-1)
        hit = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        sample = hit.nonzero()[:, 1]
        cell = (row[hit] * width + column[hit]).long()
        return cell, weight[hit], sample


def lift_cells(camera: Camera, depth: Tensor, map_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """World position of the centre of every cell of a feature map.

    Args:
        camera: V views of the image.
        depth: (V, H', W') metres, 0 for missing, any resolution of the same field of view.
        map_size: (h, w).

    Returns:
        (V, h, w, 3) metres, and where the depth is there (V, h, w) bool.
    """
    small = camera.resize(map_size).to(depth.device, depth.dtype)
    u, v = pixel_grid(map_size, depth)
    shape = (len(depth), len(u))
    at_centre = nearest_pixel(depth, u.expand(shape), v.expand(shape), map_size)
    at_centre = at_centre.unflatten(1, map_size)  # (V, h, w)

    present = (at_centre > 0) & (at_centre < torch.inf)
    return small.unproject(torch.where(present, at_centre, 0.0)), present


def _cameras(
    camera_params: Sequence[tuple[Tensor, Tensor]], num_maps: int, image_shape: tuple[int, int]
) -> Camera:
    if len(camera_params) != num_maps or num_maps == 0:
        raise ValueError(
            f'expected as many cameras as feature maps and at least one, got {len(camera_params)} '
            f'and {num_maps}'
        )
    intrinsics, extrinsics = (torch.stack(list(x)) for x in zip(*camera_params))
    return camera_views(intrinsics, extrinsics, image_shape)[0]


def _drawn_depth(
    points: Tensor | None, camera: Camera, visibility: Visibility, byte_budget: int
) -> Tensor:
    if points is None:
        raise ValueError('no depth: give depth maps, a function, or points for a z-buffer')
    return zbuffer_views(check_points(points), camera, visibility, byte_budget)


def _estimated_depth(function: DepthFunction, images: Tensor | None) -> Tensor:
    if images is None:
        raise ValueError('a depth function needs images')
    depth = function(images)
    if not isinstance(depth, Tensor):
        raise ValueError(f'the depth function must return a tensor, got {type(depth).__name__}')
    return depth
