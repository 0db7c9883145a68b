"""What the command-line tools share: configs with overrides, and errors of one line.

Enters: parsed arguments. Leaves: a checked mmengine ``Config``; a process exit status.
"""

import inspect
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
import yaml
from mmengine.config import Config
from mmengine.fileio.handlers.registry_utils import file_handlers
from mmengine.fileio.handlers.yaml_handler import YamlHandler
from mmengine.runner import Runner

from oneformer3d.data.clouds.scale import METRES
from oneformer3d.files import errors
from oneformer3d.files.left_out import LossRules
from oneformer3d.files.shipped import find_config

TRACEBACK_VARIABLE = 'ONEFORMER3D_TRACEBACK'
USER_ERRORS = (ValueError, TypeError, KeyError, OSError, ImportError)
FOLDERS = ('data_root', 'clip_store')  # options that are set wherever a config has them


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


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config and merge ``--cfg-options`` into it; ``configs/…`` is found from any folder.

    Two things differ from mmengine's own merging. A step of a list is addressed by its type:
    ``test_dataloader.dataset.pipeline.LoadPosedViews.hide``. And ``data_root`` and ``clip_store``
    are set wherever the config has them (datasets, pipelines, evaluators, model); options of
    single places come after and win.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an override of a top-level key that no runner knows, of a step that is not
            there or not alone, or of a folder that the config does not use.
    """
    cfg = _read_config(find_config(path))
    single = dict(options or {})

    for name in FOLDERS:
        if name in single:
            set_everywhere(cfg, name, single.pop(name))

    known = set(cfg.keys()) | set(inspect.signature(Runner.__init__).parameters)
    unknown = sorted({key.split('.')[0] for key in single} - known)
    if unknown:
        raise ValueError(f'{path}: --cfg-options names unknown keys {unknown}')
    cfg.merge_from_dict({step_address(cfg, key): value for key, value in single.items()})
    return cfg


def _read_config(path: Path) -> Config:
    """A config and its bases; its faults in one line.

    Raises:
        ValueError: YAML that makes objects, a syntax error, or what its code raised.
    """
    try:
        return Config.fromfile(path)
    except FileNotFoundError:
        raise  # a base that is not there names itself
    except Exception as error:  # a Python config is code, which may raise anything
        raise ValueError(f'{path}: not a readable config ({errors.one_line(error)})') from error


class SafeYamlHandler(YamlHandler):
    """mmengine's reader of YAML configs, without tags that make objects."""

    def load_from_fileobj(self, file: TextIO, **kwargs: Any) -> Any:
        """Plain values of an open file."""
        return super().load_from_fileobj(file, **{**kwargs, 'Loader': yaml.SafeLoader})


# Also the bases of a config are read by it.
file_handlers.update(yaml=SafeYamlHandler(), yml=SafeYamlHandler())


def set_everywhere(cfg: Config, name: str, value: str) -> None:
    """Set ``name`` wherever a config has it, at any depth; where it is None it stays so.

    Raises:
        ValueError: the config has it nowhere.
    """
    # What stands at the top is a variable of the files: set, too, but nobody reads it there.
    if not sum(_replace(node, name, value) for node in cfg.values()):
        raise ValueError(f'{cfg.filename}: has no {name} to set')
    if name in cfg:
        cfg[name] = value


def _replace(node: Any, name: str, value: str) -> int:
    """Set ``name`` in the dictionaries within a node; how many had it."""
    if isinstance(node, Mapping):
        found = isinstance(node.get(name), str)
        if found:
            node[name] = value
        return found + sum(_replace(child, name, value) for child in node.values())
    if isinstance(node, list | tuple):
        return sum(_replace(child, name, value) for child in node)
    return 0


def step_address(cfg: Config, key: str) -> str:
    """A dotted key whose steps of lists are named by their type → the same with their numbers.

    Raises:
        ValueError: no such step, or several.
    """
    node: Any = cfg
    parts = key.split('.')
    for position, part in enumerate(parts):
        if isinstance(node, list | tuple) and not part.isdigit():
            types = [step.get('type') if isinstance(step, Mapping) else None for step in node]
            if types.count(part) != 1:
                raise ValueError(f'{key}: expected one step {part} among {types}')
            parts[position] = str(types.index(part))
            node = node[types.index(part)]
        elif isinstance(node, list | tuple):
            node = node[int(part)] if int(part) < len(node) else None
        else:
            node = node.get(part) if isinstance(node, Mapping | Config) else None
    return '.'.join(parts)


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


def add_common_arguments(parser: ArgumentParser) -> None:
    """Arguments that training and testing share (mmdet3d's names)."""
    from mmengine.config import DictAction

    from .launch import LAUNCHERS

    parser.add_argument('--work-dir', help='where logs, checkpoints and results go')
    add_folder_arguments(parser)
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings, e.g. train_cfg.max_epochs=3 model.decoder.num_layers=2 '
        'test_dataloader.dataset.pipeline.LoadPosedViews.hide=pixels',
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='job launcher')
    parser.add_argument(
        '--allow-pickle',
        action='store_true',
        help='read .pkl infos (a pickle can run code: only for files you trust)',
    )
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help='set by torchrun')


def add_folder_arguments(parser: ArgumentParser) -> None:
    """Arguments for the folders that a config reads."""
    parser.add_argument(
        '--data-root', metavar='DIR', help="the data's folder, everywhere in the config"
    )
    parser.add_argument(
        '--clip-store', metavar='DIR', help='the feature store, everywhere in the config'
    )


def add_scan_arguments(parser: ArgumentParser) -> None:
    """What a user may know better about a cloud than its file tells, and what becomes of doubts."""
    parser.add_argument(
        '--unit',
        choices=tuple(METRES),
        help='of the coordinates of a cloud (default: metres, unless they can be nothing but '
        'another unit)',
    )
    parser.add_argument(
        '--columns', nargs='+', metavar='NAME', help='of .bin and .npy files: x y z r g b ...'
    )
    parser.add_argument(
        '--warnings',
        choices=('show', 'error'),
        default='show',
        help='what was assumed while reading is shown, or ends the program (default: %(default)s)',
    )


def tell(warnings: Sequence[str], treatment: str) -> None:
    """Show what was assumed on stderr, or raise it as a ValueError with ``treatment`` 'error'."""
    if warnings and treatment == 'error':
        raise ValueError('; '.join(warnings))
    for warning in warnings:
        sys.stderr.write(f'warning: {warning}\n')


def add_recording_arguments(parser: ArgumentParser) -> None:
    """What a user may know better about a folder of posed frames than its files tell."""
    parser.add_argument(
        '--convention',
        choices=('opencv', 'opengl', 'opencv-w2c', 'opengl-w2c'),
        help='of the poses of RGB-D frames: axes, camera to world or (-w2c) back (default: as the '
        'layout has them)',
    )
    parser.add_argument(
        '--depth-scale',
        type=float,
        help='units of the depth images per metre (default: as the layout has them)',
    )
    parser.add_argument(
        '--intrinsics',
        metavar='"FX FY CX CY"',
        help='of the colour images in pixels, or a file (default: those in the folder)',
    )

    # how many frames may be unusable
    parser.add_argument('--strict', action='store_true', help='end at the first unusable frame')
    parser.add_argument(
        '--max-lost',
        type=float,
        default=0.2,
        help='share of unusable frames that is an error (default: %(default)s)',
    )


def recording_options(args: Namespace) -> dict[str, Any]:
    """These arguments as ``load_posed_rgbd`` takes them."""
    return {
        'convention': args.convention,
        'depth_scale': args.depth_scale,
        'intrinsics': args.intrinsics,
        'rules': LossRules(args.strict, args.max_lost),
    }


def folder_options(args: Namespace) -> dict[str, str]:
    """Those of the folders that were given, as options of ``load_config``."""
    given = {name: getattr(args, name) for name in FOLDERS}
    return {name: folder for name, folder in given.items() if folder is not None}


def prepare(args: Namespace) -> Config:
    """Config of a training or test run from the common arguments."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, {**folder_options(args), **(args.cfg_options or {})})
    cfg.launcher = args.launcher
    set_work_dir(cfg, args)
    if args.allow_pickle:
        set_allow_pickle(cfg)
    if not torch.cuda.is_available() and 'env_cfg' in cfg:
        cfg.env_cfg.cudnn_benchmark = False
    return cfg
