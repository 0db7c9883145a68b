"""Small pieces that several heads share: a perceptron, unit vectors, and values of composites.

Enters: values (…, D) of samples, or composites Σ w v (…, D) of rays with their Σ w (…). Leaves:
values of the same kind in float32 or better.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Rays that gathered less weight than this met nothing that a mean could be taken of.
MIN_ACCUMULATION = 1e-2


def mlp(in_dim: int, out_dim: int, width: int, num_layers: int) -> nn.Sequential:
    """A perceptron with ``num_layers`` hidden layers of ReLU and a linear last one."""
    dims = [in_dim] + [width] * num_layers
    layers = [layer for a, b in pairwise(dims) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(dims[-1], out_dim))


def full_precision(values: Tensor) -> Tensor:
    """float32, or float64 where it is that already."""
    return values if values.dtype == torch.float64 else values.float()


def unit(values: Tensor) -> Tensor:
    """Vectors of length 1, 0 where they are 0; the gradient is finite there."""
    return F.normalize(full_precision(values), dim=-1)


def weighted_mean(composite: Tensor, accumulation: Tensor) -> Tensor:
    """Σ w v / Σ w, fading to 0 below ``MIN_ACCUMULATION`` so that gradients stay bounded."""
    return composite / accumulation.clamp(min=MIN_ACCUMULATION)[..., None]


def linear_of_composite(layer: nn.Linear, composite: Tensor, accumulation: Tensor) -> Tensor:
    """Σ w (W x + b) = W Σ w x + b Σ w."""
    values = F.linear(composite.to(layer.weight.dtype), layer.weight)
    return values if layer.bias is None else values + accumulation[..., None] * layer.bias
