"""Does the model have as many classes as the table of its data?

Enters: a full config. Leaves: nothing, or one error that names the table, the model and the
setting. Asked before the first step: a model of another size trains without any complaint, and
every number it gives is wrong.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from oneformer3d.data.class_tables import get_class_table

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def check_class_sizes(cfg: Config) -> None:
    """Compare the model's numbers of classes with the class table of every loader.

    A model that does not state a number, and data without a class table, are not judged.

    Args:
        cfg: full config; ``model`` and the loaders may be absent.

    Raises:
        ValueError: another number of semantic or instance classes.
    """
    stated = dict(_stated_sizes(cfg.get('model') or {}))
    for loader in LOADERS:
        dataset = (cfg.get(loader) or {}).get('dataset') or {}
        name = dataset.get('class_table')
        if name is None or not stated:
            continue

        table = get_class_table(name) if isinstance(name, str) else name
        sizes = {'semantic': table.num_classes, 'instance': len(table.instance_classes)}
        for setting, (kind, number) in stated.items():
            if number != sizes[kind]:
                raise ValueError(
                    f'class table {name!r} of {loader} has {sizes[kind]} {kind} classes, but '
                    f'{setting} = {number}: change the setting or the table'
                )


def _stated_sizes(model: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, int]]]:
    """(setting, (kind of class, number)) of what a model's settings state."""
    parts = {'model': model, 'model.decoder': model.get('decoder') or {}}
    for part, settings in parts.items():
        for kind in ('semantic', 'instance'):
            number = settings.get(f'num_{kind}_classes')
            if isinstance(number, int):
                yield f'{part}.num_{kind}_classes', (kind, number)
