"""Encoders of plain points: voxelise, run a sparse U-Net, give every point its voxel's feature.

Enters: ``inputs = dict(points=[(N, 3 + F)], elastic_coords=[(N, 3)] or absent)``, xyz in metres
and normalised colours; with ``side_channels`` also ``side_features`` (sum N, E). Leaves:
``PointFeatures``. Any ``PointEncoder`` can take their place in a segmentor, and one that adds image
features can build on them.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from oneformer3d.backbones.sparse_conv import (
    BatchNorm1d,
    SideSubMConv3d,
    SparseSequential,
    SubMConv3d,
)
from oneformer3d.backbones.sparse_tensor import SparseTensor
from oneformer3d.backbones.voxelize import scatter_mean, voxelize
from oneformer3d.lifting.shapes import expect_shape
from oneformer3d.registry import MODELS
from oneformer3d.structures import PointEncoder, PointFeatures, VoxelGrid


class VoxelEncoder(PointEncoder):
    """Base of the encoders; subclasses define ``encode_voxels``.

    Args:
        in_channels: channels of a voxel: F, or F + 3 with ``use_xyz``.
        voxel_size: edge length in metres.
        min_spatial_shape: lower bound of the grid extent along each axis, in voxels.
        subtract_min: start the grid of each sample at its smallest coordinate.
        use_xyz: append coordinates relative to the sample's mean to the features.
        side_channels: E of ``side_features``, which the first convolution reads beside the others
            by weights that start at zero; absent ones are zeros.
        random_grid_start: in training, begin the grid of each sample up to a whole period of the
            network before that, anew in each step and along each axis.

    Strided convolutions group voxels by their place in the grid. Where every training grid begins
    at the lowest point, and that is a floor, the network learns that floor is the first layer of
    voxels, and one stray point below takes it away; ``random_grid_start`` leaves nothing to learn.
    """

    def __init__(
        self,
        in_channels: int,
        voxel_size: float,
        min_spatial_shape: int,
        subtract_min: bool,
        use_xyz: bool,
        random_grid_start: bool = False,
        side_channels: int = 0,
    ) -> None:
        super().__init__()
        self.side_channels = side_channels
        self.in_channels = in_channels
        self.voxel_size = voxel_size
        self.min_spatial_shape = min_spatial_shape
        self.subtract_min = subtract_min
        self.use_xyz = use_xyz
        self.random_grid_start = random_grid_start

    @property
    def grid_period(self) -> int:
        """Voxels after which the network sees the same grid again: its total stride."""
        raise NotImplementedError

    def forward(self, inputs: dict, data_samples: list | None = None) -> PointFeatures:
        """Features of all points; ``data_samples`` are not read."""
        grid = self.voxelize(inputs)
        voxel_features = self.encode_voxels(grid)  # (M, D)
        return PointFeatures(
            voxel_features[grid.voxel_of_point], grid.voxel_of_point, grid.num_points
        )

    def voxelize(self, inputs: dict) -> VoxelGrid:
        """The batch as voxels.

        Raises:
            ValueError: points have another number of channels than the encoder, or are empty or
                not finite.
        """
        points = inputs['points']
        for i, sample in enumerate(points):
            expected = self.in_channels if self.use_xyz else self.in_channels + 3
            if sample.ndim != 2 or sample.shape[1] != expected or len(sample) == 0:
                raise ValueError(
                    f'sample {i}: expected points (N ≥ 1, {expected}), got {tuple(sample.shape)}'
                )

        grid = voxelize(
            points,
            [self.point_features(sample) for sample in points],
            self.voxel_size,
            elastic_coords=inputs.get('elastic_coords'),
            subtract_min=self.subtract_min,
            min_spatial_shape=self.min_spatial_shape,
            grid_starts=self._grid_starts(len(points)),
        )
        return self._with_side(grid, inputs.get('side_features')) if self.side_channels else grid

    def _with_side(self, grid: VoxelGrid, side: Tensor | None) -> VoxelGrid:
        """Voxels with (M, in_channels + E); the means of the first channels keep their bits."""
        if side is None:
            side = grid.features.new_zeros(sum(grid.num_points), self.side_channels)
        expect_shape('side_features', side, 'N E', N=sum(grid.num_points), E=self.side_channels)
        side = scatter_mean(side, grid.voxel_of_point, len(grid.features))  # (M, E)
        return replace(grid, features=torch.cat((grid.features, side.to(grid.features)), dim=1))

    def _grid_starts(self, num_samples: int) -> Tensor | None:
        """(B, 3) random voxels in training, or None; drawn on the CPU, as all of a run's draws."""
        if not (self.training and self.random_grid_start):
            return None
        return torch.rand(num_samples, 3) * self.grid_period

    def point_features(self, points: Tensor) -> Tensor:
        """What is averaged over the (N, 3 + F) points of a voxel: (N, in_channels)."""
        if not self.use_xyz:
            return points[:, 3:]

        # the mean is taken in float64, so it is the same on every device
        xyz = points[:, :3]
        centre = xyz.double().mean(0).to(xyz.dtype)
        return torch.cat([points[:, 3:], xyz - centre], dim=1)

    def encode_voxels(self, grid: VoxelGrid) -> Tensor:
        """Features of voxels, (M, D)."""
        raise NotImplementedError


@MODELS.register_module()
class SpConvUNetEncoder(VoxelEncoder):
    """Submanifold convolution, sparse U-Net, batch norm and ReLU (SPFormer's encoder).

    Args:
        backbone: settings of the U-Net, which keeps ``num_channels``.
        in_channels: channels of a voxel, colours and centred xyz.
        num_channels: D.
        voxel_size: edge length in metres.
        min_spatial_shape: lower bound of the grid extent along each axis, in voxels.
        random_grid_start, side_channels: see ``VoxelEncoder``.
    """

    def __init__(
        self,
        backbone: dict,
        in_channels: int = 6,
        num_channels: int = 32,
        voxel_size: float = 0.02,
        min_spatial_shape: int = 128,
        random_grid_start: bool = False,
        side_channels: int = 0,
    ) -> None:
        super().__init__(
            in_channels,
            voxel_size,
            min_spatial_shape,
            subtract_min=True,
            use_xyz=True,
            random_grid_start=random_grid_start,
            side_channels=side_channels,
        )
        self.input_conv = SparseSequential(
            SideSubMConv3d(in_channels, num_channels, side_channels)
            if side_channels
            else SubMConv3d(in_channels, num_channels, kernel_size=3)
        )
        self.unet = MODELS.build(backbone)
        self.output_layer = SparseSequential(
            BatchNorm1d(num_channels, eps=1e-4, momentum=0.1), nn.ReLU()
        )

    @property
    def grid_period(self) -> int:
        """See ``VoxelEncoder``."""
        return self.unet.total_stride

    def encode_voxels(self, grid: VoxelGrid) -> Tensor:
        """Features of voxels, (M, num_channels)."""
        return self.output_layer(self.unet(self.input_conv(_sparse(grid)))).features


@MODELS.register_module()
class BackboneEncoder(VoxelEncoder):
    """A sparse backbone alone, on colours and a grid fixed in the world (as for ScanNet200).

    Args:
        backbone: settings with ``in_channels``, of a network that knows its ``total_stride``.
        voxel_size: edge length in metres.
        min_spatial_shape: lower bound of the grid extent along each axis, in voxels.
        random_grid_start, side_channels: see ``VoxelEncoder``; the backbone gets ``side_channels``
            too.
    """

    def __init__(
        self,
        backbone: dict,
        voxel_size: float = 0.02,
        min_spatial_shape: int = 1,
        random_grid_start: bool = False,
        side_channels: int = 0,
    ) -> None:
        super().__init__(
            backbone['in_channels'],
            voxel_size,
            min_spatial_shape,
            subtract_min=False,
            use_xyz=False,
            random_grid_start=random_grid_start,
            side_channels=side_channels,
        )
        side = {'side_channels': side_channels} if side_channels else {}
        self.backbone = MODELS.build({**backbone, **side})

    @property
    def grid_period(self) -> int:
        """See ``VoxelEncoder``."""
        return self.backbone.total_stride

    def encode_voxels(self, grid: VoxelGrid) -> Tensor:
        """Features of voxels, (M, D)."""
        return self.backbone(_sparse(grid)).features


def _sparse(grid: VoxelGrid) -> SparseTensor:
    return SparseTensor(grid.features, grid.coords, grid.spatial_shape, grid.batch_size)
