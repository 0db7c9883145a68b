"""Configs of a run: read with overrides, and set as the arguments of a command say.

Enters: the path of a config and options. Leaves: a checked mmengine ``Config``.
"""

import inspect
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, TextIO

import torch
import yaml
from mmengine.config import Config, DictAction
from mmengine.fileio.handlers.registry_utils import file_handlers
from mmengine.fileio.handlers.yaml_handler import YamlHandler
from mmengine.runner import Runner

from oneformer3d.files import errors
from oneformer3d.files.left_out import LossRules
from oneformer3d.files.shipped import find_config

from .cli import FOLDERS, folder_options
from .published_names import with_class_settings


def prepare(args: Namespace) -> Config:
    """Config of a training or test run from the common arguments."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, {**folder_options(args), **read_values(args.cfg_options)})
    if 'model' not in cfg:
        raise ValueError(f'{args.config}: has no model')
    cfg.launcher = args.launcher
    set_work_dir(cfg, args)
    if args.allow_pickle:
        set_allow_pickle(cfg)
    if args.max_lost is not None:
        set_max_lost(cfg, args.max_lost)
    if not torch.cuda.is_available() and 'env_cfg' in cfg:
        cfg.env_cfg.cudnn_benchmark = False
    return cfg


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config and merge ``--cfg-options`` into it; ``configs/…`` is found from any folder.

    Three things differ from mmengine's own merging. A step of a list is addressed by its type:
    ``test_dataloader.dataset.pipeline.LoadPosedViews.hide``. A step that the list has not is put
    before one by ``….pipeline.NormalizeColor.before.type`` and the same with its settings. And
    ``data_root`` and ``clip_store`` are set wherever the config has them (datasets, pipelines,
    evaluators, model); options of single places come after and win.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an override of a top-level key that no runner knows, of a step that is not
            there or not alone, or of a folder that the config does not use; for a config that
            is empty or cannot be read.
    """
    cfg = _read_config(find_config(path))
    if not cfg:
        raise ValueError(f'{path}: an empty config')
    if isinstance(cfg.get('model'), Mapping):
        cfg.model = with_class_settings(cfg.model)
    single = dict(options or {})

    for name in FOLDERS:
        if name in single:
            set_everywhere(cfg, name, single.pop(name))

    known = set(cfg.keys()) | set(inspect.signature(Runner.__init__).parameters)
    unknown = sorted({key.split('.')[0] for key in single} - known)
    if unknown:
        raise ValueError(f'{path}: --cfg-options names unknown keys {unknown}')
    single = _insert_steps(cfg, single)
    cfg.merge_from_dict({step_address(cfg, key): value for key, value in single.items()})
    return cfg


def _read_config(path: Path) -> Config | None:
    """A config and its bases, None of an empty file; its faults in one line.

    Raises:
        ValueError: YAML that makes objects, a syntax error, or what its code raised.
    """
    # an empty YAML or JSON is no dictionary, which mmengine does not expect
    if not path.read_text(encoding='utf-8', errors='replace').strip():
        return None
    try:
        return Config.fromfile(path)
    except FileNotFoundError:
        raise  # a base that is not there names itself
    except Exception as error:  # a Python config is code, which may raise anything
        raise ValueError(f'{path}: not a readable config ({errors.one_line(error)})') from error


def read_values(texts: Mapping[str, str]) -> dict[str, Any]:
    """``KEY=VALUE`` of a command line → values, as mmengine reads them: numbers, lists, words."""
    parser = ArgumentParser()
    parser.add_argument('--options', nargs='*', action=DictAction, default={})
    words = [f'{key}={text}' for key, text in texts.items()]
    return parser.parse_args(['--options', *words]).options


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
    if isinstance(node, MutableMapping):
        found = isinstance(node.get(name), str)
        if found:
            node[name] = value
        return found + sum(_replace(child, name, value) for child in node.values())
    if isinstance(node, list | tuple):
        return sum(_replace(child, name, value) for child in node)
    return 0


def _insert_steps(cfg: Config, options: Mapping[str, Any]) -> dict[str, Any]:
    """Put the steps of ``LIST.STEP.before.SETTING`` into a config; returns the other options.

    Raises:
        ValueError: there is no such place, or the new step has no type.
    """
    rest: dict[str, Any] = {}
    steps: dict[str, dict[str, Any]] = {}
    for key, value in options.items():
        place, mark, setting = key.partition('.before.')
        if mark:
            steps.setdefault(place, {})[setting] = value
        else:
            rest[key] = value

    for place, step in steps.items():
        if 'type' not in step:
            raise ValueError(f'{place}.before: a new step needs a type, e.g. {place}.before.type=')
        *parents, position = step_address(cfg, place).split('.')
        node: Any = cfg
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        if not isinstance(node, list):
            raise ValueError(f'{place}.before: only lists have a place before a step')
        node.insert(int(position), step)
    return rest


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


def set_max_lost(cfg: Config, share: float) -> None:
    """Let every step that reads a feature store lack so many of the data's frames."""

    def visit(node: Any) -> None:
        if isinstance(node, MutableMapping):
            if node.get('type') == 'LoadPosedViews':
                node['max_lost'] = share
            node = tuple(node.values())
        if isinstance(node, list | tuple):
            for child in node:
                visit(child)

    LossRules(max_lost=share)  # refuses what is no share
    visit(cfg._cfg_dict)


def set_allow_pickle(cfg: Config) -> None:
    """Let every dataset of the config read pickled infos; the user vouches for the files."""
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None:
            for dataset in loader.dataset.get('datasets', [loader.dataset]):
                dataset.allow_pickle = True


class SafeYamlHandler(YamlHandler):
    """mmengine's reader of YAML configs, without tags that make objects."""

    def load_from_fileobj(self, file: TextIO, **kwargs: Any) -> Any:
        """Plain values of an open file."""
        return super().load_from_fileobj(file, **{**kwargs, 'Loader': yaml.SafeLoader})


# Also the bases of a config are read by it.
file_handlers.update(yaml=SafeYamlHandler(), yml=SafeYamlHandler())
