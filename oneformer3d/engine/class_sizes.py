"""Does the model have as many classes as the table of its data?

Enters: a full config. Leaves: nothing, or one error that names the table, the model and the
setting. Asked before the first step: a model of another size trains without any complaint, and
every number it gives is wrong.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from oneformer3d.data.class_tables import ClassTable, get_class_table

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')

# Where a model states its numbers of semantic and of instance classes.
_SEMANTIC = (
    'num_semantic_classes',
    'decoder.num_semantic_classes',
    'criterion.num_semantic_classes',
    'encoder.point_semantic.num_classes',
    'point_semantic.num_classes',
)
_INSTANCE = (
    'decoder.num_instance_classes',
    'decoder.num_classes',
    'criterion.inst_criterion.num_classes',
)
_STUFF = ('stuff_classes', 'test_cfg.stuff_classes', 'test_cfg.stuff_cls')


def check_class_sizes(cfg: Config) -> None:
    """Compare the model's classes with the class table of every loader.

    A model that does not state a number, and data without a class table, are not judged.

    Args:
        cfg: full config; ``model`` and the loaders may be absent.

    Raises:
        ValueError: another number of semantic or instance classes, or other stuff classes.
    """
    model = cfg.get('model') or {}
    model = model.get('module', model)  # of test-time augmentation
    for loader in LOADERS:
        for name in _table_names((cfg.get(loader) or {}).get('dataset') or {}):
            table = get_class_table(name) if isinstance(name, str) else name
            _compare(model, table, f'class table {name!r} of {loader}')


def _compare(model: Mapping[str, Any], table: ClassTable, called: str) -> None:
    """Raise if a setting of the model does not fit the table."""
    # without a decoder of queries the only classes are semantic ones; with one, published
    # settings call the instance classes so
    has_decoder = 'decoder' in model
    semantic = _SEMANTIC if has_decoder else (*_SEMANTIC, 'num_classes')
    instance = (*_INSTANCE, 'num_classes') if has_decoder else _INSTANCE

    sizes = (
        ('semantic', semantic, table.num_classes),
        ('instance', instance, len(table.instance_classes)),
    )
    for kind, settings, expected in sizes:
        for setting, number in _stated(model, settings):
            if number != expected:
                raise ValueError(
                    f'{called} has {expected} {kind} classes, but model.{setting} = {number}: '
                    'change the setting or the table'
                )

    for setting, stuff in _stated(model, _STUFF):
        if sorted(stuff) != sorted(table.stuff):
            raise ValueError(
                f'{called} has the stuff classes {sorted(table.stuff)}, but model.{setting} = '
                f'{sorted(stuff)}: change the setting or the table'
            )


def _table_names(dataset: Mapping[str, Any]) -> Iterator[Any]:
    """Class tables of a dataset's settings and of those that it wraps."""
    if dataset.get('class_table') is not None:
        yield dataset['class_table']
    inner = dataset.get('dataset')
    wrapped = [inner] if isinstance(inner, Mapping) else []
    for part in (*wrapped, *dataset.get('datasets', ())):
        yield from _table_names(part)


def _stated(model: Mapping[str, Any], settings: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """(Setting, value) of those settings, named with dots, that a model has."""
    for setting in settings:
        value: Any = model
        for part in setting.split('.'):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            yield setting, value
