"""Settings of classes under their published names, laid over a config that names them at the model.

Enters: the ``model`` of a config. Leaves: the same with ``num_semantic_classes`` and
``stuff_classes``. Published settings spread them over other parts (``num_classes`` counts
instances, ``test_cfg`` has the stuff), and configs of one's own data, written after those, go on
saying it that way.
"""

from collections.abc import Mapping
from typing import Any

_TYPE = 'OneFormer3D'
_STUFF = ('stuff_classes', 'stuff_cls')


def with_class_settings(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model whose settings of classes stand where ``OneFormer3D`` takes them.

    Args:
        model: settings of any model; those of other types stay as they are.

    Raises:
        ValueError: ``num_classes`` differs from the decoder's number of instance classes.

    Example:
        >>> model = {'type': 'OneFormer3D', 'num_semantic_classes': 16, 'stuff_classes': [0, 1]}
        >>> with_class_settings({**model, 'test_cfg': {'stuff_cls': [0]}})['stuff_classes']
        [0]
    """
    settings = dict(model)
    if settings.get('type') != _TYPE:
        return settings
    if 'num_classes' in settings:
        num_classes, decoder = settings.pop('num_classes'), settings.get('decoder') or {}
        if num_classes != decoder.get('num_instance_classes'):
            raise ValueError(
                f'model.num_classes = {num_classes}, but model.decoder.num_instance_classes = '
                f'{decoder.get("num_instance_classes")}'
            )
        criterion = settings.get('criterion') or {}
        if 'num_semantic_classes' in criterion:
            settings['num_semantic_classes'] = criterion['num_semantic_classes']

    test_cfg = dict(settings.get('test_cfg') or {})
    stuff = [test_cfg.pop(name) for name in _STUFF if name in test_cfg]
    if stuff:
        settings |= {'stuff_classes': stuff[0], 'test_cfg': test_cfg}
    return settings
