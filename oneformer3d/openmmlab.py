"""Where this package meets OpenMMLab's import machinery, without importing any of it.

Enters: nothing; ``oneformer3d/__init__.py`` calls ``install`` once. Leaves: two finders.

mmdet3d imports mmcv's compiled ops at its top although this package calls none of them, and mmcv
has no wheel that holds them. ``MissingOps`` stands last among Python's finders, so a compiled
``mmcv._ext`` wins wherever there is one; where there is none, importing works and calling an op
says how to get it. ``AfterImport`` adds what mmengine and mmdet3d must know of us, and what
newer libraries took from them, at the moment somebody imports them, so that ``import oneformer3d``
alone costs nothing.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import NoReturn

from oneformer3d.files.shipped import find_config

OPS = 'mmcv._ext'
REGISTERING = 'oneformer3d.register'
REGISTRIES = (
    'DATASETS',
    'HOOKS',
    'METRICS',
    'MODELS',
    'OPTIM_WRAPPERS',
    'TASK_UTILS',
    'TRANSFORMS',
)


def install() -> None:
    """Put the two finders in place; what is imported already is told at once."""
    sys.meta_path.insert(0, AfterImport())
    sys.meta_path.append(MissingOps())
    for name, tell in TOLD.items():
        if name in sys.modules:
            tell(sys.modules[name])


class MissingOps(MetaPathFinder, Loader):
    """Finds ``mmcv._ext`` where nobody else does: a module whose every op raises when called."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == OPS else None

    def exec_module(self, module: ModuleType) -> None:
        def missing_op(name: str) -> Callable[..., NoReturn]:
            # Python asks a module for names of its own, such as __path__
            if name.startswith('__'):
                raise AttributeError(name)

            def call(*args: object, **kwargs: object) -> NoReturn:
                raise RuntimeError(
                    f'mmcv.ops: {name} is not compiled here; bash tools/setup.sh --ops builds it'
                )

            return call

        module.__getattr__ = missing_op  # type: ignore[method-assign]


class AfterImport(MetaPathFinder, Loader):
    """Runs a function on each of a few modules right after somebody imported it."""

    def __init__(self) -> None:
        self.loaders: dict[str, Loader] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in TOLD:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            self.loaders[fullname] = spec.loader
            spec.loader = self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loaders[spec.name].create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loaders[module.__name__].exec_module(module)
        TOLD[module.__name__](module)


def add_types(mmdet3d_registry: ModuleType) -> None:
    """Let mmdet3d's registries import our types when they are first asked for one."""
    for name in REGISTRIES:
        registry = getattr(mmdet3d_registry, name)
        registry._locations.append(REGISTERING)
        # asked already: it will not look at its locations again
        if registry._imported:
            import_module(REGISTERING)


def add_configs(mmengine_config: ModuleType) -> None:
    """Let configs inherit from ours: ``_base_ = ['oneformer3d::oneformer3d_scannet.py']``.

    mmengine finds the configs of a fixed list of packages, and only those in subfolders.
    """
    config = mmengine_config.Config
    find_others = config._get_cfg_path

    def find_base(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, separator, name = cfg_path.partition('::')
        if (package, separator) != ('oneformer3d', '::'):
            return find_others(cfg_path, filename)
        # types are found in mmdet3d's registries, so the base needs no scope of its own
        return str(find_config(f'configs/{name}')), None

    config._get_cfg_path = staticmethod(find_base)


def add_in1d(scannet_evaluation: ModuleType) -> None:
    """Give numpy the name that mmdet3d's instance evaluation calls and numpy 2.4 took away."""
    numpy = scannet_evaluation.np
    vars(numpy).setdefault('in1d', numpy.isin)


TOLD = {
    'mmdet3d.registry': add_types,
    'mmdet3d.evaluation.functional.scannet_utils.evaluate_semantic_instance': add_in1d,
    'mmengine.config.config': add_configs,
}
