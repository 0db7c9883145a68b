"""Checkpoint files that load, in either layout, and files that must not."""

import os
import pickle

import pytest
import torch
from torch import nn

from oneformer3d.backbones.sparse_conv import SparseSequential, SubMConv3d
from oneformer3d.files.checkpoints import load_checkpoint_file
from oneformer3d.segmentor.weights import adapt_sparse_conv_layout, load_checkpoint


def make_net() -> SparseSequential:
    return SparseSequential(SubMConv3d(4, 8), nn.BatchNorm1d(8), SubMConv3d(8, 4, 1, bias=True))


def published(state_dict: dict) -> dict:
    return {
        name: value.permute(1, 2, 3, 4, 0).contiguous() if value.ndim == 5 else value
        for name, value in state_dict.items()
    }


def assert_same_state(net: nn.Module, expected: dict) -> None:
    assert net.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize('layout', [dict, published])
@pytest.mark.parametrize('nest', ['', 'state_dict', 'model'])
def test_either_layout_and_nesting(tmp_path, layout, nest):
    expected = make_net().state_dict()
    content = layout(expected)
    path = tmp_path / 'checkpoint.pth'
    torch.save({nest: content, 'meta': {'epoch': 3}} if nest else content, path)
    for source in (path, {nest: content} if nest else content):
        net = make_net()
        load_checkpoint(net, source)
        assert_same_state(net, expected)


def test_published_layout_by_single_values():
    net = SubMConv3d(4, 8)
    weight = torch.arange(27 * 32.0).view(3, 3, 3, 4, 8)
    adapted = adapt_sparse_conv_layout({'weight': weight}, net.state_dict())['weight']
    for out, x, y, z, channel in ((0, 0, 0, 0, 0), (7, 0, 1, 2, 3), (5, 2, 0, 1, 2)):
        assert adapted[out, x, y, z, channel] == weight[x, y, z, channel, out]
    assert weight.shape == (3, 3, 3, 4, 8)


def test_other_entries_pass_unchanged():
    values = {'bias': torch.ones(3), 'unknown': torch.ones(3, 3, 3, 4, 8)}
    adapted = adapt_sparse_conv_layout(values, {'bias': torch.zeros(3)})
    assert adapted == values
    assert adapted is not values


def test_axes_moved_twice():
    net = make_net()
    twice = published(published(net.state_dict()))
    with pytest.raises(ValueError, match=r'0\.weight has shape \(3, 3, 4, 8, 3\).*moved twice'):
        load_checkpoint(net, twice)


def test_checkpoint_of_another_model(tmp_path):
    net = make_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state_dict = published(net.state_dict())
    state_dict['decoder.weight'] = state_dict.pop('1.bias')
    state_dict['1.weight'] = torch.ones(5)
    path = tmp_path / 'other.pth'
    torch.save(state_dict, path)
    with pytest.raises(ValueError, match='another model') as error:
        load_checkpoint(net, path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert '\n' not in message
    for part in (
        '1 missing (1.bias)',
        '1 unexpected (decoder.weight)',
        '1 of another shape (1.weight (5,) instead of (8,))',
    ):
        assert part in message
    assert_same_state(net, before)


def test_long_lists_are_cut():
    with pytest.raises(ValueError, match=r'9 missing \(0.weight, 1.weight, 1.bias, …\)'):
        load_checkpoint(
            SparseSequential(*make_net(), nn.Linear(2, 2, bias=False)), {'x': torch.ones(1)}
        )


class Hostile:
    def __reduce__(self):
        return os.system, ('touch hostile_was_here',)


@pytest.mark.parametrize(
    'save', [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))]
)
def test_hostile_files_are_not_executed(tmp_path, monkeypatch, save):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'hostile.pth'
    save({'state_dict': Hostile()}, path)
    with pytest.raises(ValueError, match=r'hostile\.pth: not loaded') as error:
        load_checkpoint_file(path)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'hostile_was_here').exists()


@pytest.mark.parametrize(
    'content', [b'', b'no checkpoint', b'PK\x03\x04' + bytes(40), b'\x80\x02.']
)
def test_damaged_files(tmp_path, content):
    path = tmp_path / 'damaged.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'damaged\.pth') as error:
        load_checkpoint_file(path)
    assert '\n' not in str(error.value)


def test_truncated_file(tmp_path):
    path = tmp_path / 'truncated.pth'
    torch.save(make_net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r'truncated\.pth'):
        load_checkpoint_file(path)


@pytest.mark.parametrize('content', [{}, [1, 2], {'epoch': 3}, torch.ones(3), {'state_dict': {}}])
def test_files_without_a_state_dict(tmp_path, content):
    path = tmp_path / 'strange.pth'
    torch.save(content, path)
    with pytest.raises(ValueError, match=r'strange\.pth: expected a state dict'):
        load_checkpoint_file(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing\.pth'):
        load_checkpoint(make_net(), tmp_path / 'nothing.pth')
