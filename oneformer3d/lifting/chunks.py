"""Working in chunks: how many rows fit a byte budget, and the ranges to walk.

Enters: a number of rows, the bytes that one row needs while it is worked on, a budget in bytes.
Leaves: ranges (begin, end). Every function that takes a ``byte_budget`` gives the same values
whatever the budget, since no result depends on which rows are worked on together.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

DEFAULT_BYTE_BUDGET = 256 << 20
# Chunks beyond this no longer fit a processor's caches and only get slower there.
_MAX_CPU_BYTES = 8 << 20


def num_rows(bytes_per_row: int, byte_budget: int, device: torch.device) -> int:
    """Rows to work on at once: as the budget allows, at least one.

    Raises:
        ValueError: a budget below one byte.

    Example:
        >>> num_rows(1000, 4096, torch.device('cpu'))
        4
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
    """(begin, end) of consecutive chunks of at most ``size`` rows.

    Example:
        >>> list(ranges(7, 3))
        [(0, 3), (3, 6), (6, 7)]
    """
    for begin in range(0, length, size):
        yield begin, min(begin + size, length)


def bag_ranges(ends: Tensor, max_size: int, max_bags: int | None = None) -> list[tuple[int, int]]:
    """(begin, end) of consecutive bags whose sizes add up to at most ``max_size``.

    Args:
        ends: (N,) int64 on the CPU, cumulated sizes of the bags.
        max_size: a single bag may be larger.
        max_bags: of a chunk; None does not look.

    Example:
        >>> bag_ranges(torch.tensor([2, 3, 9, 10, 11]), max_size=4)
        [(0, 2), (2, 3), (3, 5)]
    """
    chunks, begin = [], 0
    while begin < len(ends):
        limit = max_size + (int(ends[begin - 1]) if begin else 0)
        end = int(torch.searchsorted(ends, limit, right=True))
        end = min(max(end, begin + 1), begin + (max_bags or len(ends)))
        chunks.append((begin, end))
        begin = end
    return chunks


def join(chunks: Iterable[Tensor], length: int, dim: int = 0) -> Tensor:
    """Concatenate at least one chunk to ``length`` along ``dim``, as the chunks come.

    Without gradients each chunk is dropped once it is copied, so that no more than the result
    and one chunk are held at a time.
    """
    chunks = iter(chunks)
    chunk = next(chunks)
    if chunk.shape[dim] == length:
        return chunk
    if chunk.requires_grad:
        return torch.cat([chunk, *chunks], dim)

    shape = list(chunk.shape)
    shape[dim] = length
    result = chunk.new_empty(shape)
    begin = 0
    while chunk is not None:
        size = chunk.shape[dim]
        result.narrow(dim, begin, size).copy_(chunk)
        begin += size
        chunk = None  # freed before the next one is made
        chunk = next(chunks, None)
    return result
