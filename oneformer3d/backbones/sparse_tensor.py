"""The record that sparse layers pass on: features at occupied voxels.

Enters: features and coordinates of voxels. Leaves: a ``SparseTensor``, checked. N occupied voxels,
C channels.
"""

from dataclasses import dataclass, field, replace

from torch import Tensor

from oneformer3d.lifting.shapes import expect_shape

from .rulebook import Triple

BACKENDS = ('auto', 'torch', 'spconv')


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """Features of occupied voxels.

    Attributes:
        features: (N, C) float.
        coords: (N, 4) integers ``[batch, x, y, z]`` ≥ 0, each row once.
        spatial_shape: extents of the grid along x, y, z.
        batch_size: number of samples.
        backend: 'torch', 'spconv', or 'auto': spconv for CUDA tensors, else torch.
        indice_cache: rulebooks by layer key, shared by all tensors derived from this one.
    """

    features: Tensor
    coords: Tensor
    spatial_shape: Triple
    batch_size: int
    backend: str = 'auto'
    indice_cache: dict = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        expect_shape('coords', self.coords, 'N 4')
        if self.coords.is_floating_point():
            raise ValueError(f'coords: expected integers, got {self.coords.dtype}')
        expect_shape('features', self.features, 'N C', N=len(self.coords))
        if self.backend not in BACKENDS:
            raise ValueError(f'backend: expected one of {BACKENDS}, got {self.backend!r}')
        object.__setattr__(self, 'spatial_shape', tuple(int(s) for s in self.spatial_shape))

    def with_features(self, features: Tensor) -> 'SparseTensor':
        """The same voxels with other features."""
        return replace(self, features=features)

    @property
    def uses_spconv(self) -> bool:
        """Whether convolutions of this tensor run in spconv."""
        return self.backend == 'spconv' or (self.backend == 'auto' and self.features.is_cuda)
