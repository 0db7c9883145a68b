"""Shapes checked where arrays enter, with one wording for all errors.

Enters: an array or tensor, and its shape in letters. Leaves: its sizes, or one clear error.
"""

from typing import Protocol


class HasShape(Protocol):
    """Arrays and tensors alike."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def size_of(maps: HasShape) -> tuple[int, int]:
    """(H, W): the last two sizes of maps (..., H, W).

    Example:
        >>> import torch
        >>> size_of(torch.zeros(2, 192, 28, 36))
        (28, 36)
    """
    height, width = maps.shape[-2:]
    return height, width


def expect_shape(name: str, array: HasShape, shape: str, **sizes: int) -> tuple[int, ...]:
    """Check the shape of an array against its letters.

    Args:
        name: of the argument, for the error.
        array: anything with a ``shape``.
        shape: one word per dimension: a number (``'N 3'``), a letter that is fixed by ``sizes``, a
            letter that may have any size, but the same wherever it stands in ``shape``, or at most
            one ``...`` for any number of dimensions.
        **sizes: what letters stand for.

    Returns:
        The sizes of the array, all of them.

    Raises:
        ValueError: another number of dimensions, or another size.

    Example:
        >>> import torch
        >>> num_views, channels, height, width = expect_shape(
        ...     'maps', torch.zeros(2, 192, 28, 28), 'V C h w', C=192
        ... )
        >>> expect_shape('points', torch.zeros(5, 2), 'N 3')
        Traceback (most recent call last):
        ValueError: points: expected (N, 3), got (5, 2)
        >>> expect_shape('uv', torch.zeros(4, 2), 'N 2', N=5)
        Traceback (most recent call last):
        ValueError: uv: expected (N, 2) with N=5, got (4, 2)
    """
    words, got = shape.split(), tuple(array.shape)
    if not _fits(words, got, sizes):
        fixed = ', '.join(f'{letter}={size}' for letter, size in sizes.items() if letter in words)
        comma = ',' if len(words) == 1 else ''
        raise ValueError(
            f'{name}: expected ({", ".join(words)}{comma})'
            f'{" with " if fixed else ""}{fixed}, got {got}'
        )
    return got


def _fits(words: list[str], got: tuple[int, ...], sizes: dict[str, int]) -> bool:
    if '...' in words:
        middle = words.index('...')
        after = len(words) - middle - 1
        if len(got) < middle + after:
            return False
        words = words[:middle] + words[middle + 1 :]
        got = got[:middle] + got[len(got) - after :]
    if len(words) != len(got):
        return False

    # a letter seen before, or given, has its size already
    bound = dict(sizes)
    return all(
        size == (int(word) if word.isdigit() else bound.setdefault(word, size))
        for word, size in zip(words, got)
    )
