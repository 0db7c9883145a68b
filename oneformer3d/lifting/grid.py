"""``grid_sample``'s own coordinates and shapes.

Enters: pixels (..., 2) of an image of (H, W), whose top-left pixel has its centre at (0, 0); shapes
of an input and a grid. Leaves: coordinates in [-1, 1] from border to border, the shape of the
output.
"""

from collections.abc import Sequence

from torch import Tensor

from .camera import check_image_size
from .shapes import expect_shape


def pixel_to_grid_coords(pixel_coords: Tensor, image_shape: tuple[int, int]) -> Tensor:
    """Pixels to ``grid_sample``'s coordinates with ``align_corners=False``: (2u + 1) / W − 1.

    −1 and 1 are the image's borders, half a pixel beyond its outermost pixel centres, so the
    result fits a feature map of any stride that covers the image.

    Args:
        pixel_coords: (..., 2) as (u, v).
        image_shape: (H, W) of the image that they belong to.

    Returns:
        (..., 2) as (x, y).

    Example:
        >>> import torch
        >>> pixel_to_grid_coords(torch.tensor([[-0.5, -0.5], [319.5, 239.5]]), (480, 640))
        tensor([[-1., -1.],
                [ 0.,  0.]])
    """
    height, width = check_image_size(image_shape)
    expect_shape('pixel_coords', pixel_coords, '... 2')
    size = pixel_coords.new_tensor([width, height])
    return (2 * pixel_coords + 1) / size - 1


def check_grid_sample_shapes(
    input_shape: Sequence[int], grid_shape: Sequence[int]
) -> tuple[int, int, int, int]:
    """The shape that ``grid_sample`` gives for an input and a grid.

    Args:
        input_shape: (B, C, H_in, W_in).
        grid_shape: (B, H_out, W_out, 2).

    Returns:
        (B, C, H_out, W_out).

    Raises:
        ValueError: the rule that is broken: number of dimensions, size of a dimension, batch
            sizes, or a last dimension of the grid that is not 2.

    Example:
        >>> check_grid_sample_shapes((2, 256, 60, 80), (2, 1, 1000, 2))
        (2, 256, 1, 1000)
    """
    for name, shape, letters in (
        ('input', input_shape, '(B, C, H_in, W_in)'),
        ('grid', grid_shape, '(B, H_out, W_out, 2)'),
    ):
        if len(shape) != 4:
            raise ValueError(f'{name} must have 4 dimensions {letters}, got {tuple(shape)}')

    if input_shape[0] != grid_shape[0]:
        raise ValueError(
            f'input and grid must have one batch size, got {input_shape[0]} and {grid_shape[0]}'
        )
    if grid_shape[3] != 2:
        raise ValueError(f'the last dimension of grid must be 2 (x, y), got {grid_shape[3]}')
    for name, shape in (('input', input_shape), ('grid', grid_shape)):
        if min(shape) < 1:
            raise ValueError(f'every dimension of {name} must be at least 1, got {tuple(shape)}')
    return input_shape[0], input_shape[1], grid_shape[1], grid_shape[2]
