"""Residual sparse U-Net of ScanNet200 (Mask3D's Res16UNet34C), without MinkowskiEngine.

Enters: a ``SparseTensor`` of in_channels. Leaves: the same voxels with 96 channels.

Four levels down, each a 2×2×2 convolution of stride 2 and residual blocks, and four up, each an
inverse convolution, the skipped features and residual blocks. Parameters have MinkowskiEngine's
names and layout, ``kernel`` (K, in, out) or (in, out) for K = 1, so its checkpoints load as they
are; ``weight_from_minkowski_kernel`` gives the same kernel in spconv's layout.

MinkowskiEngine numbers the offsets of a kernel with x fastest, from −(k − 1)/2 for odd and from 0
for even sizes (Choy et al., CVPR 2019, and its ``kernel_region.hpp``).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from oneformer3d.registry import MODELS

from .sparse_conv import (
    BatchNorm1d,
    SparseModule,
    SparseSequential,
    concatenate,
    inverse_convolution,
    pointwise_convolution,
    strided_convolution,
    submanifold_convolution,
)
from .sparse_tensor import SparseTensor

STEM_PLANES = 32
BLOCK_NORM_MOMENTUM = 0.1
TOTAL_STRIDE = 16


@MODELS.register_module()
class Res16UNet34C(SparseModule):
    """Sparse U-Net with 34 convolutions in its residual blocks.

    Args:
        in_channels: channels of a voxel.
        out_channels: of ``final``, a layer of the published checkpoints that is not part of the
            forward pass: the features returned are those before it.
        side_channels: E of further channels of a voxel, which the first convolution reads by
            weights that start at zero, see ``SideConvolution``.
        config: ``conv1_kernel_size`` of the first convolution, ``bn_momentum`` of the
            normalisations outside the residual blocks, and ``dilations`` of the blocks of the four
            levels down.

    Raises:
        ValueError: ``config`` with unknown keys or another number of dilations.
    """

    planes = (32, 64, 128, 256, 256, 128, 96, 96)
    layers = (2, 3, 4, 6, 2, 2, 2, 2)
    total_stride = TOTAL_STRIDE

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: Mapping | None = None,
        side_channels: int = 0,
    ) -> None:
        super().__init__()
        settings = {'dilations': (1, 1, 1, 1), 'conv1_kernel_size': 5, 'bn_momentum': 0.02}
        unknown = set(config or {}) - set(settings)
        if unknown:
            raise ValueError(f'Res16UNet34C: unknown keys in config: {sorted(unknown)}')
        settings.update(config or {})
        if len(settings['dilations']) != 4:
            raise ValueError(f'dilations: expected 4 numbers, got {settings["dilations"]}')
        momentum = settings['bn_momentum']

        # Names such as conv2p4s2 tell the stride before, those such as bntr4 the level.
        kernel_size = settings['conv1_kernel_size']
        self.conv0p1s1: Convolution = (
            SideConvolution(in_channels, STEM_PLANES, side_channels, kernel_size)
            if side_channels
            else Convolution(in_channels, STEM_PLANES, kernel_size)
        )
        self.bn0 = Norm(STEM_PLANES, momentum)

        planes = STEM_PLANES
        skipped_planes = [STEM_PLANES]
        for i, dilation in enumerate(settings['dilations']):
            name = f'conv{i + 1}p{2**i}s2'
            self.add_module(name, DownConvolution(planes, planes, indice_key=f'down{i}'))
            self.add_module(f'bn{i + 1}', Norm(planes, momentum))
            blocks = _blocks(planes, self.planes[i], self.layers[i], dilation, momentum)
            self.add_module(f'block{i + 1}', blocks)
            planes = self.planes[i]
            skipped_planes.append(planes)

        for i in range(4, 8):
            name = f'convtr{i}p{2 ** (8 - i)}s2'
            out_planes = self.planes[i]
            self.add_module(name, UpConvolution(planes, out_planes, indice_key=f'down{7 - i}'))
            self.add_module(f'bntr{i}', Norm(out_planes, momentum))
            planes = out_planes + skipped_planes[7 - i]
            blocks = _blocks(planes, out_planes, self.layers[i], 1, momentum)
            self.add_module(f'block{i + 1}', blocks)
            planes = out_planes

        self.final = Convolution(planes, out_channels, 1, bias=True).requires_grad_(False)
        self.relu = nn.ReLU()

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        """Features of the finest level, (M, 96)."""
        # No voxel may fall off the end of a level: extents become multiples of the total stride.
        shape = tuple(-(-s // TOTAL_STRIDE) * TOTAL_STRIDE for s in tensor.spatial_shape)
        out = self._norm_relu(self.bn0, self.conv0p1s1(replace(tensor, spatial_shape=shape)))

        skipped = [out]
        for i in range(1, 5):
            out = self.get_submodule(f'conv{i}p{2 ** (i - 1)}s2')(out)
            out = self._norm_relu(self.get_submodule(f'bn{i}'), out)
            out = self.get_submodule(f'block{i}')(out)
            skipped.append(out)

        for i in range(4, 8):
            out = self.get_submodule(f'convtr{i}p{2 ** (8 - i)}s2')(out)
            out = self._norm_relu(self.get_submodule(f'bntr{i}'), out)
            out = self.get_submodule(f'block{i + 1}')(concatenate(out, skipped[7 - i]))

        return replace(out, spatial_shape=tensor.spatial_shape)

    def _norm_relu(self, norm: nn.Module, tensor: SparseTensor) -> SparseTensor:
        return tensor.with_features(self.relu(norm(tensor.features)))


class Convolution(SparseModule):
    """Submanifold convolution with MinkowskiEngine's parameters.

    Args:
        in_channels, out_channels: C and D.
        kernel_size: odd.
        dilation: distance between kernel offsets.
        bias: add a learned (1, D) vector.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dilation: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.dilation = kernel_size, dilation
        self.kernel = _new_kernel(in_channels, out_channels, kernel_size)
        self.bias = nn.Parameter(torch.zeros(1, out_channels)) if bias else None

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        if self.kernel_size == 1:
            return pointwise_convolution(tensor, self.kernel, self.bias)
        weight = weight_from_minkowski_kernel(self.kernel)
        dilation = (self.dilation, self.dilation, self.dilation)
        return submanifold_convolution(tensor, weight, self.bias, dilation)


class SideConvolution(Convolution):
    """``SideSubMConv3d`` with MinkowskiEngine's parameters.

    Args:
        in_channels, out_channels: C and D.
        side_channels: E.
        kernel_size: odd, 3 at least.
    """

    def __init__(
        self, in_channels: int, out_channels: int, side_channels: int, kernel_size: int
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.early = nn.Parameter(torch.zeros(kernel_size**3, side_channels, out_channels))

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        """(M, C + E) → (M, D)."""
        x, x_side = tensor.features.split((self.kernel.shape[-2], self.early.shape[-2]), dim=1)
        main = super().forward(tensor.with_features(x))  # (M, D)
        weight = weight_from_minkowski_kernel(self.early)
        side = submanifold_convolution(tensor.with_features(x_side), weight)
        return main.with_features(main.features + side.features)


class DownConvolution(SparseModule):
    """2×2×2 convolution of stride 2 with MinkowskiEngine's parameters."""

    def __init__(self, in_channels: int, out_channels: int, indice_key: str) -> None:
        super().__init__()
        self.indice_key = indice_key
        self.kernel = _new_kernel(in_channels, out_channels, 2)

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        weight = weight_from_minkowski_kernel(self.kernel)
        return strided_convolution(tensor, weight, stride=(2, 2, 2), indice_key=self.indice_key)


class UpConvolution(SparseModule):
    """Inverse of the ``DownConvolution`` of the same ``indice_key``."""

    def __init__(self, in_channels: int, out_channels: int, indice_key: str) -> None:
        super().__init__()
        self.indice_key = indice_key
        self.kernel = _new_kernel(in_channels, out_channels, 2)

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        weight = weight_from_minkowski_kernel(self.kernel)
        return inverse_convolution(tensor, weight, self.indice_key)


class Norm(nn.Module):
    """Batch normalisation whose parameters are named ``bn.…``."""

    def __init__(self, num_features: int, momentum: float) -> None:
        super().__init__()
        self.bn = BatchNorm1d(num_features, momentum=momentum)

    def forward(self, features: Tensor) -> Tensor:
        return self.bn(features)


class BasicBlock(SparseModule):
    """Two 3×3×3 convolutions, normalised after each, and the input or its projection added."""

    def __init__(self, in_planes: int, planes: int, dilation: int, momentum: float) -> None:
        super().__init__()
        self.conv1 = Convolution(in_planes, planes, 3, dilation)
        self.norm1 = Norm(planes, BLOCK_NORM_MOMENTUM)
        self.conv2 = Convolution(planes, planes, 3, dilation)
        self.norm2 = Norm(planes, BLOCK_NORM_MOMENTUM)
        self.relu = nn.ReLU()
        self.downsample = None
        if in_planes != planes:
            self.downsample = SparseSequential(
                Convolution(in_planes, planes, 1), Norm(planes, momentum)
            )

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        out = self.conv1(tensor)
        out = self.conv2(out.with_features(self.relu(self.norm1(out.features))))
        identity = tensor if self.downsample is None else self.downsample(tensor)
        return out.with_features(self.relu(self.norm2(out.features) + identity.features))


def weight_from_minkowski_kernel(kernel: Tensor) -> Tensor:
    """A kernel in MinkowskiEngine's layout as a weight in spconv's.

    Args:
        kernel: (K, in, out), K = k³ and x fastest.

    Returns:
        (out, k, k, k, in), x slowest. Not for K = 1, which spconv reads differently.

    Raises:
        ValueError: the first extent is no cube.
    """
    size = round(len(kernel) ** (1 / 3))
    if kernel.ndim != 3 or size**3 != len(kernel):
        raise ValueError(f'kernel: expected (k³, in, out), got {tuple(kernel.shape)}')
    return kernel.view(size, size, size, *kernel.shape[1:]).permute(4, 2, 1, 0, 3)


def _new_kernel(in_channels: int, out_channels: int, kernel_size: int) -> nn.Parameter:
    """Uniform in ±1/√fan_in."""
    volume = kernel_size**3
    shape: Sequence[int] = (in_channels, out_channels)
    kernel = torch.empty(shape if volume == 1 else (volume, *shape))
    bound = 1 / math.sqrt(in_channels * volume)
    return nn.Parameter(kernel.uniform_(-bound, bound))


def _blocks(
    in_planes: int, planes: int, num_blocks: int, dilation: int, momentum: float
) -> SparseSequential:
    return SparseSequential(
        *(
            BasicBlock(in_planes if i == 0 else planes, planes, dilation, momentum)
            for i in range(num_blocks)
        )
    )
