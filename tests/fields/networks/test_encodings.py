"""Encodings against their formulas."""

import math

import numpy as np
import pytest
import torch

from oneformer3d.fields import FrequencyEncoding, PositionalEncoding, SphericalHarmonics, contract
from oneformer3d.fields.networks.encodings import unit_cube


def test_positional_encoding_keeps_the_input_and_is_63_wide() -> None:
    encoding = PositionalEncoding(3, 10)
    x = torch.randn(7, 3)
    expected = [x]
    for k in range(10):
        expected += [torch.sin(x * 2**k), torch.cos(x * 2**k)]
    encoded = encoding(x)
    assert encoded.shape == (7, 63)
    assert encoding.output_dim == 63
    torch.testing.assert_close(encoded, torch.cat(expected, -1))
    assert PositionalEncoding(3, 0)(x).shape == (7, 3)


def test_frequencies_are_tiny_cuda_nn_s() -> None:
    x = torch.rand(5, 3)
    encoded = FrequencyEncoding(3, 6)(x)
    assert encoded.shape == (5, 36)
    # dimension by dimension, then frequency by frequency, sine before cosine
    for dim, k in ((0, 0), (1, 3), (2, 5)):
        angle = math.pi * 2**k * x[:, dim]
        at = dim * 12 + 2 * k
        torch.testing.assert_close(encoded[:, at], angle.sin(), atol=1e-5, rtol=0)
        torch.testing.assert_close(encoded[:, at + 1], angle.cos(), atol=1e-5, rtol=0)


def test_spherical_harmonics_are_orthonormal() -> None:
    # Gauss-Legendre in z and even steps around it integrate these products exactly
    z, weight = np.polynomial.legendre.leggauss(8)
    angle = np.arange(16) * 2 * np.pi / 16
    ring = np.sqrt(1 - z**2)[:, None]
    directions = np.stack(
        [ring * np.cos(angle), ring * np.sin(angle), np.broadcast_to(z[:, None], (8, 16))], -1
    )
    values = SphericalHarmonics(4)(torch.from_numpy(directions)).flatten(0, 1)
    share = torch.from_numpy(np.repeat(weight * 2 * np.pi / 16, 16))
    product = values.t() @ (values * share[:, None])
    torch.testing.assert_close(product, torch.eye(16, dtype=torch.float64), atol=1e-12, rtol=0)


def test_contraction_bounds_space_and_inverts() -> None:
    x = torch.randn(200, 3, dtype=torch.float64) * torch.logspace(-2, 3, 200)[:, None]
    contracted = contract(x)
    assert contracted.abs().max() < 2
    inside = x.abs().amax(-1) <= 1
    assert torch.equal(contracted[inside], x[inside])
    # y = (2 − 1/m) x/m has ‖y‖∞ = 2 − 1/m, so x = y m / (2 − 1/m)
    norm = contracted.abs().amax(-1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(contracted / (norm * (2 - norm)), x)
    far = torch.tensor([[10.0, -5, 0]])
    torch.testing.assert_close(contract(far), torch.tensor([[1.9, -0.95, 0]]))
    assert 0 <= unit_cube(x, True).min() <= unit_cube(x, True).max() <= 1


@pytest.mark.parametrize('at', [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [3.0, 0.0, 0.0]])
def test_contraction_has_finite_gradients(at) -> None:
    x = torch.tensor([at], requires_grad=True)
    contract(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    if at[0] == 0:
        assert torch.equal(x.grad, torch.ones(1, 3))


def test_contraction_gradcheck() -> None:
    x = torch.tensor([[0.3, 0.2, -0.5], [2.0, -1.2, 0.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(contract, x)
