"""Working in pieces: how many rows fit a byte budget, and the ranges to walk.

Enters: a number of rows, the bytes that one row needs while it is worked on, a budget in bytes.
Leaves: ranges (begin, end). Every function that takes a ``byte_budget`` gives the same values
whatever the budget, since no result depends on which rows are worked on together.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

DEFAULT_BYTE_BUDGET = 256 << 20
# Pieces beyond this no longer fit a processor's caches and only get slower there.
_MAX_CPU_BYTES = 8 << 20


def num_rows(bytes_per_row: int, byte_budget: int, device: torch.device) -> int:
    """Rows to work on at once: as the budget allows, at least one.

    Raises:
        ValueError: a budget below one byte.
    """
    check_byte_budget(byte_budget)
    if device.type == 'cpu':
        byte_budget = min(byte_budget, _MAX_CPU_BYTES)
    return max(1, byte_budget // max(1, bytes_per_row))


def check_byte_budget(byte_budget: int) -> None:
    """ValueError for a budget below one byte."""
    if byte_budget < 1:
        raise ValueError(f'byte_budget must be at least 1, got {byte_budget}')


def ranges(length: int, size: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of consecutive pieces of at most ``size`` rows."""
    for begin in range(0, length, size):
        yield begin, min(begin + size, length)


def join(pieces: Iterable[Tensor], length: int, dim: int = 0) -> Tensor:
    """Concatenate at least one piece to ``length`` along ``dim``, as the pieces come.

    Without gradients each piece is dropped once it is copied, so that no more than the result
    and one piece are held at a time.
    """
    pieces = iter(pieces)
    piece = next(pieces)
    if piece.shape[dim] == length:
        return piece
    if piece.requires_grad:
        return torch.cat([piece, *pieces], dim)
    shape = list(piece.shape)
    shape[dim] = length
    result = piece.new_empty(shape)
    begin = 0
    while piece is not None:
        size = piece.shape[dim]
        result.narrow(dim, begin, size).copy_(piece)
        begin += size
        piece = None  # freed before the next one is made
        piece = next(pieces, None)
    return result
