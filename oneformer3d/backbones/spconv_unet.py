"""Sparse U-Net of submanifold residual blocks (SSTNet, SPFormer, OneFormer3D).

Enters: a ``SparseTensor`` with ``num_planes[0]`` channels. Leaves: the same voxels with as many
channels.

A level holds ``blocks`` (C → C), goes down by a strided convolution ``conv``, through the next
level ``u``, up again by ``deconv``, and merges with its own features in ``blocks_tail``
(2C → C). The last level holds ``blocks`` only. Parameter names are those of the published models.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from oneformer3d.registry import MODELS

from .sparse_conv import (
    BatchNorm1d,
    SparseConv3d,
    SparseInverseConv3d,
    SparseModule,
    SparseSequential,
    SubMConv3d,
    concatenate,
)
from .sparse_tensor import SparseTensor

Norm = Callable[[int], BatchNorm1d]


@MODELS.register_module()
class SpConvUNet(SparseModule):
    """One level of the U-Net together with all levels below it.

    Args:
        num_planes: channels of each level, from the finest to the coarsest.
        return_blocks: part of the published settings; without effect, ``forward_levels`` gives
            the features of all levels whenever they are wanted.
        block_reps: residual blocks per side of a level.
        norm_eps, norm_momentum: of the batch normalisations.
        level: 1 for the finest; names the strided convolutions.
    """

    def __init__(
        self,
        num_planes: Sequence[int],
        return_blocks: bool = False,
        block_reps: int = 2,
        norm_eps: float = 1e-4,
        norm_momentum: float = 0.1,
        level: int = 1,
    ) -> None:
        super().__init__()
        if not num_planes or min(num_planes) < 1:
            raise ValueError(f'num_planes: expected positive channel counts, got {num_planes}')
        if block_reps < 1:
            raise ValueError(f'block_reps: expected at least 1, got {block_reps}')
        self.return_blocks = return_blocks
        self.total_stride = 2 ** (len(num_planes) - 1)  # of the coarsest level

        norm = partial(BatchNorm1d, eps=norm_eps, momentum=norm_momentum)
        planes = num_planes[0]
        self.blocks = _residual_blocks(planes, planes, block_reps, norm)
        self.has_next = len(num_planes) > 1
        if not self.has_next:
            return

        # down, through all coarser levels, and up again
        next_planes, indice_key = num_planes[1], f'down{level}'
        self.conv = SparseSequential(
            norm(planes),
            nn.ReLU(),
            SparseConv3d(planes, next_planes, kernel_size=2, stride=2, indice_key=indice_key),
        )
        self.u = SpConvUNet(
            num_planes[1:], return_blocks, block_reps, norm_eps, norm_momentum, level + 1
        )
        self.deconv = SparseSequential(
            norm(next_planes),
            nn.ReLU(),
            SparseInverseConv3d(next_planes, planes, kernel_size=2, indice_key=indice_key),
        )

        self.blocks_tail = _residual_blocks(2 * planes, planes, block_reps, norm)

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        """Features of the finest level."""
        return self.forward_levels(tensor)[-1]

    def forward_levels(self, tensor: SparseTensor) -> list[SparseTensor]:
        """Decoder features of every level, from the coarsest to the finest."""
        tensor = self.blocks(tensor)
        if not self.has_next:
            return [tensor]
        coarser = self.u.forward_levels(self.conv(tensor))
        merged = concatenate(tensor, self.deconv(coarser[-1]))
        return [*coarser, self.blocks_tail(merged)]


class ResidualBlock(SparseModule):
    """``i_branch(x) + conv_branch(x)``, normalised before each of two 3×3×3 convolutions.

    Args:
        in_planes, out_planes: channels; where they differ the identity is a 1×1×1 convolution.
        norm: makes the normalisation of so many channels.
    """

    def __init__(self, in_planes: int, out_planes: int, norm: Norm) -> None:
        super().__init__()
        if in_planes == out_planes:
            self.i_branch = SparseSequential(nn.Identity())
        else:
            self.i_branch = SparseSequential(SubMConv3d(in_planes, out_planes, kernel_size=1))
        self.conv_branch = SparseSequential(
            norm(in_planes),
            nn.ReLU(),
            SubMConv3d(in_planes, out_planes, kernel_size=3),
            norm(out_planes),
            nn.ReLU(),
            SubMConv3d(out_planes, out_planes, kernel_size=3),
        )

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        out = self.conv_branch(tensor)
        return out.with_features(self.i_branch(tensor).features + out.features)


def _residual_blocks(
    in_planes: int, out_planes: int, num_blocks: int, norm: Norm
) -> SparseSequential:
    blocks = OrderedDict()
    for i in range(num_blocks):
        blocks[f'block{i}'] = ResidualBlock(in_planes if i == 0 else out_planes, out_planes, norm)
    return SparseSequential(blocks)
