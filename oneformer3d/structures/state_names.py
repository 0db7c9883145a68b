"""State dicts in which the parameters of a part have no prefix.

Enters: a module and the name of one of its parts. Leaves: the module, which saves ``part.x`` as
``x`` and loads it back. So a network keeps the names it had alone, or was published with, when
something is built around it.
"""

from functools import partial

from torch import Tensor, nn


def hide_prefix(module: nn.Module, part: str) -> None:
    """Save and load the parameters of ``module.<part>`` without ``<part>.`` in front.

    Raises:
        ValueError: children of the part and of the module have a name in common.
    """
    inner = getattr(module, part)
    taken = dict(module.named_children()).keys() & dict(inner.named_children()).keys()
    if taken:
        raise ValueError(f'{type(inner).__name__}: a part has one of the names {sorted(taken)}')
    module._register_state_dict_hook(partial(_drop_prefix, f'{part}.'))
    module.register_load_state_dict_pre_hook(partial(_add_prefix, part))


def _drop_prefix(
    part: str, module: nn.Module, state_dict: dict[str, Tensor], prefix: str, metadata: dict
) -> None:
    long = prefix + part
    for key in [key for key in state_dict if key.startswith(long)]:
        state_dict[prefix + key.removeprefix(long)] = state_dict.pop(key)


def _add_prefix(
    part: str, module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object
) -> None:
    for name in getattr(module, part).state_dict():
        if prefix + name in state_dict:
            state_dict[f'{prefix}{part}.{name}'] = state_dict.pop(prefix + name)
