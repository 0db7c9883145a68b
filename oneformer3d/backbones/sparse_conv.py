"""Sparse 3D convolution behind one interface: plain torch on the CPU, ``spconv`` on CUDA.

Enters and leaves: a ``SparseTensor``, features (N, C) of N occupied voxels. Parameters have the
names and the layout of spconv ≥ 2.2: ``weight`` (out, kD, kH, kW, in), with kD, kH, kW along
x, y, z of the coordinates.

A convolution equals the dense one on the occupied voxels: ``SubMConv3d`` keeps the voxels,
``SparseConv3d`` makes those that see an occupied one, ``SparseInverseConv3d`` returns to the voxels
a ``SparseConv3d`` started from. The exception are 1×1×1 kernels: spconv multiplies by
``weight.reshape(in, out)``, which reinterprets the (out, 1, 1, 1, in) buffer instead of transposing
it, and so do all weights trained with it.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneformer3d.files.devices import has_bfloat16_instructions

from . import spconv_backend
from .gather_matmul import gather_matmul
from .rulebook import Rulebook, Triple, strided_rulebook, submanifold_rulebook
from .sparse_tensor import SparseTensor


class SparseModule(nn.Module):
    """Base of the modules that take and return a ``SparseTensor``."""


class SparseSequential(nn.Sequential, SparseModule):
    """Sequence of sparse modules and of ordinary ones, which are applied to the features."""

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        for module in self:
            if isinstance(module, SparseModule):
                tensor = module(tensor)
            else:
                tensor = tensor.with_features(module(tensor.features))
        return tensor


class BatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation that uses its running statistics where one row has no variance."""

    def forward(self, features: Tensor) -> Tensor:
        if self.training and len(features) < 2:
            return F.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(features)


class _SparseConvolution(SparseModule):
    """Parameters shared by the three convolutions."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | Triple, bias: bool
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _triple(kernel_size)
        self.weight = nn.Parameter(torch.empty(out_channels, *self.kernel_size, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ±1/√fan_in, as for ``torch.nn.Conv3d``."""
        bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        return f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}'


class SubMConv3d(_SparseConvolution):
    """Submanifold convolution: the output voxels are the input voxels.

    Layers with equal kernels on equal voxels share a rulebook by themselves.

    Args:
        in_channels, out_channels: C and D.
        kernel_size: odd.
        dilation: distance between kernel offsets.
        bias: add a learned vector to every output row.
        padding: accepted as in spconv, where it has no effect either.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Triple = 3,
        dilation: int | Triple = 1,
        bias: bool = False,
        padding: int | Triple = 0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias)
        self.dilation = _triple(dilation)
        if any(k % 2 == 0 for k in self.kernel_size):
            raise ValueError(f'SubMConv3d: expected an odd kernel, got {self.kernel_size}')

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        if self.kernel_size == (1, 1, 1):
            kernel = self.weight.reshape(self.in_channels, self.out_channels)
            return pointwise_convolution(tensor, kernel, self.bias)
        return submanifold_convolution(tensor, self.weight, self.bias, self.dilation)


class SideSubMConv3d(SubMConv3d):
    """A submanifold convolution of two inputs side by side, which starts without the second.

        y = W ∗ x + b + W_early ∗ x_side

    The weights of the second input are a parameter of their own, ``early``, that starts at zero.
    Weights of a convolution of the first input alone load as they are, and give the same bits.
    Configs let the decoder's ``side`` learn at ten times the rate; the name is another here because
    that rate, at the network's entrance, changes all that follows (docs/results.md).

    Args:
        in_channels, out_channels: C of x, and D.
        side_channels: E of x_side.
        kernel_size: odd.

    Example:
        >>> SideSubMConv3d(6, 32, side_channels=48).early.shape
        torch.Size([32, 3, 3, 3, 48])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        side_channels: int,
        kernel_size: int | Triple = 3,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.early = nn.Parameter(torch.zeros(out_channels, *self.kernel_size, side_channels))

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        """(M, C + E) → (M, D)."""
        x, x_side = tensor.features.split((self.in_channels, self.early.shape[-1]), dim=1)
        main = super().forward(tensor.with_features(x))  # (M, D)
        side = submanifold_convolution(
            tensor.with_features(x_side), self.early, dilation=self.dilation
        )
        return main.with_features(main.features + side.features)


class SparseConv3d(_SparseConvolution):
    """Strided convolution: the output voxels are all that see an input voxel.

    Args:
        in_channels, out_channels: C and D.
        kernel_size, stride, padding, dilation: as of ``torch.nn.Conv3d``.
        bias: add a learned vector to every output row.
        indice_key: name by which a ``SparseInverseConv3d`` finds the way back.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Triple = 2,
        stride: int | Triple = 2,
        padding: int | Triple = 0,
        dilation: int | Triple = 1,
        bias: bool = False,
        indice_key: str | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias)
        self.stride, self.padding = _triple(stride), _triple(padding)
        self.dilation = _triple(dilation)
        self.indice_key = indice_key

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        if self.kernel_size == self.stride == (1, 1, 1):
            if self.padding != (0, 0, 0):
                raise ValueError(f'padding: expected 0 for a 1×1×1 kernel, got {self.padding}')
            kernel = self.weight.reshape(self.in_channels, self.out_channels)
            return pointwise_convolution(tensor, kernel, self.bias)
        return strided_convolution(
            tensor,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.indice_key,
        )


class SparseInverseConv3d(_SparseConvolution):
    """Transposed convolution back onto the voxels that a ``SparseConv3d`` read.

    Args:
        in_channels, out_channels: C and D.
        kernel_size: of that convolution.
        indice_key: of that convolution.
        bias: add a learned vector to every output row.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Triple,
        indice_key: str,
        bias: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias)
        self.indice_key = indice_key

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        return inverse_convolution(tensor, self.weight, self.indice_key, self.bias)


def submanifold_convolution(
    tensor: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: Triple = (1, 1, 1),
) -> SparseTensor:
    """Convolution onto the same voxels; weight (out, kD, kH, kW, in) with odd extents."""
    if tensor.uses_spconv:
        return spconv_backend.submanifold(tensor, weight, bias, dilation)

    kernel_size = _kernel_size(weight)
    # The rulebook in the cache holds on to these very coordinates, so their id stays theirs.
    rulebook = _cached(
        tensor,
        ('submanifold', id(tensor.coords), kernel_size, dilation),
        lambda: submanifold_rulebook(tensor.coords, tensor.spatial_shape, kernel_size, dilation),
    )
    return tensor.with_features(_convolve(tensor.features, weight, rulebook, bias))


def strided_convolution(
    tensor: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Triple = (1, 1, 1),
    padding: Triple = (0, 0, 0),
    dilation: Triple = (1, 1, 1),
    indice_key: str | None = None,
) -> SparseTensor:
    """Convolution onto all voxels that see an input voxel; weight (out, kD, kH, kW, in).

    Raises:
        ValueError: ``indice_key`` belongs to another convolution already.
    """
    if tensor.uses_spconv:
        return spconv_backend.strided(tensor, weight, bias, stride, padding, dilation, indice_key)

    geometry = (_kernel_size(weight), stride, padding, dilation)
    rulebook = _cached(
        tensor,
        ('strided', id(tensor.coords), tensor.spatial_shape, *geometry),
        lambda: strided_rulebook(tensor.coords, tensor.spatial_shape, *geometry),
    )
    if indice_key is not None:
        named = tensor.indice_cache.setdefault(('named', indice_key), rulebook)
        if named is not rulebook:
            raise ValueError(f'indice_key {indice_key!r} names another convolution already')

    return replace(
        tensor,
        features=_convolve(tensor.features, weight, rulebook, bias),
        coords=rulebook.out_coords,
        spatial_shape=rulebook.out_shape,
    )


def inverse_convolution(
    tensor: SparseTensor, weight: Tensor, indice_key: str, bias: Tensor | None = None
) -> SparseTensor:
    """Transposed convolution back onto the voxels that the named convolution read.

    Raises:
        ValueError: no such convolution came before, or it made other voxels than the tensor's.
    """
    if tensor.uses_spconv:
        return spconv_backend.inverse(tensor, weight, bias, indice_key)
    rulebook = tensor.indice_cache.get(('named', indice_key))
    if rulebook is None:
        raise ValueError(f'no convolution with indice_key {indice_key!r} came before its inverse')
    if rulebook.out_coords is not tensor.coords:
        raise ValueError(f'indice_key {indice_key!r}: its convolution made other voxels than these')

    return replace(
        tensor,
        features=_convolve(tensor.features, weight, rulebook, bias, inverse=True),
        coords=rulebook.in_coords,
        spatial_shape=rulebook.in_shape,
    )


def pointwise_convolution(
    tensor: SparseTensor, kernel: Tensor, bias: Tensor | None = None
) -> SparseTensor:
    """``features @ kernel`` with kernel (in, out)."""
    features, kernel = _cast(tensor.features, kernel)
    with torch.autocast(features.device.type, enabled=False):
        return tensor.with_features(_plus_bias(features @ kernel, bias))


def concatenate(first: SparseTensor, second: SparseTensor) -> SparseTensor:
    """Channels of two tensors on the same voxels.

    Raises:
        ValueError: the voxels are not the same rows.
    """
    if first.coords is not second.coords:
        raise ValueError('expected features of the same voxels')
    return first.with_features(torch.cat([first.features, second.features], dim=1))


def _convolve(
    features: Tensor, weight: Tensor, rulebook: Rulebook, bias: Tensor | None, inverse: bool = False
) -> Tensor:
    """``gather_matmul``, and the bias."""
    if weight.shape[-1] != features.shape[1]:
        raise ValueError(f'features: expected {weight.shape[-1]} channels, got {features.shape[1]}')
    factors = None
    if features.device.type == 'cpu' and _multiplies_reduced():
        features, factors = features.to(weight.dtype), torch.bfloat16
    else:
        features, weight = _cast(features, weight)
    kernel = weight.flatten(1, 3).permute(1, 2, 0)  # (K, C, D)
    return _plus_bias(gather_matmul(features, kernel, rulebook, inverse, factors), bias)


def _multiplies_reduced() -> bool:
    """Whether autocast asks the CPU for bfloat16, and it has instructions for it."""
    return (
        torch.is_autocast_enabled('cpu')
        and torch.get_autocast_dtype('cpu') == torch.bfloat16
        and has_bfloat16_instructions()
    )


def _cast(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Operands in the data type of autocast: reduced on CUDA, the weight's on the CPU.

    A CPU compiles a half-precision product anew for every shape; here that takes longer than the
    product.
    """
    device = features.device.type
    if not torch.is_autocast_enabled(device):
        return features, weight
    dtype = weight.dtype if device == 'cpu' else torch.get_autocast_dtype(device)
    return features.to(dtype), weight.to(dtype)


def _cached(tensor: SparseTensor, key: tuple, build: Callable[[], Rulebook]) -> Rulebook:
    if key not in tensor.indice_cache:
        tensor.indice_cache[key] = build()
    return tensor.indice_cache[key]


def _plus_bias(features: Tensor, bias: Tensor | None) -> Tensor:
    return features if bias is None else features + bias.to(features.dtype)


def _triple(value: int | Triple) -> Triple:
    x, y, z = (value, value, value) if isinstance(value, int) else value
    return x, y, z


def _kernel_size(weight: Tensor) -> Triple:
    _, x, y, z, _ = weight.shape  # (out, kD, kH, kW, in)
    return x, y, z
