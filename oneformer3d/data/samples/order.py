"""Which samples come when, and with which random numbers: the same after a stop and with any
number of data workers.

Enters: seed, epoch, and how much of it is done. Leaves: numbers of samples that carry their seed;
generators that are put back after each sample; the names of the samples being loaded.
"""

import mmap
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dataset import DefaultSampler

from oneformer3d.registry import DATA_SAMPLERS

_NUM_PLACES, _PLACE = 128, 160  # workers, bytes of a name
_BOARD = mmap.mmap(-1, _NUM_PLACES * _PLACE)  # shared by all processes forked from this one


class SampleIndex(int):
    """Number of a sample in a dataset, with the seed of its random numbers.

    A dataset that joins others subtracts what stands before, one that repeats takes the remainder:
    the seed goes along. It pickles, as data workers need it.

    Example:
        >>> index = SampleIndex(7, seed=3) - 5
        >>> index, index.seed
        (2, 3)
    """

    seed: int

    def __new__(cls, index: int, seed: int) -> 'SampleIndex':
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __sub__(self, other: int) -> 'SampleIndex':
        return SampleIndex(int(self) - int(other), self.seed)

    def __mod__(self, other: int) -> 'SampleIndex':
        return SampleIndex(int(self) % int(other), self.seed)

    def __reduce__(self) -> tuple[type['SampleIndex'], tuple[int, int]]:
        return SampleIndex, (int(self), self.seed)


@DATA_SAMPLERS.register_module()
class ResumableSampler(DefaultSampler):
    """mmengine's order of samples, which can begin within an epoch.

    Each sample carries a seed made of the run's seed, the epoch and its place in the epoch, so that
    its augmentation depends neither on the worker that loads it nor on what was loaded before.

    Args:
        dataset: what is sampled.
        shuffle: another order in every epoch.
        seed: of the order and of the samples.
        round_up: repeat samples so that all processes have equally many.
    """

    def skip(self, num_samples: int) -> None:
        """Leave out the first samples of this process, once: they were trained on before."""
        self._num_done = num_samples

    def __iter__(self) -> Iterator[SampleIndex]:
        num_done, self._num_done = self._num_done, 0
        for place, index in enumerate(DefaultSampler.__iter__(self)):
            if place >= num_done:
                overall = place * self.world_size + self.rank  # the same for any number of ranks
                yield SampleIndex(index, sample_seed(self.seed, self.epoch, overall))

    _num_done = 0


def sample_seed(seed: int, epoch: int, place: int) -> int:
    """A seed of 32 bits for one place of one epoch."""
    return int(np.random.SeedSequence([seed, epoch, place]).generate_state(1)[0])


@contextmanager
def own_random_numbers(index: int) -> Iterator[None]:
    """Draw the random numbers of a sample's seed, and put the generators back afterwards.

    An index without a seed draws from the generators as they are.
    """
    if not isinstance(index, SampleIndex):
        yield
        return

    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(index.seed)
    np.random.seed(index.seed)
    torch.default_generator.manual_seed(index.seed)  # not of GPUs, as torch.manual_seed does
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


@contextmanager
def underway(name: str) -> Iterator[None]:
    """Let other processes know which sample this one loads, also where it dies of it."""
    worker = torch.utils.data.get_worker_info()
    place = 0 if worker is None else 1 + worker.id % (_NUM_PLACES - 1)
    first = place * _PLACE
    _BOARD[first : first + _PLACE] = name.encode()[: _PLACE - 1].ljust(_PLACE, b'\0')
    yield
    _BOARD[first] = 0  # not where it failed: whoever looks for the cause reads the name


def samples_underway() -> tuple[str, ...]:
    """Names of the samples that data workers have begun and not finished."""
    places = [_BOARD[i * _PLACE : (i + 1) * _PLACE] for i in range(1, _NUM_PLACES)]
    names = [place.partition(b'\0')[0].decode(errors='replace') for place in places]
    return tuple(sorted({name for name in names if name}))
