"""One process' share of independent pieces of work.

Enters: ``--shard I/N``, or what torchrun says. Leaves: a ``Share``. Shares are disjoint and
together hold every piece, so processes need not know of each other.
"""

import os
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar('T')


@dataclass(frozen=True)
class Share:
    """Every ``count``-th piece, beginning with number ``index``.

    Raises:
        ValueError: ``index`` is not within 0…``count`` − 1.

    Example:
        >>> Share(1, 3).of(['a', 'b', 'c', 'd', 'e'])
        ['b', 'e']
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f'share: expected I/N with 0 ≤ I < N, got {self.index}/{self.count}')

    def of(self, pieces: Sequence[T]) -> list[T]:
        """The pieces of this share."""
        return list(pieces[self.index :: self.count])


def read_share(text: str) -> Share:
    """``I/N`` → a share.

    Raises:
        ValueError: something else.
    """
    index, slash, count = text.partition('/')
    if not (slash and index.isdecimal() and count.isdecimal()):
        raise ValueError(f'--shard: expected I/N such as 0/4, got {text!r}')
    return Share(int(index), int(count))


def share_of(text: str | None, environment: Mapping[str, str] = os.environ) -> Share:
    """What ``--shard`` says; without it torchrun's rank, as in the extraction of features.

    Example:
        >>> share_of(None, {'RANK': '2', 'WORLD_SIZE': '4'})
        Share(index=2, count=4)
    """
    if text is not None:
        return read_share(text)
    return Share(int(environment.get('RANK', 0)), int(environment.get('WORLD_SIZE', 1)))


def add_shard_argument(parser: ArgumentParser) -> None:
    """The argument of tools that share their work among processes or machines."""
    parser.add_argument(
        '--shard',
        metavar='I/N',
        help='do the share I of N, counted from 0; in an array job of Slurm '
        '$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT (default: as torchrun says, else all)',
    )
