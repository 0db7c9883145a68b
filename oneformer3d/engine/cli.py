"""What the command-line tools share: configs with overrides, and errors of one line.

Enters: parsed arguments. Leaves: a checked mmengine ``Config``; a process exit status.
"""

import inspect
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

TRACEBACK_VARIABLE = 'ONEFORMER3D_TRACEBACK'
USER_ERRORS = (ValueError, TypeError, KeyError, OSError, ImportError)


def run_tool(main: Callable[[], None], errors: tuple[type[Exception], ...] = USER_ERRORS) -> None:
    """Run a tool's ``main``; expected errors become one line on stderr and exit status 2.

    Set ``ONEFORMER3D_TRACEBACK=1`` to see where an error came from.
    """
    try:
        main()
    except errors as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        print(one_line(error), file=sys.stderr)  # noqa: T201 (this is the tools' stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)  # noqa: T201
        sys.exit(130)


def one_line(error: Exception) -> str:
    """``error: <what>``: the last line, where a data worker's message holds the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    if isinstance(error, KeyError):
        text = text.strip('\'"')
    return f'error: {text} (set {TRACEBACK_VARIABLE}=1 for the traceback)'


def load_config(path: str | Path, options: dict | None = None) -> Config:
    """Read a config and merge ``--cfg-options`` into it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an override of a top-level key that no runner knows.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such config file')
    cfg = Config.fromfile(path)
    if options:
        known = set(cfg.keys()) | set(inspect.signature(Runner.__init__).parameters)
        unknown = sorted({key.split('.')[0] for key in options} - known)
        if unknown:
            raise ValueError(f'{path}: --cfg-options names unknown keys {unknown}')
        cfg.merge_from_dict(options)
    return cfg


def set_work_dir(cfg: Config, args: Namespace) -> None:
    """Where results go: the argument, else the config's, else ``work_dirs/<config name>``."""
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)


def set_allow_pickle(cfg: Config) -> None:
    """Let every dataset of the config read pickled infos; the user vouches for the files."""
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None:
            for dataset in loader.dataset.get('datasets', [loader.dataset]):
                dataset.allow_pickle = True


def add_common_arguments(parser) -> None:
    """Arguments that training and testing share (mmdet3d's names)."""
    from mmengine.config import DictAction

    from .launch import LAUNCHERS

    parser.add_argument('--work-dir', help='where logs, checkpoints and results go')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings, e.g. train_cfg.max_epochs=3 model.decoder.num_layers=2',
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='job launcher')
    parser.add_argument(
        '--allow-pickle',
        action='store_true',
        help='read .pkl infos (a pickle can run code: only for files you trust)',
    )
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help='set by torchrun')


def prepare(args: Namespace) -> Config:
    """Config of a training or test run from the common arguments."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    set_work_dir(cfg, args)
    if args.allow_pickle:
        set_allow_pickle(cfg)
    if not torch.cuda.is_available() and 'env_cfg' in cfg:
        cfg.env_cfg.cudnn_benchmark = False
    return cfg
