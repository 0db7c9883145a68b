"""Shapes in letters: what fits, what does not, and how the error reads."""

import numpy as np
import pytest
import torch

from oneformer3d.lifting.shapes import expect_shape


@pytest.mark.parametrize(
    ('size', 'shape', 'sizes'),
    [
        ((5, 3), 'N 3', {}),
        ((5,), 'N', {'N': 5}),
        ((), '', {}),
        ((2, 7, 4, 4), 'V C h h', {'C': 7}),
        ((2, 3), '... 2 3', {}),
        ((9, 8, 2, 3), '... 2 3', {}),
        ((2, 9, 8, 3), '2 ... 3', {}),
        ((0, 3), 'N 3', {}),
    ],
)
def test_sizes_of_what_fits_come_back(size, shape, sizes):
    assert expect_shape('x', torch.zeros(size), shape, **sizes) == size
    assert expect_shape('x', np.zeros(size), shape, **sizes) == size


@pytest.mark.parametrize(
    ('size', 'shape', 'sizes'),
    [
        ((5, 2), 'N 3', {}),
        ((5,), 'N 3', {}),
        ((5, 3, 1), 'N 3', {}),
        ((4, 3), 'N 3', {'N': 5}),
        ((4, 5), 'h h', {}),
        ((3,), '... 2 3', {}),
        ((2, 2), '2 ... 3', {}),
    ],
)
def test_anything_else_is_one_error(size, shape, sizes):
    with pytest.raises(ValueError, match=r'^x: expected \(.*\).*, got \(.*\)$'):
        expect_shape('x', torch.zeros(size), shape, **sizes)


def test_the_error_names_argument_letters_and_sizes():
    with pytest.raises(ValueError, match='maps: expected') as error:
        expect_shape('maps', torch.zeros(2, 5, 4, 4), 'V C h w', C=192)
    assert str(error.value) == 'maps: expected (V, C, h, w) with C=192, got (2, 5, 4, 4)'
    with pytest.raises(ValueError, match='t: expected') as error:
        expect_shape('t', torch.zeros(2, 1), 'N')
    assert str(error.value) == 't: expected (N,), got (2, 1)'
