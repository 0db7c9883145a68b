"""Data workers that die, hang or lack shared memory end the run with the cause and the sample.

Enters: configs and loaders with ``num_workers`` above 0. Leaves: checked ones, and errors of one
line in place of a hang or a traceback.
"""

import pickle
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from oneformer3d.data.samples.order import SampleIndex, samples_underway
from oneformer3d.files.errors import one_line
from oneformer3d.registry import HOOKS

from .class_sizes import LOADERS

TIMEOUT = 600  # seconds without a batch, unless the config says otherwise
SHARED_MEMORY = Path('/dev/shm')


def with_timeouts(cfg: Config) -> Config:
    """Let every loader with workers end after ``TIMEOUT`` seconds without a batch.

    A ``timeout`` of the config stays.
    """
    adapted = Config(cfg._cfg_dict.copy(), filename=cfg.filename)
    for name in LOADERS:
        loader = cfg.get(name)
        if loader is not None and loader.get('num_workers', 0) > 0:
            adapted[name] = {'timeout': TIMEOUT, **loader}
    return adapted


@contextmanager
def tended_workers(runner: Runner) -> Iterator[None]:
    """End a run's data workers with it, and say in one line which sample a dead or silent one had.

    Workers that live for the whole run are otherwise there when Python exits. It sends each of them
    one SIGTERM and waits for it, but they outlive the first (``seed_worker_from_torch``), and the
    process would never end.

    Raises:
        ValueError: a worker died, or none gave a batch for the time that the config allows.
    """
    try:
        yield
    except RuntimeError as error:
        text = one_line(error)
        if not text.startswith('DataLoader'):
            raise
        # the signal that ended a worker is told by an error before this one
        text = '; '.join(dict.fromkeys([text, *_loader_texts(error.__cause__)]))
        names = ', '.join(samples_underway()) or 'no sample'
        hint = '; is the memory full?' if 'killed by signal: Killed' in text else ''
        raise ValueError(f'{text.rstrip(". ")}{hint}; being loaded: {names}') from error
    finally:
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop):
                end_workers(loop.dataloader)


def end_workers(loader: DataLoader) -> None:
    """Let the persistent workers of a loader finish and wait for them; it may be used again."""
    # torch does this when the iterator is collected, which cycles of references put off
    iterator, loader._iterator = loader._iterator, None
    if isinstance(iterator, _MultiProcessingDataLoaderIter):
        iterator._shutdown_workers()


def _loader_texts(error: BaseException | None) -> list[str]:
    texts = [one_line(error)] if isinstance(error, RuntimeError) else []
    return [text for text in texts if text.startswith('DataLoader')]


@HOOKS.register_module()
class SharedMemoryHook(Hook):
    """Compare the shared memory with what the workers will hold, before the first step."""

    def before_train(self, runner: Runner) -> None:
        """Called by the runner."""
        check_shared_memory(runner.train_dataloader)


def check_shared_memory(loader: DataLoader, folder: Path = SHARED_MEMORY) -> None:
    """Look whether the batches that workers prepare fit into shared memory.

    One sample is loaded for its size; it draws no random numbers of the run.

    Args:
        loader: of the training.
        folder: where shared memory is mounted; nothing is checked where it is not.

    Raises:
        ValueError: it is too small; names both sizes and what helps.
    """
    if loader.num_workers == 0 or not folder.is_dir():
        return
    sample = loader.dataset[SampleIndex(0, seed=0)]
    num_batches = loader.num_workers * (loader.prefetch_factor or 2)
    needed = len(pickle.dumps(sample)) * (loader.batch_size or 1) * num_batches
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f'{folder}: {free / 1e6:.1f} MB are free, and {loader.num_workers} data workers hold '
            f'about {needed / 1e6:.1f} MB; enlarge it (docker run --shm-size=8g) or set '
            'train_dataloader.num_workers to fewer or 0'
        )


@FUNCTIONS.register_module()
def seed_worker_from_torch(worker_id: int) -> None:
    """Seed numpy in a data worker from the seed torch drew for this epoch and worker.

    mmengine's default gives a worker the same numpy seed in every epoch, and with
    it the same augmentations; torch draws its base seed from the main process'
    generator, which a resumed run restores.

    A worker also outlives the first SIGTERM: job managers send it to all processes, and the main
    one has a step to finish and a checkpoint to write.
    """
    worker = torch.utils.data.get_worker_info()
    if worker is None:
        raise RuntimeError('is called in a worker of a DataLoader only')
    np.random.seed(worker.seed % 2**32)

    def outlive(number: int, frame: FrameType | None) -> Any:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, outlive)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
