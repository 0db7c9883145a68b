"""State dicts without the prefix of a part: the names of a network that stands alone."""

import copy

import pytest
import torch
from torch import nn

from oneformer3d.structures import hide_prefix


class Around(nn.Module):
    """A part without a name in state dicts, beside a head."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.head = nn.Linear(2, 2)
        hide_prefix(self, 'part')


def inner() -> nn.Module:
    return nn.ModuleDict({'conv': nn.Linear(3, 2), 'norm': nn.BatchNorm1d(2)})


def test_names_are_those_of_the_part_alone_and_load_back():
    alone = inner()
    around = Around(inner())
    assert set(around.state_dict()) == {*alone.state_dict(), 'head.weight', 'head.bias'}
    missing, unexpected = around.load_state_dict(alone.state_dict(), strict=False)
    assert set(missing) == {'head.weight', 'head.bias'}
    assert not unexpected
    assert torch.equal(around.part['conv'].weight, alone['conv'].weight)


@pytest.mark.parametrize('wrap', [lambda m: m, copy.deepcopy, nn.Sequential])
def test_nested_twice_wrapped_and_copied(wrap):
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Around(inner())
            hide_prefix(self, 'encoder')

    one, other = wrap(Outer()), wrap(Outer())
    names = {name.split('.', 1)[1] if wrap is nn.Sequential else name for name in one.state_dict()}
    assert names == set(Around(inner()).state_dict())
    other.load_state_dict(one.state_dict())  # strict
    for a, b in zip(one.parameters(), other.parameters()):
        assert torch.equal(a, b)


def test_names_that_would_meet_are_refused():
    with pytest.raises(ValueError, match=r"a part has one of the names \['head'\]"):
        Around(nn.ModuleDict({'head': nn.Linear(2, 2)}))
