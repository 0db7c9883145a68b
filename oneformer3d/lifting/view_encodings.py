"""What tells views and places apart: sinusoids of view numbers and of positions.

Enters: view numbers (...) or points (..., 3) in metres. Leaves: encodings (..., channels).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PositionalEncoding3D(nn.Module):
    """Sinusoids of x, y and z, wavelengths from 10 cm to 100 m; has no parameters.

    Args:
        channels: of the encoding; where 6 does not divide it, the last ones are zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 6:
            raise ValueError(f'expected at least 6 channels, got {channels}')
        self.channels = channels
        wavelengths = torch.logspace(-1, 2, channels // 6)
        self.register_buffer('frequencies', 2 * math.pi / wavelengths, persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        """(..., 3) metres → (..., channels)."""
        angles = points[..., None] * self.frequencies.to(points.dtype)
        encoded = torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(-2)
        return F.pad(encoded, (0, self.channels - encoded.shape[-1]))


class ViewEmbedding(nn.Module):
    """An embedding of every view number: sinusoids through a linear layer.

    Args:
        channels: of the embedding.
        num_views: the longest wavelength covers so many numbers.
    """

    def __init__(self, channels: int, num_views: int = 32, num_waves: int = 8) -> None:
        super().__init__()
        wavelengths = torch.logspace(math.log10(2.5), math.log10(2 * max(2, num_views)), num_waves)
        self.register_buffer('frequencies', 2 * math.pi / wavelengths, persistent=False)
        self.linear = nn.Linear(2 * num_waves, channels)

    def forward(self, view_ids: Tensor) -> Tensor:
        """(...) int64 → (..., channels)."""
        angles = view_ids[..., None].to(self.frequencies) * self.frequencies
        return self.linear(torch.cat((angles.sin(), angles.cos()), dim=-1))
