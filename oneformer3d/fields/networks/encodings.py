"""Encodings of positions and directions, and the maps into the unit cube they need.

Enters: unit-box positions (…, 3) or unit directions (…, 3). Leaves: (…, K) values for an MLP.
The hash grid is in ``hash_grid``.
"""

import math

import torch
from torch import Tensor, nn

from oneformer3d.lifting.shapes import expect_shape


class PositionalEncoding(nn.Module):
    """NeRF's encoding with the raw input: x, sin(2⁰x), cos(2⁰x), … (ECCV 2020, eq. 4, without π).

    Each sine and cosine covers all input dimensions before the next one begins.

    Args:
        input_dim: width of the input.
        encoding_dim: number of frequencies.
    """

    freq_bands: Tensor

    def __init__(self, input_dim: int, encoding_dim: int) -> None:
        super().__init__()
        if input_dim < 1 or encoding_dim < 0:
            raise ValueError(f'got input_dim {input_dim} and encoding_dim {encoding_dim}')
        self.input_dim = input_dim
        self.encoding_dim = encoding_dim
        self.register_buffer(
            'freq_bands', 2.0 ** torch.arange(encoding_dim, dtype=torch.float32), persistent=False
        )

    @property
    def output_dim(self) -> int:
        """``input_dim · (1 + 2 · encoding_dim)``."""
        return self.input_dim * (1 + 2 * self.encoding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(…, input_dim) → (…, input_dim · (1 + 2 · encoding_dim))."""
        expect_shape('x', x, f'... {self.input_dim}')
        angles = x[..., None, :] * self.freq_bands.to(x.dtype)[:, None]  # (…, frequencies, D)
        waves = torch.stack((angles.sin(), angles.cos()), dim=-2)  # (…, frequencies, 2, D)
        return torch.cat((x, waves.flatten(-3)), dim=-1)


class FrequencyEncoding(nn.Module):
    """tiny-cuda-nn's encoding: sin(2ᵏπx), cos(2ᵏπx) of every input in turn, without the input.

    Args:
        input_dim: width of the input.
        num_frequencies: 6 gives 36 values in 3D.
    """

    bands: Tensor

    def __init__(self, input_dim: int = 3, num_frequencies: int = 6) -> None:
        super().__init__()
        self.output_dim = 2 * input_dim * num_frequencies
        bands = math.pi * 2.0 ** torch.arange(num_frequencies, dtype=torch.float64)
        self.register_buffer('bands', bands, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) → (…, D · 2 · frequencies)."""
        angles = x[..., None] * self.bands.to(x.dtype)  # (…, D, frequencies)
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-3)


class SphericalHarmonics(nn.Module):
    """Real spherical harmonics of degree 0 … degree − 1, orthonormal over the sphere.

    Args:
        degree: 1 to 4, giving degree² values.
    """

    def __init__(self, degree: int = 4) -> None:
        super().__init__()
        if not 1 <= degree <= 4:
            raise ValueError(f'degree must be 1 … 4, got {degree}')
        self.degree = degree
        self.output_dim = degree**2

    def forward(self, directions: Tensor) -> Tensor:
        """Unit directions (…, 3) → (…, degree²)."""
        x, y, z = directions.unbind(-1)
        xx, yy, zz = x * x, y * y, z * z
        values = [torch.full_like(x, 0.5 * math.sqrt(1 / math.pi))]  # Y₀

        if self.degree > 1:  # Y₁: y, z, x
            c = math.sqrt(3 / (4 * math.pi))
            values += [c * y, c * z, c * x]

        if self.degree > 2:  # Y₂: xy, yz, 3z² − 1, xz, x² − y²
            c = 0.5 * math.sqrt(15 / math.pi)
            values += [c * x * y, c * y * z]
            values += [0.25 * math.sqrt(5 / math.pi) * (3 * zz - 1), c * x * z]
            values += [0.5 * c * (xx - yy)]

        if self.degree > 3:  # Y₃, by order from −3 to 3
            a = 0.25 * math.sqrt(35 / (2 * math.pi))
            b = 0.5 * math.sqrt(105 / math.pi)
            c = 0.25 * math.sqrt(21 / (2 * math.pi))
            values += [a * y * (3 * xx - yy), b * x * y * z, c * y * (5 * zz - 1)]
            values += [0.25 * math.sqrt(7 / math.pi) * z * (5 * zz - 3)]
            values += [c * x * (5 * zz - 1), 0.5 * b * z * (xx - yy), a * x * (xx - 3 * yy)]

        return torch.stack(values, dim=-1)


def contract(x: Tensor) -> Tensor:
    """L∞ scene contraction: all of space into [−2, 2]³, the unit box [−1, 1]³ left as it is.

    x where ‖x‖∞ ≤ 1, else (2 − 1/‖x‖∞) x/‖x‖∞ (mip-NeRF 360, CVPR 2022, with nerfacto's norm).
    The norm is at least 1 before it divides, so the gradient is finite everywhere, 0 included.
    """
    norm = x.abs().amax(-1, keepdim=True).clamp(min=1)
    return x * (2 - 1 / norm) / norm


def unit_cube(x: Tensor, contracted: bool) -> Tensor:
    """Unit-box positions (…, 3) → [0, 1]³: all of space when contracted, else the box itself."""
    return (contract(x) + 2) / 4 if contracted else (x + 1) / 2
