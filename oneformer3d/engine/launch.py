"""One entry for one process or many: configs in, a ready mmengine runner out.

mmengine's ``launcher='pytorch'`` sets a CUDA device before anything else, so on
a machine without one the process group (Gloo) is made here, before the runner.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.runner import Runner

from oneformer3d.files.atomic import sweep
from oneformer3d.files.lock import ProcessLock

from .class_sizes import LOADERS, check_class_sizes
from .cli import LAUNCHERS
from .data_workers import with_timeouts

_NEEDS_WORKERS = ('persistent_workers', 'prefetch_factor', 'multiprocessing_context', 'timeout')


def build_runner(cfg: Config) -> Runner:
    """Runner of a config, with several CPU processes where there is no CUDA.

    Args:
        cfg: full config with ``launcher`` set to one of ``LAUNCHERS``.

    Raises:
        ValueError: for an unknown launcher, or one that needs CUDA here; for a model of another
            number of classes than its data's table; for ``sync_bn`` that nothing can synchronise.
    """
    check_class_sizes(cfg)
    cfg = with_timeouts(without_idle_workers(cfg))
    launcher = cfg.get('launcher', 'none')
    if launcher not in LAUNCHERS:
        raise ValueError(f'launcher must be one of {LAUNCHERS}, got {launcher!r}')
    check_sync_bn(cfg)
    if launcher != 'none' and not torch.cuda.is_available():
        cfg = with_gloo(cfg)
    return Runner.from_cfg(cfg)


@contextmanager
def work_dir_of_one(cfg: Config) -> Iterator[None]:
    """Keep other trainings out of the folder of this one, and clear what a killed one left there.

    Raises:
        LockedError: another training writes there; names its process.
        OSError: of the block; names the folder where it names no file, as of mmengine's writers.
    """
    if int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0'))):
        yield  # the first process of a run holds the lock for all
        return

    folder = Path(cfg.work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessLock(folder / 'train.pid', folder, 'a work dir has one training at a time'):
        sweep(folder)
        try:
            yield
        except OSError as error:
            if error.errno is None or error.filename is not None:
                raise
            raise OSError(error.errno, error.strerror, str(folder)) from error


def without_idle_workers(cfg: Config) -> Config:
    """Of loaders with ``num_workers=0``, leave out what torch allows with workers only."""
    adapted = Config(cfg._cfg_dict.copy(), filename=cfg.filename)
    for name in LOADERS:
        loader = cfg.get(name)
        if loader is not None and loader.get('num_workers', 0) == 0:
            kept = {k: v for k, v in loader.items() if k not in _NEEDS_WORKERS}
            adapted[name] = kept
    return adapted


def check_sync_bn(cfg: Config) -> None:
    """Is there anything that ``sync_bn`` would synchronise, and can it?

    Raises:
        ValueError: one process, or no GPU, where torch's ``SyncBatchNorm`` does not compute.
    """
    kind = cfg.get('sync_bn')
    if kind is None:
        return
    if cfg.get('launcher', 'none') == 'none':
        raise ValueError(
            f'sync_bn={kind}: one process has nobody to share statistics with; start several with '
            'tools/dist_train.sh, or leave --sync-bn out'
        )
    if not torch.cuda.is_available():
        raise ValueError(
            f'sync_bn={kind}: batch norms are synchronised on GPUs only, and there is none here; '
            'leave --sync-bn out'
        )


def with_gloo(cfg: Config) -> Config:
    """Join the Gloo group that torchrun's environment describes; adapt the config to it."""
    if cfg.launcher != 'pytorch':
        raise ValueError(f'launcher {cfg.launcher!r} needs CUDA; on CPUs use tools/dist_train.sh')
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR') if name not in os.environ]
    if missing:
        raise ValueError(f'launcher pytorch needs {missing} in the environment: use torchrun')
    if not dist.is_initialized():
        dist.init_process_group('gloo')

    adapted = Config(cfg._cfg_dict.copy(), filename=cfg.filename)
    adapted.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    return adapted


def leave_group() -> None:
    """End a run of several processes together.

    Without this a process may exit while its neighbour still talks to it, and Gloo aborts the
    neighbour after all its work is done. The runner must have been let go before: its wrapped model
    holds the group, whose threads abort a process that ends while they run.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # a runner and its hooks refer to each other
        dist.barrier()
        dist.destroy_process_group()
